"""What handing over costs a site: while nothing else runs than the store that takes the mail."""

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import cost, sink
from bench.contestants import BARE_CELERY, BULLMQ, POSTROOM, Contestant
from bench.system import Request

_WARM_UP: Final = 200


@dataclass(frozen=True, slots=True)
class Enqueueing:
    """What it cost.

    Attributes:
        call_ms: the median of single calls, which is what the site waits for.
        many_a_second: mails handed over in one go, from a generator.
        peak_mib: the largest resident set of the producer after a tenth of them, and after all.
    """

    name: str
    call_ms: float
    many_a_second: float
    peak_mib: tuple[float, float]


def measured(folder: Path, *, calls: int, many: int) -> list[Enqueueing]:
    """Measure Postroom, a bare Celery `delay()` of the same letter, and BullMQ."""
    return [_measured(each, folder / f"{number}", calls, many) for number, each in enumerate(_WHO)]


_WHO: Final = (POSTROOM[0], BARE_CELERY, BULLMQ)


def _measured(contestant: Contestant, folder: Path, calls: int, many: int) -> Enqueueing:
    with (
        sink.started(folder / "sink", secure=False) as to,
        contestant.start(folder / "it", to, sending=False) as system,
    ):
        system.hand_over(Request(0, _WARM_UP, singly=True))
        single = system.hand_over(Request(_WARM_UP, calls, singly=True))
        first = _WARM_UP + calls
        tenth = system.hand_over(Request(first, many // 10))
        then_mib = cost.peak_mib(system.producer.pid)
        rest = system.hand_over(Request(first + many // 10, many - many // 10))
        seconds = tenth.ended_at - tenth.began_at + rest.ended_at - rest.began_at
        peak_mib = then_mib, cost.peak_mib(system.producer.pid)
        return Enqueueing(contestant.name, statistics.median(single.calls_ms), many / seconds, peak_mib)
