"""A worker's house in a scratch folder: SQLite, keys, a real Redis, SMTP servers. Nudges are noted, not published."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, make_url, text, update

from postroom.config import accounts as kept
from postroom.config import mails as shown
from postroom.config.accounts import Account
from postroom.config.database import migrate
from postroom.config.settings import Settings
from postroom.config.states import Auth, Security
from postroom.config.tables import metadata
from postroom.config.vault import keygen, public_key
from postroom.producer import Mail, Producer
from postroom.producer.identifiers import uuid7
from postroom.worker.accept import accept
from postroom.worker.drain import drain
from postroom.worker.process import Process
from servers.redis_server import RedisServer
from servers.scripted_smtp import ScriptedSMTP


@dataclass
class NotedNudges:
    """Notes nudges, so that a test says when they are followed, doubled or lost."""

    accepts: list[str] = field(default_factory=list)
    drains: list[UUID] = field(default_factory=list)

    def accept(self, fields: Any) -> None:
        self.accepts.extend(fields)

    def drain(self, account_id: UUID) -> None:
        self.drains.append(account_id)


@dataclass
class House:
    """What a test sees: the process under test and the ways into it."""

    process: Process
    nudges: NotedNudges
    producer: Producer

    def add_account(self, server: ScriptedSMTP, address: str = "shop@shop.example", **changes: Any) -> Account:
        """Store an account as a proof would have left it. A `password` given in clear is sealed."""
        password = changes.pop("password", None)
        account = Account(
            id=uuid7(),
            address=address,
            host=server.host,
            port=server.port,
            security=changes.pop("security", Security.NONE),
            auth=changes.pop("auth", Auth.NONE),
            **changes,
        )
        if password is not None:
            sealed = public_key(self.process.settings).seal(password.encode(), account.password_identity)
            account = replace(account, password=sealed)
        with self.process.database.write() as connection:
            return kept.add(connection, account)

    def account(self, account: Account) -> Account:
        """The account as it is kept now."""
        with self.process.database.read() as connection:
            found = kept.get(connection, account.id)
        assert found is not None
        return found

    def enqueue(self, **fields: Any) -> UUID:
        """Hand a mail over; `accept` has not seen it yet."""
        given = {"from_": "shop@shop.example", "to": "anna@client.example", "subject": "Order 7", "text": "Thank you"}
        return self.producer.enqueue(Mail(**{**given, **fields}))

    def accept(self, *ids: UUID | str) -> None:
        accept(self.process, [str(each) for each in ids])

    def take(self, **fields: Any) -> UUID:
        """Hand a mail over and accept it."""
        mail_id = self.enqueue(**fields)
        self.accept(mail_id)
        return mail_id

    def drain(self, account: Account) -> None:
        drain(self.process, account.id)

    def show(self, mail_id: UUID) -> dict[str, Any]:
        with self.process.database.read() as connection:
            return shown.show(connection, mail_id)

    def state(self, mail_id: UUID) -> tuple[str, str | None]:
        mail = self.show(mail_id)
        return mail["state"], mail["reason"]

    def change(self, table: str, row_id: UUID, **values: Any) -> None:
        """Edit a row behind Postroom's back: time moved, a column tampered with."""
        target = metadata.tables[table]
        with self.process.database.write() as connection:
            changed = connection.execute(update(target).where(target.c.id == row_id).values(values))
        assert changed.rowcount == 1


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A migrated database, to be copied: migrating takes longer than most tests.

    SQLite or, with POSTROOM_TEST_POSTGRESQL_URL, a database on that server (a superuser's URL).
    """
    server = os.environ.get("POSTROOM_TEST_POSTGRESQL_URL")
    if server is None:
        url = f"sqlite:///{tmp_path_factory.mktemp('empty') / 'postroom.db'}"
        migrate(url)
        yield url
        return
    name = f"postroom_empty_{uuid4().hex}"
    with on_postgresql(server) as run:
        run(f"CREATE DATABASE {name}")
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
        migrate(url)
        yield url
        run(f"DROP DATABASE {name}")


@contextmanager
def on_postgresql(server: str) -> Iterator[Callable[[str], object]]:
    """Runs statements that stand outside of transactions."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield lambda statement: connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def database_url(empty_database: str, tmp_path: Path) -> Iterator[str]:
    """A migrated database of the test's own."""
    empty = make_url(empty_database)
    if empty.get_backend_name() == "sqlite":
        assert empty.database is not None
        shutil.copy(empty.database, tmp_path / "postroom.db")
        yield f"sqlite:///{tmp_path / 'postroom.db'}"
        return
    name = f"postroom_{uuid4().hex}"
    with on_postgresql(os.environ["POSTROOM_TEST_POSTGRESQL_URL"]) as run:
        run(f"CREATE DATABASE {name} TEMPLATE {empty.database}")
        yield empty.set(database=name).render_as_string(hide_password=False)
        run(f"DROP DATABASE {name}")


@pytest.fixture
def house(tmp_path: Path, redis_server: RedisServer, database_url: str) -> Iterator[House]:
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=redis_server.url,
        smtp_connect_timeout_seconds=2,
        smtp_command_timeout_seconds=2,
        smtp_dot_timeout_seconds=2,
    )
    keygen(settings)
    nudges = NotedNudges()
    process = Process(settings, nudges)
    process.redis.flushall()
    with Producer(redis_server.url, public_key=public_key(settings)) as producer:
        yield House(process, nudges, producer)
    process.close()


@pytest.fixture
def smtp() -> Iterator[ScriptedSMTP]:
    with ScriptedSMTP() as server:
        yield server
