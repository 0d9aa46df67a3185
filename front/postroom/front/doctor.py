"""`postroom doctor`: asks every part of the house whether it does its work, and says what to do where one does not.

It changes nothing, opens no private key, and ends in time whatever hangs: each check runs in a thread of its own, and
one that has no answer then is a problem itself.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from postroom.config import settings as configuration
from postroom.config import settings_sources
from postroom.config.settings import PREFIX, Settings
from postroom.front import doctor_checks as disk
from postroom.front import doctor_redis as keeping
from postroom.front import doctor_services as services
from postroom.front.doctor_checks import Finding, Question, one
from postroom.producer.errors import SettingsInvalid

LONGEST_SECONDS: Final = 6.0
"""For all checks together, since they run side by side."""


_QUESTIONS: Final = (
    one("settings", disk.settings_known, "Look at the environment, .env and the folder of secrets"),
    one("ca_file", disk.ca_file, "Look at POSTROOM_SMTP_CA_FILE"),
    one("data_folder", disk.data_folder, "Look at the disk of POSTROOM_DATA_DIR"),
    one("disk_space", disk.disk_space, "Look at the disk of POSTROOM_DATA_DIR"),
    one("private_ring", disk.private_ring, "Look at the disk of POSTROOM_KEYS_FILE"),
    one("public_key", disk.the_public_key, "Look at the disk of POSTROOM_PUBLIC_KEY_FILE"),
    one("front_key", disk.front_key, "Look at the disk of POSTROOM_FRONT_KEY_FILE"),
    one("database", services.database_is_newest, services.SEE_DATABASE),
    Question(("held", "pauses", "rejects", "keys"), services.ledger_holds, services.SEE_DATABASE),
    one("clocks", services.clocks_agree, services.SEE_DATABASE),
    one("redis", keeping.redis_keeps, keeping.SEE_REDIS),
    one("inbox", keeping.inbox_moves, keeping.SEE_REDIS),
    Question(("worker_accept", "worker_drain", "worker_care"), services.workers_answer, keeping.SEE_REDIS),
    one("scheduler", keeping.scheduler_lives, keeping.SEE_REDIS),
    one("flower", services.flower_answers, "Restart `postroom up`"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: a fixed word.
        ok: whether it is as it must be.
        message: what was found.
        action: what to do; empty if nothing.
    """

    name: str
    ok: bool
    message: str
    action: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What the doctor found.

    Attributes:
        settings: those in force by their variables' names, secrets masked; empty if they cannot be used.
        said_in: where those that are not at their default were said, by the same names.
    """

    checks: tuple[Check, ...]
    settings: Mapping[str, str | float | None]
    said_in: Mapping[str, str]

    @property
    def ok(self) -> bool:
        """Whether all is as it must be."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The shape of design §10."""
        return {
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
            "settings": dict(self.settings),
            "said_in": dict(self.said_in),
        }


def diagnose() -> Report:
    """Look at everything that `postroom up` should run, by the settings in force."""
    try:
        settings = configuration.load()
    except SettingsInvalid as error:
        action = (
            "Correct it where it is said: environment, .env or folder of secrets; the rest cannot be looked at before"
        )
        return Report((Check("settings", False, str(error), action),), {}, {})
    said_in = {f"{PREFIX}{field.upper()}": place for field, place in settings_sources.origins().items()}
    return Report(tuple(_asked(settings)), in_force(settings), said_in)


def in_force(settings: Settings) -> dict[str, str | float | None]:
    """Every setting by its variable's name, with the value that is in force; no secret."""
    derived = {
        "database_url": _without_password(settings.database),
        "broker_url": _without_password(settings.broker),
        "data_dir": str(settings.data_dir.resolve()),
        "keys_file": str(settings.ring_file.resolve()),
        "public_key_file": str(settings.public_file.resolve()),
        "front_key_file": str(settings.front_file.resolve()),
    }
    return {
        f"{PREFIX}{name.upper()}": derived.get(name, _shown(getattr(settings, name)))
        for name in type(settings).model_fields
    }


def _asked(settings: Settings) -> list[Check]:
    asking = [_Asking(question, settings) for question in _QUESTIONS]
    until = time.monotonic() + LONGEST_SECONDS
    return [check for each in asking for check in each.checks(until)]


class _Asking:
    """A question under way. Its thread is a daemon: one that hangs for ever keeps nobody here."""

    def __init__(self, question: Question, settings: Settings) -> None:
        self._question = question
        self._settings = settings
        self._findings: tuple[Finding, ...] | None = None
        self._thread = threading.Thread(target=self._ask, name=question.names[0], daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._findings = self._question.ask(self._settings)
        except Exception as error:  # noqa: BLE001 - a check that fails is a problem, and the others are still wanted
            action = keeping.unwritable(error) or self._question.action
            trouble = Finding(False, f"could not be looked at: {type(error).__name__}: {error}", action)
            self._findings = (trouble,) * len(self._question.names)

    def checks(self, until: float) -> list[Check]:
        self._thread.join(max(0.0, until - time.monotonic()))
        silence = Finding(False, f"no answer within {LONGEST_SECONDS:.0f} s", self._question.action)
        findings = self._findings or (silence,) * len(self._question.names)
        return [
            Check(name, finding.ok, finding.message, finding.action)
            for name, finding in zip(self._question.names, findings, strict=True)
        ]


def _shown(value: object) -> str | float | None:
    if isinstance(value, SecretStr):
        return str(value)
    return value if value is None or isinstance(value, int | float) else str(value)


def _without_password(url: str) -> str:
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "(no URL)"
    hidden = {name: "hidden" for name in parsed.query if "password" in name.lower()}
    return parsed.update_query_dict(hidden).render_as_string(hide_password=True)
