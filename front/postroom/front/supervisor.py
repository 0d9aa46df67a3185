"""Runs named programs as one process tree: started floor by floor, restarted when they die, stopped from the top.

One thread and no polling but for readiness: signals, the children's output and their word that they are ready all
arrive through one selector. Each child has a session of its own, so that a terminal's Ctrl-C reaches only the
supervisor, which then stops the children in order; and none outlives it (see `child`).
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final

from postroom.front.display import Display
from postroom.front.process import Process, Program, ending

OWN_NAME: Final = "postroom"
"""The name before the supervisor's own lines."""

WARM_STOP_SECONDS: Final = 12.0
"""From the request to stop: what still runs then is killed. The lowest floor is asked only after the others ended."""
LOWEST_FLOOR_SECONDS: Final = 3.0
"""Grace of the lowest floor, from when it was asked."""

_LONGEST_PAUSE_SECONDS: Final = 30.0
_LIVED_WELL_SECONDS: Final = 60.0
_TRIES_TO_START: Final = 3
_USAGE_ERROR: Final = 2
_SECOND_SIGINT_SECONDS: Final = 0.5
"""Sooner, it is the same Ctrl-C: programs such as make pass on what the terminal has sent to all already."""
_READINESS_SECONDS: Final = 0.02


class _Place:
    """A program's place in the house, whoever stands there now."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: Process | None = None
        self.ready = False
        self.was_ready = False
        self.killed = False
        self.deaths = 0
        self.due_at = 0.0
        self.pause_seconds = program.first_pause_seconds


class Supervisor:
    """Runs programs until it is told to stop.

    Args:
        programs: in the order in which they are started and listed.
        display: where all lines go; must know every program's name and `OWN_NAME`.
        on_ready: called with name → pid each time that everything has become ready: at first, and after restarts.
    """

    def __init__(
        self, programs: Sequence[Program], display: Display, on_ready: Callable[[Mapping[str, int]], None]
    ) -> None:
        self._places = [_Place(program) for program in programs]
        self._lowest = min(program.floor for program in programs)
        self._display = display
        self._on_ready = on_ready
        self._selector = selectors.DefaultSelector()
        self._watched: int | None = None
        self._all_ready = False
        self._stop_at: float | None = None
        self._asked_at: dict[int, float] = {}
        self._status = 0

    def run(self) -> int:
        """Run everything until SIGTERM, SIGINT or SIGHUP, or until a program cannot be started at all.

        Must be called in the main thread of a process that has no other.

        Returns:
            The exit status: 0 after a warm stop, 130 if a second SIGINT cut it short, 1 if a program was never up.
        """
        with self._signals():
            try:
                while self._stop_at is None or self._alive():
                    self._turn()
            finally:  # a defect of ours must not leave orphans either
                for place in self._alive():
                    _running(place).kill()
        self._selector.close()
        self._display.flush()
        return self._status

    def _turn(self) -> None:
        self._watch_display()
        for key, _ in self._selector.select(self._wait_seconds()):
            key.data()
        now = time.monotonic()
        for place in self._alive():
            self._reap(place, now)
        if self._stop_at is None:
            self._start_what_is_due(now)
        if self._stop_at is not None:
            self._stop_next(now)
        self._display.flush()

    def _wait_seconds(self) -> float | None:
        """How long nothing can be due; None: until something arrives."""
        now = time.monotonic()
        if self._stop_at is not None:
            waits = [self._deadline(place.program.floor) - now for place in self._alive() if not place.killed]
        else:
            waits = [place.due_at - now for place in self._places if not place.process and self._may_start(place)]
            if any(place.process and not place.ready and place.program.answers for place in self._places):
                waits.append(_READINESS_SECONDS)
        return max(0.0, min(waits)) if waits else None

    # Starting

    def _may_start(self, place: _Place) -> bool:
        return all(other.ready for other in self._places if other.program.floor < place.program.floor)

    def _start_what_is_due(self, now: float) -> None:
        for place in self._places:
            if place.process is None and place.due_at <= now and self._may_start(place):
                self._start(place, now)
            if place.process and not place.ready and place.program.answers and place.program.answers():
                self._become_ready(place)
        if not self._all_ready and all(place.ready for place in self._places):
            self._all_ready = True
            self._on_ready({place.program.name: _running(place).pid for place in self._places})

    def _start(self, place: _Place, now: float) -> None:
        try:
            process = place.process = Process(place.program)
        except OSError as error:
            self._plan_restart(place, now, lived_seconds=0, what=f"cannot be started: {error}")
            return
        self._selector.register(process.output, selectors.EVENT_READ, partial(self._show_output, place))
        self._selector.register(process.word, selectors.EVENT_READ, partial(self._hear_ready, place))

    def _hear_ready(self, place: _Place) -> None:
        process = _running(place)
        self._selector.unregister(process.word)
        if process.hear_ready() and place.program.answers is None:
            self._become_ready(place)

    def _become_ready(self, place: _Place) -> None:
        place.ready = place.was_ready = True
        if self._stop_at is None:
            process = _running(place)
            self._say(f"{place.program.name} is up (pid {process.pid}, {time.monotonic() - process.started_at:.1f} s)")

    # Lines and deaths

    def _show_output(self, place: _Place) -> None:
        process = _running(place)
        lines = process.read()
        if lines is None:  # its end stays readable for ever; the death itself comes by signal
            self._selector.unregister(process.output)
        for line in lines or ():
            self._display.show(place.program.name, line)

    def _reap(self, place: _Place, now: float) -> None:
        process = _running(place)
        code = process.ended()
        if code is None:
            return
        process.kill()  # the rest of its group
        for descriptor in (process.output, process.word):
            with suppress(KeyError, ValueError):  # not there any more
                self._selector.unregister(descriptor)
        for line in process.close():
            self._display.show(place.program.name, line)
        place.process = None
        place.ready = place.killed = self._all_ready = False
        if self._stop_at is None:
            lived_seconds = now - process.started_at
            what = f"ended unasked ({ending(code)})"
            self._plan_restart(place, now, lived_seconds, what, hopeless=code == _USAGE_ERROR)

    def _plan_restart(
        self, place: _Place, now: float, lived_seconds: float, what: str, *, hopeless: bool = False
    ) -> None:
        place.deaths += 1
        if not place.was_ready and (hopeless or place.deaths >= _TRIES_TO_START):
            self._status = 1
            self._stop(f"{place.program.name} {what} and was never up: giving up. Its own lines above say why")
            return
        if lived_seconds >= _LIVED_WELL_SECONDS:
            place.pause_seconds = place.program.first_pause_seconds
        pause = place.pause_seconds
        place.due_at = now + pause
        place.pause_seconds = next_pause(pause)
        self._say(f"{place.program.name} {what}; starting it again " + (f"in {pause:.0f} s" if pause else "at once"))

    # Stopping

    def _take_signals(self, arrived: int) -> None:
        for number in map(signal.Signals, os.read(arrived, 4096)):
            if number == signal.SIGCHLD:  # seen to by every turn
                continue
            now = time.monotonic()
            if self._stop_at is None:
                seconds = WARM_STOP_SECONDS + LOWEST_FLOOR_SECONDS
                self._stop(f"{number.name}: finishing what is in hand, {seconds:.0f} s at most")
            elif number == signal.SIGINT and now - self._stop_at >= _SECOND_SIGINT_SECONDS:
                self._say("SIGINT again: stopping at once")
                self._status = 130
                self._stop_at = now - WARM_STOP_SECONDS

    def _stop(self, why: str) -> None:
        self._stop_at = time.monotonic()
        self._say(why)

    def _deadline(self, floor: int) -> float:
        if self._stop_at is None:
            return float("inf")
        if floor > self._lowest:
            return self._stop_at + WARM_STOP_SECONDS
        return self._asked_at.get(floor, self._stop_at + WARM_STOP_SECONDS) + LOWEST_FLOOR_SECONDS

    def _stop_next(self, now: float) -> None:
        floor = max((place.program.floor for place in self._alive()), default=self._lowest)
        there = [place for place in self._alive() if place.program.floor == floor]
        if floor not in self._asked_at:
            self._asked_at[floor] = now
            for place in there:
                _running(place).ask_to_stop()
        if now >= self._deadline(floor):
            for place in there:
                if not place.killed:
                    place.killed = True
                    self._say(f"{place.program.name} had not stopped: killed")
                    _running(place).kill()

    # The rest

    def _watch_display(self) -> None:
        """Hear when a slow terminal can take more."""
        stuck_on = self._display.stuck_on
        if stuck_on != self._watched:
            if self._watched is not None:
                self._selector.unregister(self._watched)
            if stuck_on is not None:
                self._selector.register(stuck_on, selectors.EVENT_WRITE, self._display.flush)
            self._watched = stuck_on

    def _alive(self) -> list[_Place]:
        return [place for place in self._places if place.process is not None]

    def _say(self, text: str) -> None:
        self._display.show(OWN_NAME, text)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals arrive as bytes on a descriptor; they are as they were afterwards."""

        def noted(_number: int, _frame: FrameType | None) -> None:
            """Nothing: the number has been written to the wakeup descriptor."""

        arrived, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it stays ignored
            numbers.append(signal.SIGHUP)
        previous_wakeup = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, noted) for number in numbers}
        self._selector.register(arrived, selectors.EVENT_READ, partial(self._take_signals, arrived))
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_wakeup)
            self._selector.unregister(arrived)
            os.close(arrived)
            os.close(wakeup)


def next_pause(pause_seconds: float) -> float:
    """The pause before the restart after this one: 1, 2, 4, … 30 s."""
    return min(max(1.0, pause_seconds * 2), _LONGEST_PAUSE_SECONDS)


def _running(place: _Place) -> Process:
    if place.process is None:
        raise AssertionError(f"{place.program.name} is asked for while it does not run")
    return place.process
