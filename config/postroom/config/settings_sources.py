"""Where settings were said: in the environment, in `.env` or in a file of secrets; and what is said there in vain."""

import difflib
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from dotenv import dotenv_values

from postroom.config.settings import PREFIX, Settings
from postroom.producer.surroundings import SECRETS_DIR, secrets_folders

DOTENV: Final = ".env"
_NOT_SETTINGS: Final = {
    SECRETS_DIR,
    "POSTROOM_READY_FD",  # from `postroom up` to what it starts
    "POSTROOM_SUPERVISOR_PID",
    "POSTROOM_ALIVE_FILE",  # for a health check of one part
    "POSTROOM_LONG",  # asks the tests for their long runs
}
_TESTS: Final = "POSTROOM_TEST_"


def origins() -> dict[str, str]:
    """Field of `Settings` → where its value in force was said; those at their default are left out."""
    found: dict[str, str] = {}
    for variable, value, place in _said():
        field = variable.upper().removeprefix(PREFIX).lower()
        if value and field in Settings.model_fields:
            found.setdefault(field, place)
    return found


def unknown() -> list[str]:
    """A sentence for each variable and file whose name says that it is a setting, and which is none.

    Such a name may be meant for another release, so it is told and refuses nothing.
    """
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    told: dict[str, str] = {}
    for variable, _, place in _said():
        name = variable.upper()
        if name in known or name.startswith(_TESTS) or (name in _NOT_SETTINGS and place == _ENVIRONMENT):
            continue
        if name in _NOT_SETTINGS:
            told[name] = f"{variable} ({place}) is read from the environment alone"
        else:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.75)
            meant = f"; did you mean {near[0]}?" if near else ""
            told.setdefault(name, f"{variable} ({place}) is no setting and has no effect{meant}")
    return [told[name] for name in sorted(told)]


_ENVIRONMENT: Final = "environment"


def _said() -> Iterator[tuple[str, str, str]]:
    """Variable, value and place of all that has our prefix; what goes before comes before."""
    for variable, value in os.environ.items():
        if variable.upper().startswith(PREFIX):
            yield variable, value, _ENVIRONMENT
    dotenv: dict[str, str | None] = {}
    with suppress(OSError, UnicodeDecodeError):  # said where settings are loaded
        dotenv = dotenv_values(DOTENV)
    for variable, told in dotenv.items():
        if variable.upper().startswith(PREFIX):
            yield variable, told or "", DOTENV
    for folder in reversed(secrets_folders()):
        for file in sorted(folder.iterdir()):
            if file.name.upper().startswith(PREFIX):
                yield file.name, file.read_text("utf-8", "replace").strip() if file.is_file() else "", str(folder)
