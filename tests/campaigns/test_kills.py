"""Workers killed with SIGKILL: at random, and at every named point of a mail's way."""

import random
import time
from bisect import bisect
from collections import Counter
from datetime import datetime

import pytest

from campaigns.house import House
from long_form import LONG

pytestmark = pytest.mark.timeout(900 if LONG else 120)

KILLS = 25 if LONG else 3
MAILS = 1000 if LONG else 120


def test_drains_killed_at_random(house: House, dice: random.Random) -> None:
    house.open_books(connections=4)
    house.start("drain")
    house.enqueue(MAILS, priority="high")
    killed_at: list[datetime] = []
    for number in range(KILLS):
        house.wait_arrived(1 + number * MAILS // (2 * KILLS))
        time.sleep(dice.random() * 0.1)  # anywhere in a mail's way
        house.kill("drain")
        killed_at.append(house.clock)
        house.start("drain")
    house.settle()
    house.kill("drain")
    books = house.books()
    uncertain = Counter(bisect(killed_at, moment) for moment in house.uncertain_at())
    print(f"uncertain by kill: {[uncertain[number] for number in range(KILLS + 1)]}; {books}")
    assert uncertain[KILLS] == 0, "none without a kill"
    assert max(uncertain.values(), default=0) <= 4, "at most one for each connection"
    assert books.balance, books
    assert books.sent + books.held == MAILS
    assert books.doubled_announced + books.held <= 4 * KILLS, "at most one for each connection and kill"


DOUBLED = {"claimed": 0, "marked": 0, "half_data": 0, "dotted": 1, "replied": 1, "recorded": 0}
"""How many mails arrive twice, announced, when the drain is lost at a point."""


@pytest.mark.parametrize("point", DOUBLED)
def test_a_drain_killed_at_a_point(house: House, point: str) -> None:
    house.open_books(connections=1)
    house.start("drain", f"kill@{point}:1")
    house.enqueue(8)
    house.wait_ended("drain")
    house.start("drain")
    house.settle()
    house.kill("drain")
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (8, DOUBLED[point])


@pytest.mark.parametrize("point", ["taken", "accepted"])
def test_an_accept_killed_at_a_point(house: House, point: str) -> None:
    house.open_books()
    house.kill("accept")
    house.start("accept", f"kill@{point}:1")
    house.start("drain")
    house.enqueue(8)
    house.wait_ended("accept")
    house.start("accept")
    house.settle()
    house.kill("drain")
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (8, 0)
