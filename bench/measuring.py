"""How a running system is measured: letters go in, and their outcomes and each process's time are looked at."""

import signal
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from bench import cost
from bench.house import House
from bench.sink import Sink
from bench.system import System
from postroom.config.tables import mails

WARM_UP_MAILS: Final = 200
_TIMEOUT_SECONDS: Final = 120.0
_SETTLES_IN_SECONDS: Final = 1.5


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


def warm_up(system: System, to: Sink) -> None:
    """Send some mails, so that sessions are open and code is warm."""
    _send(system, to, WARM_UP_MAILS)


def stream(system: System, to: Sink, count: int) -> Measured:
    """Hand letters over as fast as it goes, while the system sends: from the first call on."""
    before = cost.processor_ms(_pids(system, to))
    began_at, handed_over_at, ended_at = _send(system, to, count)
    return _measured(system, to, count, before, seconds=(ended_at - began_at, handed_over_at - began_at))


def prefilled(house: House, to: Sink, count: int) -> Measured:
    """Send what lies in the ledger already, all of it before a drain process runs: from when they run on."""
    time.sleep(_SETTLES_IN_SECONDS)  # a stopped process must hold neither a lock nor a slot
    for drain in house.drains:
        drain.send_signal(signal.SIGSTOP)
    first = len(to.taken)
    house.system.begin(first, count)
    house.system.handed_over()
    _wait_accepted(house, first + count)
    before = cost.processor_ms(_pids(house.system, to))
    began_at = time.monotonic()
    for drain in house.drains:
        drain.send_signal(signal.SIGCONT)
    ended_at = _wait_recorded(house.system, to, first + count)
    return _measured(house.system, to, count, before, seconds=(ended_at - began_at, 0))


def _send(system: System, to: Sink, count: int) -> tuple[float, float, float]:
    """Moments: the first call, the last one's end, the last outcome recorded."""
    first = len(to.taken)
    system.begin(first, count)
    handed_over = system.handed_over()
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


def _wait_accepted(house: House, count: int) -> None:
    until = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        with house.database.read() as connection:
            accepted = connection.execute(select(func.count()).select_from(mails)).scalar_one()
        if accepted >= count:
            return
        if time.monotonic() > until:
            raise TimeoutError(f"only {accepted} of {count} mails were accepted")
        time.sleep(0.1)
