"""A scratch folder with keys, a migrated database and a real Redis, the command line in this process, and a worker that
follows nudges where a test wants one.
"""

import base64
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest
import structlog

from houses import LedgerHouse, order
from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.settings import Settings
from postroom.config.vault import keygen, public_key
from postroom.front.cli import main
from postroom.producer import Producer, names
from postroom.worker.accept import accept
from postroom.worker.chores.release import release
from postroom.worker.drain import drain
from postroom.worker.erase_by_address import erase_by_address
from postroom.worker.process import Process
from postroom.worker.verify import verify
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.redis_server import RedisServer
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import SMTP_TIMEOUTS

LOGIN = "shop@shop.example"
PASSWORD = "right horse"


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one JSON value; more than one would not parse."""
        return json.loads(self.out)


class House(LedgerHouse):
    """What a test sees."""

    def __init__(self, server: RedisServer) -> None:
        self.redis = server.client()
        self.redis.flushall()
        self.settings = Settings(_env_file=None)
        self.folder = self.settings.data_dir
        keygen(self.settings)
        self.process = Process(self.settings, QueuedNudges(self))

    def close(self) -> None:
        self.process.close()
        self.redis.close()

    def run(self, *words: str, stdin: str = "") -> Result:
        """`postroom WORDS`, in this process, without a terminal."""
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["postroom", *words])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
                if isinstance(end.code, str):
                    err.write(end.code + "\n")
        return Result(code, out.getvalue(), err.getvalue())

    def accounts(self) -> list[Account]:
        with self.process.database.read() as connection:
            return kept.newest(connection, limit=100)

    def take(self, **fields: Any) -> UUID:
        """Hand a mail over and let it be taken into the ledger."""
        with Producer(self.settings.broker_url, public_key=public_key(self.settings)) as producer:
            mail_id = producer.enqueue(order(**fields))
        self.redis.delete(names.QUEUE_ACCEPT)
        accept(self.process, [str(mail_id)])
        return mail_id

    def nudged(self, queue: str) -> list[tuple[str, list[Any]]]:
        """The tasks that wait in a queue, as (name, arguments)."""
        return [_task(message) for message in reversed(self.redis.lrange(queue, 0, -1))]

    def mail(self, mail_id: UUID | str) -> Any:
        return self.run("mail", "show", str(mail_id), "--json").json


class QueuedNudges:
    """A worker's nudges, laid where Celery would lay them."""

    def __init__(self, house: House) -> None:
        self._house = house

    def accept(self, fields: Any) -> None:
        self._lay(names.QUEUE_ACCEPT, names.TASK_ACCEPT, [list(fields), []])

    def drain(self, account_id: UUID) -> None:
        self._lay(names.QUEUE_DRAIN, names.TASK_DRAIN, [str(account_id)])

    def release(self) -> None:
        self._lay(names.QUEUE_CARE, "postroom.chore.release", [])

    def _lay(self, queue: str, task: str, arguments: list[Any]) -> None:
        body = base64.b64encode(json.dumps([arguments, {}, {}]).encode()).decode()
        self._house.redis.lpush(queue, json.dumps({"headers": {"task": task}, "body": body}))


def _task(message: Any) -> tuple[str, list[Any]]:
    envelope = json.loads(message)
    return envelope["headers"]["task"], json.loads(base64.b64decode(envelope["body"]))[0]


class Worker:
    """Takes messages from the three queues, one after the other, and does what a worker does with them."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._client = house.redis

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        process = self._house.process
        work: dict[str, Callable[[Any], None]] = {
            names.TASK_VERIFY: lambda arguments: verify(process, UUID(arguments[0])),
            names.TASK_ERASE: lambda arguments: erase_by_address(process, UUID(arguments[0])),
            names.TASK_ACCEPT: lambda arguments: accept(process, arguments[0]),
            names.TASK_DRAIN: lambda arguments: drain(process, UUID(arguments[0])),
            "postroom.chore.release": lambda _: _counted(release(process)),
        }
        queues = [names.QUEUE_CARE, names.QUEUE_ACCEPT, names.QUEUE_DRAIN]
        while not self._stop.is_set():
            found: Any = self._client.brpop(queues, timeout=0.05)
            if found:
                task, arguments = _task(found[1])
                work[task](arguments)


def _counted(_: int) -> None:
    """A chore says how much it did."""


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def house(
    tmp_path: Path, data_dir: Path, redis_server: RedisServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """Not migrated folders and other faults are made of it by removing things."""
    settings = {"DATA_DIR": data_dir, "BROKER_URL": redis_server.url, **SMTP_TIMEOUTS}
    if not database_url.startswith("sqlite"):  # which is the default
        settings["DATABASE_URL"] = database_url
    for name, value in settings.items():
        monkeypatch.setenv(f"POSTROOM_{name.upper()}", str(value))
    monkeypatch.chdir(tmp_path)
    # The worker lives in the process whose stdout the command's is: what it logs must not be taken for that.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    house = House(redis_server)
    yield house
    house.close()
    structlog.reset_defaults()


@pytest.fixture
def worker(house: House, certificates: Certificates) -> Iterator[Worker]:
    """A worker that trusts the test's CA."""
    house.process.settings = house.settings.model_copy(update={"smtp_ca_file": certificates.ca_file})
    with Worker(house) as worker:
        yield worker


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedSMTP]]:
    """Starts scripted servers, and stops them after the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(ScriptedSMTP(**settings))


@pytest.fixture
def smtp() -> Iterator[ScriptedSMTP]:
    """A server that takes everything, without sign-in."""
    with ScriptedSMTP() as server:
        yield server


@pytest.fixture
def mailbox(certificates: Certificates) -> Iterator[AiosmtpdServer]:
    """A provider's server: STARTTLS, one login."""
    with AiosmtpdServer(certificate=certificates.good, login=LOGIN, password=PASSWORD) as server:
        yield server
