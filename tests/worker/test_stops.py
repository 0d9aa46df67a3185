"""A drain is told to stop while its server does not answer, or its database is away."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from campaigns.house import House
from long_form import LONG
from postroom.config import mails as shown
from postroom.config.database import migrate
from postroom.config.tables import mails, slots
from servers.command import wait_until
from servers.databases import KINDS, Databases
from servers.postgresql import PostgresqlServer
from servers.redis_server import RedisServer
from servers.scripted_smtp import Hang

pytestmark = pytest.mark.timeout(300 if LONG else 120)

STOPS_IN_SECONDS = 15 if LONG else 25
"""15; the tests of a suite share a machine."""
AWAY_SECONDS = 60 if LONG else 5
RESUMES_IN_SECONDS = 10 if LONG else 30
"""10; the tests of a suite share a machine."""


@pytest.fixture(scope="module", params=KINDS if LONG else ["sqlite"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("house")
    with databases.migrated(request.param, folder) as url, RedisServer() as redis_server:
        yield from _at_work(House(folder, url, redis_server))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with PostgresqlServer(durable=True) as server:
        server.run("CREATE DATABASE postroom")
        migrate(server.url("postroom"))
        yield server


@pytest.fixture
def with_a_server(server: PostgresqlServer, tmp_path: Path) -> Iterator[House]:
    """A house whose database a test may stop."""
    with RedisServer() as redis_server:
        yield from _at_work(House(tmp_path, server.url("postroom"), redis_server))


def _at_work(house: House) -> Iterator[House]:
    house.settings = house.settings.model_copy(update={"lease_seconds": 60.0})
    with house:
        for kind in ("accept", "care"):
            house.start(kind)
        yield house


def stop(house: House, name: str) -> float:
    """SIGTERM; gives how long it took to end."""
    began_at = time.monotonic()
    house.signal(name, signal.SIGTERM)
    house.wait_ended(name)
    return time.monotonic() - began_at


def show(house: House, mail_id: UUID) -> dict[str, Any]:
    with house.database.read() as connection:
        return shown.show(connection, mail_id)


def states(house: House, ids: list[UUID]) -> dict[str, int]:
    with house.database.read() as connection:
        counted = select(mails.c.state, func.count()).where(mails.c.id.in_(ids)).group_by(mails.c.state)
        return {state: number for state, number in connection.execute(counted)}  # noqa: C416


def held_slots(house: House) -> int:
    with house.database.read() as connection:
        return connection.execute(select(func.count()).select_from(slots)).scalar_one()


def test_a_server_that_takes_minutes_to_answer_the_dot(house: House) -> None:
    house.open_books(connections=1)
    house.smtp.script({".": Hang()})
    house.start("drain")
    ids = house.enqueue(5)
    house.wait_arrived(1)
    took_seconds = stop(house, "drain")
    house.smtp.script({})
    print(f"it took {took_seconds:.1f} s")
    assert took_seconds < STOPS_IN_SECONDS
    assert states(house, ids) == {"uncertain": 1, "queued": 4}, "the worker knew it, and said so before it left"
    assert held_slots(house) == 0
    [uncertain] = [mail for mail in (show(house, mail_id) for mail_id in ids) if mail["state"] == "uncertain"]
    [attempt] = uncertain["attempts_log"]
    assert attempt["reply"] == "the worker was stopped while it waited for the reply"


def test_a_server_that_says_nothing_at_all(house: House) -> None:
    house.open_books(connections=4)
    house.smtp.script({"connect": Hang()})
    before = house.smtp.connections
    house.start("drain")
    ids = house.enqueue(5)
    wait_until(lambda: house.smtp.connections > before)
    took_seconds = stop(house, "drain")
    house.smtp.script({})
    print(f"it took {took_seconds:.1f} s")
    assert took_seconds < STOPS_IN_SECONDS / 2, "nothing was in hand that was worth waiting for"
    assert states(house, ids) == {"queued": 5}
    assert held_slots(house) == 0


def test_a_database_that_is_away(with_a_server: House, server: PostgresqlServer) -> None:
    house = with_a_server
    house.open_books(connections=4)
    house.start("drain")
    ids = house.enqueue(60, to="dot-wait-100@client.example")
    house.wait_arrived(10)
    server.stop()
    try:
        time.sleep(1)
        took_seconds = stop(house, "drain")
    finally:
        server.start()
    print(f"it took {took_seconds:.1f} s")
    assert took_seconds < STOPS_IN_SECONDS
    house.settings = house.settings.model_copy(update={"lease_seconds": 1.0})
    with house.database.write() as connection:
        connection.execute(slots.delete())  # as when the lease has ended
    house.move_time()
    wait_until(lambda: "sending" not in states(house, ids))
    left = states(house, ids)
    print(f"it left {left}")
    assert set(left) <= {"sent", "queued", "uncertain"}
    assert left.get("uncertain", 0) <= 4, "at most one for each connection"
    house.start("drain")
    house.settle()
    books = house.books()
    assert books.balance, books
    assert books.sent == len(ids)


def test_what_was_to_be_recorded_is_recorded_when_the_database_is_back(
    with_a_server: House, server: PostgresqlServer
) -> None:
    house = with_a_server
    house.open_books(connections=4)
    house.start("drain")
    ids = house.enqueue(200, to="dot-wait-100@client.example")
    house.wait_arrived(20)
    server.stop()
    time.sleep(1)
    arrived = len(house.smtp.accepted)
    time.sleep(AWAY_SECONDS)
    assert len(house.smtp.accepted) == arrived, "nothing is sent that could not be recorded"
    server.start()
    began_at = time.monotonic()
    wait_until(lambda: len(house.smtp.accepted) > arrived)
    took_seconds = time.monotonic() - began_at
    print(f"sending again after {took_seconds:.1f} s")
    assert took_seconds < RESUMES_IN_SECONDS
    house.settle()
    books = house.books()
    print(books)
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (len(ids), 0)
