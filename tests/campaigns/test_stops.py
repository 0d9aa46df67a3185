"""Workers that are stopped, and a house that is restarted part by part, while mail is on its way."""

import signal

import pytest

from campaigns.house import House
from long_form import LONG

pytestmark = pytest.mark.timeout(1200 if LONG else 120)

MAILS = 1000 if LONG else 60
ROUNDS = 10 if LONG else 1
CONNECTIONS = 4
STOPS_IN_SECONDS = 15 if LONG else 30
"""15; the tests of a suite share a machine."""
AT_ONCE_SECONDS = 1 + 3 if LONG else 10


@pytest.fixture
def unhurried(house: House) -> House:
    """No lease ends but that of a process that is gone."""
    house.settings = house.settings.model_copy(update={"lease_seconds": 5.0})
    return house


def test_a_drain_asked_to_stop_ends_the_mail_in_hand_and_gives_the_others_back(unhurried: House) -> None:
    house = unhurried
    house.open_books(connections=CONNECTIONS)
    house.start("drain")
    house.enqueue(MAILS, priority="high", to="dot-wait-100@client.example")
    for number in range(1, ROUNDS + 1):
        house.wait_arrived(number * MAILS // (2 * ROUNDS + 2))
        took_seconds = house.stop("drain", within_seconds=STOPS_IN_SECONDS)
        assert house.in_hand() == (0, 0)
        books = house.books()
        print(f"it took {took_seconds:.1f} s; {books}")
        assert (books.sent, books.uncertain) == (house.arrived, 0), "all that arrived is recorded"
        house.start("drain")
    house.settle()
    house.kill("drain")
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (MAILS, 0)


def test_a_drain_told_twice_ends_at_once(unhurried: House) -> None:
    house = unhurried
    house.open_books(connections=CONNECTIONS)
    house.start("drain")
    house.enqueue(3 * CONNECTIONS, priority="high", to="dot-wait-2000@client.example")
    house.wait_arrived(CONNECTIONS)
    took_seconds = house.stop("drain", signal.SIGINT, signal.SIGINT)
    print(f"it took {took_seconds:.1f} s")
    assert took_seconds < AT_ONCE_SECONDS
    house.start("drain")
    house.settle()
    house.kill("drain")
    books = house.books()
    assert books.balance, books
    assert books.sent + books.held == 3 * CONNECTIONS
    assert books.doubled_announced + books.held <= CONNECTIONS


def test_a_rolling_restart(unhurried: House) -> None:
    house = unhurried
    house.open_books(connections=CONNECTIONS)
    house.start("drain")
    with house.load(MAILS, to="dot-wait-50@client.example"):
        for _ in range(ROUNDS):
            for kind in ("accept", "drain", "care"):
                house.wait_arrived(min(house.arrived + 5, MAILS))
                took_seconds = house.stop(kind, within_seconds=STOPS_IN_SECONDS)
                house.start(kind)
                print(f"{kind} stopped in {took_seconds:.1f} s")
    house.settle()
    house.kill("drain")
    books = house.books()
    print(books)
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (MAILS, 0)
