"""Postroom with the processes that it has outside of `up`, and one account that sends to a sink."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import func, select

from bench import scratch, sink, stores
from bench.child import Child, Children
from bench.letter import sender
from bench.sink import Sink
from bench.system import System
from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.database import Database, migrate
from postroom.config.settings import Settings
from postroom.config.states import Auth, Security
from postroom.config.tables import mails
from postroom.config.vault import keygen, public_key
from postroom.front.house import environment_of
from postroom.front.up import self_command
from postroom.producer.identifiers import uuid7

DatabaseKind = Literal["sqlite", "postgresql"]

_SETTLES_IN_SECONDS: Final = 1.5
_LOOK_SECONDS: Final = 0.1

NAMES: Final[dict[DatabaseKind, str]] = {"postgresql": "Postroom, PostgreSQL", "sqlite": "Postroom, SQLite"}
"""What the tables call it."""


@dataclass(frozen=True, slots=True)
class House:
    """A running Postroom.

    Attributes:
        system: its processes are `redis`, `database` (PostgreSQL's), `accept`, `drain` or `drain 1` and so on, `care`,
            `scheduler` and `producer`.
        database: the ledger.
        settings: in force.
        drains: its drain processes.
    """

    system: System
    database: Database
    settings: Settings
    drains: list[Child]

    @contextmanager
    def drains_stopped(self) -> Iterator[None]:
        """Let no drain process run in the block. They are idle when it begins: they hold neither a lock nor a slot."""
        time.sleep(_SETTLES_IN_SECONDS)
        for drain in self.drains:
            drain.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for drain in self.drains:
                drain.send_signal(signal.SIGCONT)

    def wait_accepted(self, count: int, timeout_seconds: float) -> None:
        """Wait until the ledger holds so many mails.

        Raises:
            TimeoutError: it does not in time.
        """
        until = time.monotonic() + timeout_seconds
        while (accepted := self._count_mails()) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"only {accepted} of {count} mails were accepted. {self.system.logs}")
            time.sleep(_LOOK_SECONDS)

    def _count_mails(self) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(mails)).scalar_one()

    def add_account(self, to: Sink, address: str, **fields: Any) -> Account:
        """Store one more account as a proof would have left it."""
        return _add_account(self.database, self.settings, to, address, **fields)


@contextmanager
def started(
    folder: Path,
    to: Sink,
    database: DatabaseKind,
    *,
    connections: int,
    drains: int = 1,
    sending: bool = True,
    **chosen: Any,
) -> Iterator[House]:
    """Start everything, with the account that all letters come from.

    Args:
        folder: for its files; it is made.
        to: where the account sends.
        database: where the ledger is.
        connections: of the account.
        drains: how many drain processes.
        sending: whether its workers and the scheduler run.
        chosen: settings of Postroom, where they are not the defaults.
    """
    folder.mkdir(mode=0o700, parents=True)
    with ExitStack() as running:
        redis = running.enter_context(stores.redis(folder))
        pids = {"redis": redis.pid}
        if database == "postgresql":
            postgresql = running.enter_context(stores.postgresql())
            pids["database"] = postgresql.pid
            chosen["database_url"] = postgresql.url
        settings = settings_in_force(data_dir=folder, broker_url=redis.url, smtp_ca_file=to.ca_file, **chosen)
        keygen(settings)
        migrate(settings.database)
        ledger = Database(settings.database, connections=1)
        running.callback(ledger.close)
        _add_account(ledger, settings, to, sender(0), connections=connections)
        children = running.enter_context(Children(folder, environment_of(settings)))
        names = ["drain"] if drains == 1 else [f"drain {number}" for number in range(1, drains + 1)]
        draining = []
        if sending:
            for kind in ("accept", "care"):
                children.start(kind, *self_command("worker", kind))
            draining = [children.start(name, *self_command("worker", "drain")) for name in names]
            children.start("scheduler", *self_command("scheduler"))
        producer = children.start_producer(scratch.python(), "-m", "bench.postroom_producer")
        system = System(NAMES[database], producer, pids | children.pids, _recorded(ledger), folder)
        yield House(system, ledger, settings, draining)


def settings_in_force(**chosen: Any) -> Settings:
    """These, and the defaults whatever the environment says."""
    return Settings(**{name: field.default for name, field in Settings.model_fields.items()} | chosen)


def _add_account(ledger: Database, settings: Settings, to: Sink, address: str, **fields: Any) -> Account:
    secure = to.ca_file is not None
    account = Account(
        uuid7(),
        address,
        sink.HOST,
        to.port,
        Security.STARTTLS if secure else Security.NONE,
        Auth.AUTO if secure else Auth.NONE,
        login=sink.LOGIN if secure else "",
        **fields,
    )
    if secure:
        sealed = public_key(settings).seal(sink.PASSWORD.encode(), account.password_identity)
        account = replace(account, password=sealed)
    with ledger.write() as connection:
        return kept.add(connection, account)


def _recorded(ledger: Database) -> Callable[[int], bool]:
    """Whether so many mails, of those that came from now on, have ended."""
    ended = select(func.count()).where(mails.c.created_at >= datetime.now(UTC), mails.c.ended_at.is_not(None))

    def all_recorded(count: int) -> bool:
        with ledger.read() as connection:
            return connection.execute(ended).scalar_one() >= count

    return all_recorded
