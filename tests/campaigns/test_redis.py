"""Redis killed, emptied and away under load: what it held comes back, and what the ledger has needs no Redis."""

import random
import time
from collections.abc import Iterator

import pytest

from campaigns.conftest import at_work
from campaigns.house import House
from long_form import LONG
from postroom.config.vault import public_key
from postroom.producer import BrokerUnavailable, Mail, Producer
from servers.databases import KINDS, Databases

pytestmark = pytest.mark.timeout(1200 if LONG else 120)

MAILS = 1000 if LONG else 60
KILLS = 10 if LONG else 2
AWAY_SECONDS = 20 if LONG else 3
BACK_IN_SECONDS = 40
"""Celery tries at growing pauses."""


@pytest.fixture(scope="module", params=KINDS if LONG else ["postgresql"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Its Redis has on the disk what it says it has; `everysec` puts a write off while the last one is on its way."""
    with at_work(databases, request.param, tmp_path_factory.mktemp("house"), appendfsync="always") as house:
        house.supervised = True  # Celery ends when Redis goes away at some moments
        house.start("drain")
        yield house
        print(f"{house.started_again} processes ended and were started again")


def test_redis_killed_under_load(house: House, dice: random.Random) -> None:
    house.open_books()
    with house.load(MAILS):
        for number in range(KILLS):
            house.wait_arrived(1 + number * MAILS // (2 * KILLS))
            time.sleep(dice.random() * 0.1)
            house.redis.kill()
            house.redis.restart()
    house.settle()
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (MAILS, 0)


def test_redis_emptied_after_acceptance(house: House) -> None:
    house.open_books(connections=1)
    house.enqueue(MAILS, to="dot-wait-10@client.example")
    house.wait_recorded(MAILS)
    assert house.under_way, "it came too late to be of any harm"
    with house.redis.client() as client:
        client.flushall()
    house.enqueue(5)
    house.settle()
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (MAILS + 5, 0)


def test_redis_away_for_a_while(house: House) -> None:
    house.open_books(connections=1)
    house.enqueue(MAILS, to="dot-wait-20@client.example")
    house.wait_recorded(MAILS)
    house.wait_arrived(MAILS // 10)
    house.redis.stop()
    stopped_at, arrived = time.monotonic(), house.arrived
    refused = Mail(from_=house.address, to="anna@client.example", subject="Order", text="Thank you")
    with Producer(house.settings.broker, public_key=public_key(house.settings), timeout_seconds=0.5) as producer:
        with pytest.raises(BrokerUnavailable):
            producer.enqueue(refused)
        time.sleep(AWAY_SECONDS - (time.monotonic() - stopped_at))
        assert house.arrived > arrived, "a lane that is being sent needs no Redis"
        house.redis.restart()
        house.handed_over.append(producer.enqueue(refused))
    began_at = time.monotonic()
    house.settle(BACK_IN_SECONDS)
    books = house.books()
    print(f"settled {time.monotonic() - began_at:.1f} s after Redis was back; {books}")
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (MAILS + 1, 0)
