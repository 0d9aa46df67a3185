"""Postroom with the processes that it has outside of `up`, and one account that sends to a sink."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import func, select

from bench import child, scratch, sink, stores
from bench.child import Child
from bench.letter import FROM
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

    def add_account(self, to: Sink, address: str, *, connections: int) -> Account:
        """Store one more account as a proof would have left it."""
        return _add_account(self.database, self.settings, to, address, connections)


@contextmanager
def started(
    folder: Path, to: Sink, database: DatabaseKind, *, connections: int, drains: int = 1, **chosen: Any
) -> Iterator[House]:
    """Start everything, with the account that all letters come from.

    Args:
        folder: for its files; it is made.
        to: where the account sends.
        database: where the ledger is.
        connections: of the account.
        drains: how many drain processes.
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
        settings = _settings(data_dir=folder, broker_url=redis.url, smtp_ca_file=to.ca_file, **chosen)
        keygen(settings)
        migrate(settings.database)
        ledger = Database(settings.database, connections=1)
        running.callback(ledger.close)
        _add_account(ledger, settings, to, FROM, connections)

        def start(name: str, *command: str, speaks: bool = False) -> Child:
            process = running.enter_context(
                child.started(name, command, folder=folder, environment=environment_of(settings), speaks=speaks)
            )
            pids[name] = process.pid
            return process

        for kind in ("accept", "care"):
            start(kind, *self_command("worker", kind))
        names = ["drain"] if drains == 1 else [f"drain {number}" for number in range(1, drains + 1)]
        draining = [start(name, *self_command("worker", "drain")) for name in names]
        start("scheduler", *self_command("scheduler"))
        producer = start("producer", str(scratch.python()), "-m", "bench.postroom_producer", speaks=True)
        producer.hear()
        system = System(f"Postroom, {database}", producer, pids, _recorded(ledger), folder)
        yield House(system, ledger, settings, draining)


def _settings(**chosen: Any) -> Settings:
    """These, and the defaults whatever the environment says."""
    return Settings(**{name: field.default for name, field in Settings.model_fields.items()} | chosen)


def _add_account(ledger: Database, settings: Settings, to: Sink, address: str, connections: int) -> Account:
    secure = to.ca_file is not None
    account = Account(
        uuid7(),
        address,
        sink.HOST,
        to.port,
        Security.STARTTLS if secure else Security.NONE,
        Auth.AUTO if secure else Auth.NONE,
        login=sink.LOGIN if secure else "",
        connections=connections,
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
