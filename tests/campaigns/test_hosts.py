"""Two hosts drain the same lanes, each with a data folder of its own; one is cut off in the middle, and comes back.

Each kind of traffic of the first host goes over a link of its own, which falls silent: packets are lost, and nobody
says that a connection has ended.
"""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from campaigns.conftest import at_work
from campaigns.house import House
from long_form import LONG
from servers.command import wait_until
from servers.databases import Databases
from servers.link import Link

pytestmark = pytest.mark.timeout(1200 if LONG else 120)

MAILS = 1000 if LONG else 100
AWAY_SECONDS = 30 if LONG else 2
CONNECTIONS = 4
LEASE_SECONDS = 3.0
FIRST, SECOND = "first.example", "second.example"


@dataclass
class Hosts:
    """A house whose drains work on two hosts."""

    house: House
    redis: Link
    database: Link
    smtp: Link


@pytest.fixture(scope="module")
def hosts(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("house")
    with (
        at_work(databases, "postgresql", folder) as house,
        Link(house.redis.socket) as redis,
        Link(databases.server.folder / ".s.PGSQL.5432") as database,
        Link((house.smtp.host, house.smtp.port)) as smtp,
    ):
        yield Hosts(house, redis, database, smtp)


@pytest.fixture
def draining(hosts: Hosts, tmp_path: Path) -> Iterator[Hosts]:
    """Both drains have begun to send."""
    house = hosts.house
    at_link: dict[str, Any] = {"host": "127.0.0.1", "port": hosts.database.port, "query": {"sslmode": "disable"}}
    url = make_url(house.settings.database).set(**at_link)
    reached = {
        FIRST: {
            "database_url": url.render_as_string(hide_password=False),
            "broker_url": f"redis://127.0.0.1:{hosts.redis.port}",
            **{f"smtp_{what}_timeout_seconds": 2.0 for what in ("greeting", "command", "mail", "rcpt", "data", "dot")},
        },
        SECOND: {},
    }
    house.open_books(connections=CONNECTIONS)
    for name, where in reached.items():
        data_dir = tmp_path / name
        shutil.copytree(house.folder / "keys", data_dir / "keys")
        changed = {"data_dir": data_dir, "lease_seconds": LEASE_SECONDS, "smtp_hello_name": name, **where}
        faults = [f"dial@{house.smtp.port}:{hosts.smtp.port}"] if name == FIRST else []
        house.start("drain", *faults, name=name, settings=house.settings.model_copy(update=changed))
    while not (house.arrived_from(FIRST) and house.arrived_from(SECOND)):
        house.enqueue(2 * CONNECTIONS, priority="high")
        house.wait_arrived(len(house.handed_over))
    house.enqueue(MAILS, priority="high", to="dot-wait-100@client.example")
    arrived = {name: house.arrived_from(name) for name in reached}
    wait_until(lambda: all(house.arrived_from(name) > arrived[name] for name in reached))
    yield hosts
    for name in reached:
        house.kill(name)


def test_a_host_without_database_and_redis_sends_nothing_past_its_lease(draining: Hosts) -> None:
    house = draining.house
    draining.database.cut()
    draining.redis.cut()
    time.sleep(LEASE_SECONDS + 0.5)  # the reply to a dot that it was given leave for before
    arrived, others = house.arrived_from(FIRST), house.arrived_from(SECOND)
    until = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < until and house.under_way:
        house.wait_arrived(house.arrived)
        house.move_time()
        time.sleep(0.2)
    assert house.arrived_from(FIRST) == arrived
    assert house.arrived_from(SECOND) > others, "the other host takes its lanes over"
    draining.redis.mend()
    draining.database.mend()
    _balances(house)


def test_a_host_that_reaches_no_server_of_mail(draining: Hosts) -> None:
    house = draining.house
    draining.smtp.cut()
    time.sleep(AWAY_SECONDS)
    draining.smtp.mend()
    _balances(house)


def _balances(house: House) -> None:
    house.settle()
    books = house.books()
    sent = {name: house.arrived_from(name) for name in (FIRST, SECOND)}
    print(f"{sent}; {books}")
    assert books.balance, books
    assert books.sent + books.held == books.enqueued
    assert books.doubled_announced + books.held <= CONNECTIONS, "at most one for each connection that was cut off"
