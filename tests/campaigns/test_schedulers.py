"""Several schedulers, one with a wrong clock, and chores that run twice at once: harmless."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from campaigns.announced import announced_exactly, ended_uncertain
from campaigns.house import House
from long_form import LONG
from servers.databases import KINDS, Databases
from servers.redis_server import RedisServer

pytestmark = pytest.mark.timeout(900 if LONG else 120)

MAILS = 500 if LONG else 24
KILLS = 10 if LONG else 1
AT_ONCE = 4 if LONG else 2
SETTLES_IN_SECONDS = 300 if LONG else 80
WRONG_CLOCKS = ["600", "-600"] if LONG else ["600"]


@pytest.fixture(scope="module", params=KINDS if LONG else ["postgresql"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """With two processes of each kind that can do the same thing at once."""
    folder: Path = tmp_path_factory.mktemp("house")
    with (
        databases.migrated(request.param, folder) as url,
        RedisServer() as redis_server,
        House(folder, url, redis_server) as house,
    ):
        for name in ("first", "second"):
            house.start("care", name=f"care-{name}")
        house.start("accept")
        house.start("drain")
        yield house


def enqueue(house: House) -> None:
    """Mails of which most need a chore: deferred, uncertain, or claimed by a drain that is killed."""
    for _ in range(MAILS // 6):
        for fault in ("dot-lost-once", "dot-drop-once", "dot-451-4.3.0-once", "data-450-once"):
            house.enqueue(1, to=f"{fault}+{uuid4().hex}@client.example", priority="high")
        house.enqueue(2, to="dot-wait-50@client.example")


def check(house: House) -> None:
    books = house.books()
    uncertain = ended_uncertain(house)
    print(f"{uncertain} attempts ended uncertain; {books}")
    assert books.balance, books
    assert books.sent + books.held == books.enqueued
    assert announced_exactly(house)
    assert uncertain >= MAILS // 3
    assert "a task failed" not in house.log


@pytest.mark.parametrize("ahead_seconds", WRONG_CLOCKS)
def test_two_schedulers_one_with_a_wrong_clock(
    house: House, monkeypatch: pytest.MonkeyPatch, ahead_seconds: str
) -> None:
    monkeypatch.setattr(house, "chores", ())  # those of the schedulers are enough
    house.start("scheduler", name="right")
    house.start("scheduler", f"clock@{ahead_seconds}", name="wrong")
    house.open_books()
    enqueue(house)
    house.wait_arrived(MAILS // 6, SETTLES_IN_SECONDS)
    house.kill("drain")
    house.start("drain")
    house.settle(SETTLES_IN_SECONDS)
    if float(ahead_seconds) > 0:  # what one that is behind asks for is over when it comes
        house.kill("right")
        house.enqueue(1, to=f"dot-lost-once+{uuid4().hex}@client.example", priority="high")
    house.settle(SETTLES_IN_SECONDS)
    for name in ("right", "wrong"):
        house.kill(name)
    check(house)


def test_chores_that_run_many_times_at_once(house: House, monkeypatch: pytest.MonkeyPatch, dice: random.Random) -> None:
    monkeypatch.setattr(house, "chores", house.chores * AT_ONCE)
    house.open_books()
    enqueue(house)
    for number in range(KILLS):
        house.wait_arrived((number + 1) * MAILS // (2 * KILLS), SETTLES_IN_SECONDS)
        time.sleep(dice.random() * 0.1)
        house.kill("drain")
        house.start("drain")
    house.settle(SETTLES_IN_SECONDS)
    check(house)
