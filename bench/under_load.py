"""What must go at once, while tens of thousands of bulk mails wait."""

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import house, measuring, sink
from bench.house import House
from bench.letter import recipient, sender
from bench.sink import Sink
from bench.system import Request

_CONNECTIONS: Final = 10
_OTHERS_CONNECTIONS: Final = 4
_PAUSE_SECONDS: Final = (0.05, 0.15)
_TIMEOUT_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Waited:
    """How long mails took from the call to the server's 250, in milliseconds.

    Attributes:
        bulk_left: how many were still waiting when the last of the others was handed over.
        high_ms: `high` mails of the account that sends the bulk.
        other_ms: mails of another account.
    """

    when: str
    bulk_left: int
    high_ms: list[float]
    other_ms: list[float]


def measured(folder: Path, *, bulk: int, probes: int) -> list[Waited]:
    """Measure on PostgreSQL.

    Args:
        folder: for files.
        bulk: how many bulk mails.
        probes: how many of either kind, each time.
    """
    with (
        sink.started(folder / "sink", secure=False) as to,
        house.started(folder / "house", to, "postgresql", connections=_CONNECTIONS) as running,
    ):
        running.add_account(to, sender(1), connections=_OTHERS_CONNECTIONS)
        measuring.warm_up(running.system, to)
        first = len(to.taken)
        with running.drains_stopped():
            running.system.hand_over(Request(first, bulk, priority="bulk"))
            running.wait_accepted(first + bulk, _TIMEOUT_SECONDS)
        sending = _probe(running, to, "bulk is being sent", first + bulk, probes)
        running.system.hand_over(Request(first + bulk + 2 * probes, bulk // 5, priority="bulk"))
        return [
            sending,
            _probe(running, to, "bulk is being taken in too", first + bulk + bulk // 5 + 2 * probes, probes),
        ]


def _probe(running: House, to: Sink, when: str, first: int, probes: int) -> Waited:
    called_at: dict[str, float] = {}
    for number in range(first, first + 2 * probes):
        time.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311 - in step with nobody's clock
        by = number % 2
        asked = Request(number, 1, singly=True, priority="normal" if by else "high", senders=(by, by))
        handed_over = running.system.hand_over(asked)
        called_at[recipient(number)] = handed_over.ended_at - handed_over.calls_ms[0] / 1000
    bulk_left = first + 2 * probes - len(to.taken)
    took_ms = _waited_ms(to, called_at)
    kinds = [[took_ms[recipient(number)] for number in range(first + by, first + 2 * probes, 2)] for by in (0, 1)]
    high, other = kinds if first % 2 == 0 else reversed(kinds)
    return Waited(when, bulk_left, high, other)


def _waited_ms(to: Sink, called_at: dict[str, float]) -> dict[str, float]:
    until = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        arrived_at = {each.recipient: each.at for each in to.taken if each.recipient in called_at}
        if len(arrived_at) == len(called_at):
            return {who: (arrived_at[who] - at) * 1000 for who, at in called_at.items()}
        if time.monotonic() > until:
            raise TimeoutError(f"{len(called_at) - len(arrived_at)} of {len(called_at)} mails did not get through")
        time.sleep(0.05)
