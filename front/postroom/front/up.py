"""`postroom up`: everything on this machine as one process tree, from an empty folder on.

What can be refused is refused before anything is started. Then Redis, and on the floor above it the workers, the
scheduler and Flower, each by the command that a person could type.

While everything is up, `DATA_DIR/up.ready` says so to programs: JSON of `pid`, `flower_url` and `programs`
(name → pid). It is written anew after a restart and removed at the stop; it is worth nothing without the process `pid`.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from postroom.config.settings import Settings
from postroom.front import data_folder, flower, key_files, local_redis
from postroom.front.apart import apart
from postroom.front.display import Display
from postroom.front.process import Program
from postroom.front.supervisor import OWN_NAME, Supervisor
from postroom.producer.errors import Refused

REDIS: Final = "redis"
COMMANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "accept": ("worker", "accept"),
    "drain": ("worker", "drain"),
    "care": ("worker", "care"),
    "scheduler": ("scheduler",),
    "flower": ("flower",),
}
"""Name of each part above Redis → the words after `postroom` that start it."""


def up(settings: Settings) -> int:
    """Run everything until told to stop.

    Returns:
        The exit status: 0 after a warm stop.

    Raises:
        PostroomError: it was refused, and nothing is running.
    """
    os.umask(0o077)  # the ledger holds addresses, whatever the folder's own mode is
    with data_folder.held(settings.data_dir):
        display = Display(sys.stdout.fileno(), [OWN_NAME, REDIS, *COMMANDS])
        ready_file(settings.data_dir).unlink(missing_ok=True)
        flower.refuse_taken_port(settings)
        flower.credentials(settings)
        redis = _redis(settings)
        _make_keys(settings, display)
        apart(lambda: migrate(settings))
        programs = [*redis, *(Program(name, self_command(*words)) for name, words in COMMANDS.items())]
        report = _Report(settings, display)
        try:
            status = Supervisor(programs, display, report.everything_is_up).run()
        finally:
            ready_file(settings.data_dir).unlink(missing_ok=True)
        display.show(OWN_NAME, "stopped")
        return status


def migrate(settings: Settings) -> None:
    """Bring the database to this release's schema. Harmless when it is there already.

    Raises:
        Refused: the database cannot be used; the message says why.
    """
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - `up` itself needs no database

    from postroom.config import database  # noqa: PLC0415

    if settings.database_url is None:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        database.migrate(settings.database)
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise Refused(f"POSTROOM_DATABASE_URL: the database cannot be used: {why}") from None
    except OSError as error:  # the lock file beside SQLite's
        raise Refused(f"the database cannot be written: {error.filename}: {error.strerror}") from None


def ready_file(data_dir: Path) -> Path:
    """The file that is there while everything is up."""
    return data_dir / "up.ready"


def self_command(*words: str) -> list[str]:
    """The command line of `postroom WORDS`, whatever the current folder is and holds (`-P`) and whatever the PATH."""
    return [sys.executable, "-P", "-m", "postroom.front.cli", *words]


def _redis(settings: Settings) -> list[Program]:
    if settings.broker_url is not None:
        return []
    data_dir = settings.data_dir
    server = local_redis.find_server()
    local_redis.prepare(data_dir)
    local_redis.refuse_if_served(data_dir)
    return [
        Program(
            REDIS,
            local_redis.command(server, data_dir, settings.redis_fsync),
            floor=0,
            answers=lambda: local_redis.answers(data_dir),
            first_pause_seconds=0,
            environment=local_redis.environment(),
        )
    ]


def _make_keys(settings: Settings, display: Display) -> None:
    made = key_files.make(settings)
    for path in made:
        display.show(OWN_NAME, f"made {path}")
    if settings.ring_file in made:
        display.show(OWN_NAME, f"back up {settings.ring_file}: without it no stored password and no letter opens again")


class _Report:
    """Tells people and programs that everything is up."""

    def __init__(self, settings: Settings, display: Display) -> None:
        self._settings = settings
        self._display = display
        self._told = False

    def everything_is_up(self, pids: Mapping[str, int]) -> None:
        """People are told the first time, programs after each restart."""
        state = {"pid": os.getpid(), "flower_url": flower.url(self._settings), "programs": dict(pids)}
        path = ready_file(self._settings.data_dir)
        scratch = path.with_name(f"{path.name}.new")
        try:
            scratch.write_text(json.dumps(state), "utf-8")
            scratch.replace(path)
        except OSError as error:  # a full disk must not stop what runs
            self._display.show(OWN_NAME, f"{path} cannot be written: {error.strerror}; make room on its disk")
        if not self._told:
            self._told = True
            for line in self._lines():
                self._display.show(OWN_NAME, line)

    def _lines(self) -> list[str]:
        settings = self._settings
        chosen = settings.flower_auth is not None
        password = "POSTROOM_FLOWER_AUTH" if chosen else str(flower.password_file(settings).resolve())
        user = flower.credentials(settings).partition(":")[0]
        return [
            f"Flower: {flower.url(settings)} (user {user}, password in {password})",
            "For producers: export POSTROOM_BROKER_URL=$(postroom broker-url)",
            f"          and: export POSTROOM_PUBLIC_KEY_FILE={settings.public_file.resolve()}",
            f"Everything is up. To stop it: Ctrl-C, or kill {os.getpid()}",
        ]
