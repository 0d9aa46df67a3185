"""Nudges that come three times, out of order, or not at all: each mail goes once all the same."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from campaigns.faults import distorted
from campaigns.house import House
from long_form import LONG
from postroom.producer.nudge import nudge

pytestmark = pytest.mark.timeout(1200 if LONG else 120)

MAILS = 1000 if LONG else 60


@pytest.mark.parametrize("how", ["tripled", "shuffled", "dropped"] if LONG else ["dropped"])
def test_nudges(house: House, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Those of the producer, of the workers, and of the chores that make up for lost ones."""
    with house.redis.client() as client:
        distorting = told_otherwise(distorted(client.lpush, how))
        monkeypatch.setattr("postroom.producer.producer.nudge", distorting)
        _send_and_count(house, how)


def told_otherwise(publish: Callable[..., None]) -> Callable[..., bytes]:
    """The producer's nudge, published in another way; what goes with the jobs tells of nothing."""

    def changed(task: str, queue: str, arguments: Sequence[Any], **more: Any) -> bytes:
        publish(queue, nudge(task, queue, arguments, **more))
        return nudge(task, queue, ([], []), **more)

    return changed


def _send_and_count(house: House, how: str) -> None:
    house.settings = house.settings.model_copy(update={"lease_seconds": 10.0})  # none ends on a busy machine
    house.open_books(connections=2)
    kinds = ("accept", "care", "drain")
    for kind in kinds:
        house.start(kind, f"nudges@{how}")
    began_at = time.monotonic()
    with house.load(MAILS):
        pass
    house.settle()
    books = house.books()
    print(f"{how}: settled after {time.monotonic() - began_at:.1f} s; {books}")
    house.kill("drain")
    assert books.balance, books
    assert (books.sent, books.doubled_announced) == (MAILS, 0)
