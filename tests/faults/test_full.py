"""Redis full, and disks full: a clear error, nothing lost, and the work goes on once there is room."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import redis
from sqlalchemy import exc, select

from faults.conftest import Postroom
from postroom.config.settings import Settings
from postroom.config.tables import mails
from postroom.config.vault import keygen, public_key
from postroom.front.display import Display
from postroom.front.supervisor import OWN_NAME
from postroom.front.up import _Report
from postroom.producer import BrokerUnavailable, Mail, Producer, names
from postroom.worker.accept import accept
from postroom.worker.process import Process
from postroom.worker.room import wait_for_room
from servers.databases import Databases, on_sqlite
from servers.redis_server import RedisServer
from servers.small_disk import SmallDisk, small_disk
from worker.conftest import House, NotedNudges


def mail(text: str = "Thank you") -> Mail:
    return Mail(from_="shop@shop.example", to="anna@client.example", subject="Order 7", text=text)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


@dataclass
class Small:
    """A house whose Redis is a small one."""

    redis: RedisServer
    process: Process
    producer: Producer

    def ledger(self) -> set[UUID]:
        with self.process.database.read() as connection:
            return set(connection.execute(select(mails.c.id)).scalars())

    def inbox(self) -> int:
        with self.redis.client() as client:
            return int(client.hlen(names.INBOX))


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def small(opened: ExitStack, databases: Databases, data_dir: Path, **options: str) -> Small:
    server = opened.enter_context(RedisServer(**options))
    url = opened.enter_context(databases.migrated("sqlite", data_dir))
    settings = Settings(_env_file=None, data_dir=data_dir, database_url=url, broker_url=server.url)
    keygen(settings)
    process = Process(settings, NotedNudges())
    opened.callback(process.close)
    return Small(server, process, opened.enter_context(Producer(server.url, public_key=public_key(settings))))


def until_refused(producer: Producer, text: str) -> tuple[set[UUID], BrokerUnavailable]:
    """Hand mails over until Redis takes no more."""
    taken: set[UUID] = set()
    while True:
        try:
            taken.add(producer.enqueue(mail(text)))
        except BrokerUnavailable as error:
            return taken, error
        assert len(taken) < 5000


def fill(client: redis.Redis) -> None:
    """Take what is left: a connection that ended meanwhile may have left a little room."""
    for number in range(10_000):
        client.set(f"filler:{number}", "b" * 100)


def test_a_full_redis_is_emptied_into_the_ledger_and_takes_mail_again(
    opened: ExitStack, databases: Databases, data_dir: Path
) -> None:
    house = small(opened, databases, data_dir, maxmemory="6mb")
    taken, error = until_refused(house.producer, "x" * 20_000)
    assert "Redis is full" in str(error)
    assert "the workers must empty the inbox, or raise its maxmemory" in str(error)
    more, _ = until_refused(house.producer, "x")  # to the last byte
    with house.redis.client() as client, pytest.raises(redis.exceptions.OutOfMemoryError):
        fill(client)
    wait_for_room(house.process, "accept")
    again = house.producer.enqueue(mail())
    wait_for_room(house.process, "accept")
    fields = house.process.inbox.strays(older_than_seconds=-1, most=5000)
    assert str(again) in fields
    accept(house.process, fields)
    assert house.ledger() == taken | more | {again}
    assert house.inbox() == 0


def test_a_worker_waits_while_redis_cannot_write_its_file_and_nothing_is_lost(
    opened: ExitStack, databases: Databases, data_dir: Path, disk: SmallDisk
) -> None:
    house = small(opened, databases, data_dir, dir=str(disk.path))
    first = house.producer.enqueue(mail())
    disk.fill()
    taken, error = until_refused(house.producer, "x" * 1000)
    assert "Redis cannot write its append-only file (MISCONF): make room on its disk" in str(error)
    waiting = threading.Thread(target=wait_for_room, args=(house.process, "accept"), daemon=True)
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    disk.make_room()
    waiting.join(20)
    assert not waiting.is_alive()
    again = house.producer.enqueue(mail())
    house.redis.stop()
    house.redis.restart()
    with house.redis.client() as client:
        assert {str(each) for each in {first, again} | taken} <= {key.decode() for key in client.hkeys(names.INBOX)}


@on_sqlite
def test_a_full_disk_under_sqlite_leaves_mail_in_the_inbox(
    opened: ExitStack, databases: Databases, disk: SmallDisk, house: House, postroom: Postroom
) -> None:
    url = opened.enter_context(databases.migrated("sqlite", disk.path))
    settings = house.process.settings.model_copy(update={"database_url": url})
    process = Process(settings, NotedNudges())
    opened.callback(process.close)
    house.process, kept = process, house.process
    early = house.take()
    disk.fill()
    late = house.enqueue(text="x" * 50_000)
    with pytest.raises(exc.OperationalError, match="disk is full"):
        house.accept(late)
    assert house.process.redis.hkeys(names.INBOX) == [str(late).encode()]
    assert not house.process.redis.exists("postroom:inbox:hand", "postroom:inbox:tries")
    told = postroom("mail", "cancel", str(early))
    assert told.code == 1
    assert "disk is full" in told.err
    disk.make_room()
    house.accept(late)
    assert house.state(early) == house.state(late) == ("held", "no_account")
    house.process = kept


def test_a_full_disk_does_not_stop_what_runs(disk: SmallDisk, capfd: pytest.CaptureFixture[str]) -> None:
    """`up` notes for programs what runs, each time that a part was started again."""
    settings = Settings(_env_file=None, data_dir=disk.path)
    report = _Report(settings, Display(1, [OWN_NAME]))
    (disk.path / "keys").mkdir()
    (disk.path / "keys" / "flower.auth").touch(0o600)
    (disk.path / "keys" / "flower.auth").write_text("me:s3cret")
    disk.fill()
    report.everything_is_up({"drain": 7})
    assert "up.ready cannot be written: No space left on device; make room" in capfd.readouterr().out
    disk.make_room()
    report.everything_is_up({"drain": 8})
    assert json.loads((disk.path / "up.ready").read_text())["programs"] == {"drain": 8}
