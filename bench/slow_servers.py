"""Servers that take their time: how full an account's connections are kept."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import house, measuring, sink
from bench.house import DatabaseKind
from bench.letter import sender
from bench.sink import Sink
from bench.system import Request

_TIMEOUT_SECONDS: Final = 60.0
_ROUNDS_BEFORE: Final = 3
"""So many mails for each connection go before it is measured: until then not all of them are open."""


@dataclass(frozen=True, slots=True)
class Case:
    """Accounts, the connections of each, and how long the server is busy with a mail."""

    accounts: int
    connections: int
    server_seconds: float

    @property
    def most_a_second(self) -> float:
        """As many mails as fit."""
        return self.accounts * self.connections / self.server_seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """How full they were kept.

    Attributes:
        mails_a_second: once all connections are open.
    """

    name: str
    case: Case
    mails_a_second: float

    @property
    def share(self) -> float:
        """Of what fits."""
        return self.mails_a_second / self.case.most_a_second


CASES: Final = (Case(1, 10, 0.1), Case(50, 4, 0.1), Case(50, 4, 0.5))


def measured(folder: Path, *, cases: Iterable[Case], seconds: float, databases: Iterable[DatabaseKind]) -> list[Kept]:
    """Measure each case for so long."""
    cases_on = [(database, case) for case in cases for database in databases]
    return [_measured(folder / f"{number}", *each, seconds) for number, each in enumerate(cases_on)]


def _measured(folder: Path, database: DatabaseKind, case: Case, seconds: float) -> Kept:
    with (
        sink.started(folder / "sink", secure=False, delay_seconds=case.server_seconds) as to,
        house.started(folder / "house", to, database, connections=case.connections) as running,
    ):
        for number in range(1, case.accounts):
            running.add_account(to, sender(number), connections=case.connections)
        at_once = case.accounts * case.connections
        begins = _ROUNDS_BEFORE * at_once
        of_five_seconds = round(5 * case.connections / case.server_seconds)
        count = begins + round(case.most_a_second * seconds)
        measuring.warm_up(running.system, to, min(200, of_five_seconds))
        first = len(to.taken)
        with running.drains_stopped():
            running.system.hand_over(Request(first, count, senders=(0, case.accounts - 1)))
            running.wait_accepted(first + count, _TIMEOUT_SECONDS)
        to.wait_taken(first + begins, _TIMEOUT_SECONDS)
        time.sleep(seconds)
        return Kept(running.system.name, case, _rate(to, first + begins, at_once))


def _rate(to: Sink, first: int, at_once: int) -> float:
    """How fast it was from this mail on: what it took to open all sessions is not counted, nor is a part of a round of
    all connections, since they may answer in step.
    """
    taken = to.taken
    counted = len(taken) - first
    counted -= counted % at_once if counted >= at_once else 0
    return counted / (taken[first + counted - 1].at - taken[first - 1].at) if counted else 0
