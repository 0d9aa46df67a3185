"""Workers that send meet a trouble that passes: they go on by themselves, soon, and the books hold."""

import time
from collections.abc import Callable

from campaigns.house import House
from long_form import LONG

CONNECTIONS = 4
RESUMES_IN_SECONDS = 10 if LONG else 30
"""10; the tests of a suite share a machine."""


def goes_on_after(house: House, mails: int, trouble: Callable[[House], None], what: str) -> None:
    """Let a trouble come and pass while so many mails are sent; `what` it was is printed with the books."""
    house.open_books(connections=CONNECTIONS)
    house.enqueue(mails, priority="high", to="dot-wait-100@client.example")
    house.wait_arrived(mails // 10)
    trouble(house)
    assert house.under_way, "it came too late to be of any harm"
    arrived, began_at = house.arrived, time.monotonic()
    house.wait_arrived(arrived + CONNECTIONS + 1)  # what was in flight says nothing
    resumed_seconds = time.monotonic() - began_at
    house.settle()
    books = house.books()
    print(f"{what}: sending went on after {resumed_seconds:.1f} s; {books}")
    assert resumed_seconds < RESUMES_IN_SECONDS
    assert books.balance, books
    assert books.sent + books.held == books.enqueued, books
    assert books.doubled_announced + books.held <= CONNECTIONS, "at most one for each, whose lease ended meanwhile"
    assert not any(house.ended(kind) for kind in ("accept", "care", "drain")), "nobody had to start them again"
