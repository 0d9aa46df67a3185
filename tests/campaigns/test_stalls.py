"""Workers and servers that are slower than a lease."""

import signal

import pytest

from campaigns.house import LEASE_SECONDS, House
from servers.scripted_smtp import Wait


def test_a_reply_to_the_dot_slower_than_the_lease(house: House) -> None:
    house.open_books()
    house.smtp.script({".": [Wait(3 * LEASE_SECONDS)]})
    house.start("drain")
    house.enqueue(3)
    house.settle()
    house.kill("drain")
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (3, 0)


DOUBLED = {"claimed": {0}, "marked": {1}, "half_data": {0, 1}, "dotted": {1}, "replied": {1}, "recorded": {0}}
"""How many mails arrive twice, announced, when a drain that was given up for lost at a point goes on.

The mark is asked for before the content is written and may stand when half of it is. From the mark on nobody else can
know whether the final dot went, so another drain sends the mail again; the first goes on where it was, and its dot was
permitted before.
"""


@pytest.mark.parametrize("point", DOUBLED)
def test_a_drain_stopped_past_its_lease_goes_on(house: House, point: str) -> None:
    house.open_books(connections=1)
    house.start("drain", f"stop@{point}:1", name="first")
    house.enqueue(8)
    house.wait_stopped("first")
    house.start("drain", name="second")
    house.settle()
    house.signal("first", signal.SIGCONT)
    house.enqueue(2)
    house.settle()
    house.kill("first")
    house.kill("second")
    books = house.books()
    assert books.balance, books
    assert books.sent == 10
    assert books.doubled_announced in DOUBLED[point]
