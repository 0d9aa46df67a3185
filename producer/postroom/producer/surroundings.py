"""What a program finds said around it: environment variables, and secrets as files.

A folder of secrets holds a file for each setting, named as its variable in lower case: ``postroom_broker_url``. It is
how container engines (``/run/secrets``) and systemd (``CREDENTIALS_DIRECTORY``) hand secrets over. A variable goes
before a file; one that is empty is not set.
"""

import os
from pathlib import Path
from typing import Final

from postroom.producer.errors import SettingsInvalid

SECRETS_DIR: Final = "POSTROOM_SECRETS_DIR"
"""Environment alone: the folder of secrets, instead of the usual ones. ``/dev/null`` stands for none."""

_USUAL: Final = Path("/run/secrets")
_SYSTEMD: Final = "CREDENTIALS_DIRECTORY"


def secrets_folders() -> list[Path]:
    """The folders that secrets are read from; what the last holds goes before what the others hold.

    Raises:
        SettingsInvalid: the folder of ``POSTROOM_SECRETS_DIR`` is none, or cannot be read.
    """
    named = os.environ.get(SECRETS_DIR)
    if named == os.devnull:
        return []
    if named:
        folder = Path(named).expanduser().resolve()
        if not folder.is_dir() or not os.access(folder, os.R_OK | os.X_OK):
            raise SettingsInvalid(f"{SECRETS_DIR}: {folder} is no folder that this user can read; correct or unset it")
        return [folder]
    usual = [_USUAL, *(Path(told) for told in [os.environ.get(_SYSTEMD)] if told)]
    return [folder for folder in usual if folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)]


def setting(name: str) -> str | None:
    """What is said for a variable: in the environment, else in a file of the folders of secrets; None if nothing is.

    Raises:
        SettingsInvalid: the folder or the file cannot be read.
    """
    if said := os.environ.get(name):
        return said
    for folder in reversed(secrets_folders()):
        file = folder / name.lower()
        try:
            if said := file.read_text("utf-8").strip():
                return said
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no text"
            raise SettingsInvalid(f"{name}: {file} cannot be read: {why}") from None
    return None
