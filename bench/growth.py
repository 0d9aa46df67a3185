"""Whether a ledger that has grown is slower than an empty one."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import filling, house, measuring, sink
from bench.contestants import CONNECTIONS
from bench.house import DatabaseKind
from bench.measuring import Measured

_STREAMS: Final = 3
_LANES: Final = 1000


@dataclass(frozen=True, slots=True)
class Grown:
    """Streams into an empty ledger and into the same one filled, with 1,000 further accounts whose lanes wait."""

    name: str
    recorded: int
    waiting: int
    empty: list[Measured]
    filled: list[Measured]

    @property
    def share(self) -> float:
        """Throughput of the filled one, by that of the empty one."""
        before, after = (statistics.median(one.mails_a_second for one in each) for each in (self.empty, self.filled))
        return after / before

    @property
    def cost_share(self) -> float:
        """Processor time a mail in the filled one, by that in the empty one."""
        before, after = (
            statistics.median(sum(one.cpu_ms.values()) for one in each) for each in (self.empty, self.filled)
        )
        return after / before


def measured(
    folder: Path, *, databases: Iterable[DatabaseKind], recorded: int, waiting: int, mails: int
) -> list[Grown]:
    """Measure it.

    Args:
        folder: for files.
        databases: on which.
        recorded: about how many mails are added as sent.
        waiting: and as waiting.
        mails: how many a stream has.
    """
    return [_measured(folder / database, database, recorded, waiting, mails) for database in databases]


def _measured(folder: Path, database: DatabaseKind, recorded: int, waiting: int, mails: int) -> Grown:
    with (
        sink.started(folder / "sink", secure=False) as to,
        house.started(folder / "house", to, database, connections=CONNECTIONS) as running,
    ):
        measuring.warm_up(running.system, to)
        empty = [measuring.stream(running.system, to, mails) for _ in range(_STREAMS)]
        counts = filling.fill(running, to, recorded=recorded, waiting=waiting, lanes=_LANES)
        measuring.warm_up(running.system, to)
        filled = [measuring.stream(running.system, to, mails) for _ in range(_STREAMS)]
        return Grown(running.system.name, *counts, empty, filled)
