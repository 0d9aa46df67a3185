"""How a running system is measured: letters go in, and their outcomes and each process's time are looked at."""

import random
import time
from dataclasses import dataclass
from typing import Final

from bench import cost
from bench.house import House
from bench.sink import Sink
from bench.system import Request, System

_TIMEOUT_SECONDS: Final = 120.0
_IDLE_SECONDS: Final = (0.05, 0.15)


@dataclass(frozen=True, slots=True)
class Measured:
    """What sending so many mails took.

    Attributes:
        seconds: until the last outcome was recorded.
        handing_over_seconds: the part of it until the producer was done.
        cpu_ms: processor time of each process in that time.
        memory_mib: of each process at its end.
    """

    mails: int
    seconds: float
    handing_over_seconds: float
    cpu_ms: dict[str, float]
    memory_mib: dict[str, float]

    @property
    def mails_a_second(self) -> float:
        """The rate."""
        return self.mails / self.seconds


def warm_up(system: System, to: Sink, count: int = 200) -> None:
    """Send some mails, so that sessions are open and code is warm."""
    _send(system, to, count)


def stream(system: System, to: Sink, count: int) -> Measured:
    """Hand letters over as fast as it goes, while the system sends: from the first call on."""
    before = cost.processor_ms(_pids(system, to))
    began_at, handed_over_at, ended_at = _send(system, to, count)
    return _measured(system, to, count, before, seconds=(ended_at - began_at, handed_over_at - began_at))


def latency_ms(system: System, to: Sink) -> float:
    """Send one mail on the idle system: milliseconds from the call that hands it over to the server's 250."""
    time.sleep(random.uniform(*_IDLE_SECONDS))  # noqa: S311 - in step with nobody's clock
    first = len(to.taken)
    handed_over = system.hand_over(Request(first, 1, singly=True))
    _wait_recorded(system, to, first + 1)
    [call_ms] = handed_over.calls_ms
    return (to.taken[first].at - handed_over.ended_at) * 1000 + call_ms


def prefilled(house: House, to: Sink, count: int) -> Measured:
    """Send what lies in the ledger already, all of it before a drain process runs: from when they run on."""
    first = len(to.taken)
    with house.drains_stopped():
        house.system.hand_over(Request(first, count))
        house.wait_accepted(first + count, _TIMEOUT_SECONDS)
        before = cost.processor_ms(_pids(house.system, to))
        began_at = time.monotonic()
    ended_at = _wait_recorded(house.system, to, first + count)
    return _measured(house.system, to, count, before, seconds=(ended_at - began_at, 0))


def _send(system: System, to: Sink, count: int) -> tuple[float, float, float]:
    """Moments: the first call, the last one's end, the last outcome recorded."""
    first = len(to.taken)
    handed_over = system.hand_over(Request(first, count))
    return handed_over.began_at, handed_over.ended_at, _wait_recorded(system, to, first + count)


def _wait_recorded(system: System, to: Sink, count: int) -> float:
    try:
        to.wait_taken(count, _TIMEOUT_SECONDS)
        return system.wait_recorded(count, _TIMEOUT_SECONDS)
    except TimeoutError as error:
        error.add_note(system.logs)
        raise


def _measured(
    system: System, to: Sink, count: int, before: dict[str, float], *, seconds: tuple[float, float]
) -> Measured:
    after = cost.processor_ms(_pids(system, to))
    recipients = {each.recipient for each in to.taken[-count:]}
    if len(recipients) != count:
        raise AssertionError(f"{system.name}: {count} mails reached {len(recipients)} recipients")
    cpu_ms = {name: after[name] - before[name] for name in after}
    return Measured(count, *seconds, cpu_ms, cost.memory_mib(system.pids))


def _pids(system: System, to: Sink) -> dict[str, int]:
    return {**system.pids, "sink": to.process.pid}
