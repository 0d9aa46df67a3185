"""Throughput, cost, memory and latency of all, in rounds whose order changes."""

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench import measuring, sink
from bench.contestants import ALL, Contestant
from bench.measuring import Measured

_LEAST_MAILS: Final = 50


@dataclass(frozen=True, slots=True)
class Figures:
    """What all rounds gave for one contestant.

    Attributes:
        plain: one stream a round, in clear and without a sign-in.
        secure: the same over STARTTLS and AUTH.
        latencies_ms: of single mails on an idle system in clear, from the call to the server's 250; of all rounds.
    """

    contestant: Contestant
    plain: list[Measured] = field(default_factory=list)
    secure: list[Measured] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)


def measured(folder: Path, *, rounds: int, share: float, singles: int) -> list[Figures]:
    """Measure all of them.

    Args:
        folder: for files.
        rounds: how often.
        share: of the mails that a contestant sends in the full form.
        singles: how many single mails a round.
    """
    figures = [Figures(contestant) for contestant in ALL]
    for number in range(1, rounds + 1):
        for secure in (False, True):
            for of in random.sample(figures, len(figures)):
                _measure(of, folder / f"{number}-{secure}-{ALL.index(of.contestant)}", share, singles, secure=secure)
                last = (of.secure if secure else of.plain)[-1]
                how = "STARTTLS and AUTH" if secure else "in clear"
                print(f"round {number}: {of.contestant.name}, {how}: {last.mails_a_second:.0f}/s", file=sys.stderr)
    return figures


def _measure(of: Figures, folder: Path, share: float, singles: int, *, secure: bool) -> None:
    count = max(_LEAST_MAILS, round(of.contestant.mails[secure] * share))
    with sink.started(folder / "sink", secure=secure) as to, of.contestant.start(folder / "it", to) as system:
        measuring.warm_up(system, to, count // 3)
        stream = measuring.stream(system, to, count)
        if secure:
            of.secure.append(stream)
        else:
            of.plain.append(stream)
            of.latencies_ms.extend(measuring.latency_ms(system, to) for _ in range(singles))
