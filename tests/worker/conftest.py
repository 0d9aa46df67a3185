"""A worker's house in a scratch folder: database, keys, a real Redis, SMTP servers. Nudges are noted, not published."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from houses import LedgerHouse, order
from postroom.config import accounts as kept
from postroom.config import mails as shown
from postroom.config.accounts import Account
from postroom.config.settings import Settings
from postroom.config.vault import keygen, public_key
from postroom.producer import Producer
from postroom.worker.accept import accept
from postroom.worker.drain import drain
from postroom.worker.process import Process
from servers.redis_server import RedisServer
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import SMTP_TIMEOUTS


@dataclass
class NotedNudges:
    """Notes nudges, so that a test says when they are followed, doubled or lost."""

    accepts: list[str] = field(default_factory=list)
    drains: list[UUID] = field(default_factory=list)
    releases: int = 0

    def accept(self, fields: Any) -> None:
        self.accepts.extend(fields)

    def drain(self, account_id: UUID) -> None:
        self.drains.append(account_id)

    def release(self) -> None:
        self.releases += 1


@dataclass
class House(LedgerHouse):
    """What a test sees: the process under test and the ways into it."""

    process: Process
    nudges: NotedNudges
    producer: Producer

    def account(self, account: Account) -> Account:
        """The account as it is kept now."""
        with self.process.database.read() as connection:
            found = kept.get(connection, account.id)
        assert found is not None
        return found

    def enqueue(self, **fields: Any) -> UUID:
        """Hand a mail over; `accept` has not seen it yet."""
        return self.producer.enqueue(order(**fields))

    def accept(self, *ids: UUID | str) -> None:
        accept(self.process, [str(each) for each in ids])

    def take(self, **fields: Any) -> UUID:
        """Hand a mail over and accept it."""
        mail_id = self.enqueue(**fields)
        self.accept(mail_id)
        return mail_id

    def drain(self, account: Account) -> None:
        """Drain its lane, to the end also where it goes on alone since its server, or this machine, is slow."""
        before = set(self.process.patience.at_work())
        drain(self.process, account.id)
        for run in set(self.process.patience.at_work()) - before:
            run.ended.wait(30)

    def show(self, mail_id: UUID) -> dict[str, Any]:
        with self.process.database.read() as connection:
            return shown.show(connection, mail_id)

    def state(self, mail_id: UUID) -> tuple[str, str | None]:
        mail = self.show(mail_id)
        return mail["state"], mail["reason"]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def house(data_dir: Path, redis_server: RedisServer, database_url: str) -> Iterator[House]:
    settings = Settings(
        _env_file=None,
        data_dir=data_dir,
        database_url=database_url,
        broker_url=redis_server.url,
        **SMTP_TIMEOUTS,
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
