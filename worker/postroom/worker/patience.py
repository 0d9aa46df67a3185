"""Patience: no lane waits for another lane's server (design §4).

A lane is drained on a thread of its own, and the task that was nudged for it waits beside it: so many tasks, so many
lanes at work. A lane whose server lets it wait goes on *alone*: its task ends and serves others, and the lane ends
after the mail in hand. When as many are alone as may be, servers not known to answer get at most half of the tasks.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final
from uuid import UUID

import structlog

_PATIENCE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.25
_LOOK_AT_OPENING_SECONDS: Final = 0.02
_FEWEST_ALONE: Final = 256
"""How many lanes a process lets wait alone, or as many as it has tasks. Each costs a thread that sleeps."""

_IN_HAND_SECONDS: Final = 5.0
_CUT_OFF_SECONDS: Final = 1.5

log = structlog.get_logger(__name__)


class Run:
    """A lane that is being drained: what its drain tells of it.

    Attributes:
        alone: its task has left it, so it ends after the mail in hand.
        claim: the token of its slot, once it has one.
    """

    def __init__(self, patience: "Patience", account_id: UUID) -> None:
        self.account_id = account_id
        self.alone = False
        self.claim: UUID | None = None
        self.ended = threading.Event()
        self.error: BaseException | None = None
        self._patience = patience
        self._waits_since: float | None = None
        self._cut_off: Callable[[], None] | None = None

    @contextmanager
    def opening(self) -> Iterator[None]:
        """A connection to its server is opened within."""
        with self._waiting(None):
            yield

    @contextmanager
    def sending(self, cut_off: Callable[[], None]) -> Iterator[None]:
        """A mail is given to its server within; `cut_off` ends that from another thread."""
        with self._waiting(cut_off):
            yield

    @contextmanager
    def busy(self) -> Iterator[None]:
        """What it waits for within is ours, and no delay of the server's."""
        waited_seconds, self._waits_since = self.waits_seconds, None
        try:
            yield
        finally:
            self._waits_since = time.monotonic() - waited_seconds

    def opened(self) -> bool:
        """Its server let it in; whether it is the first in this process since it did not."""
        return self._patience.opened(self.account_id)

    @property
    def is_opening(self) -> bool:
        """Whether it is held up before any mail is on its way."""
        return self._waits_since is not None and self._cut_off is None

    @property
    def waits_seconds(self) -> float:
        """For how long it has waited for its server by now."""
        since = self._waits_since
        return 0.0 if since is None else time.monotonic() - since

    def cut_off(self) -> None:
        """End the transaction that it waits for, if there is one."""
        cut_off = self._cut_off
        if cut_off is not None:
            cut_off()

    @contextmanager
    def _waiting(self, cut_off: Callable[[], None] | None) -> Iterator[None]:
        self._cut_off = cut_off
        self._waits_since = time.monotonic()
        try:
            yield
        finally:
            self._patience.waited(self.account_id, self.waits_seconds)
            self._waits_since = self._cut_off = None


class Patience:
    """Runs the lanes of one process.

    Args:
        tasks: how many tasks run at once.
        nudge: says that there is work in an account's lane.
        stopping: set when tasks must end; the lanes have seen it themselves.
    """

    def __init__(self, tasks: int, nudge: Callable[[UUID], None], stopping: threading.Event) -> None:
        self._tasks = tasks
        self._most_alone = max(tasks, _FEWEST_ALONE)
        self._nudge = nudge
        self._stopping = stopping
        self._guard = threading.Lock()
        self._runs: set[Run] = set()
        self._opened: set[UUID] = set()
        self._slow: set[UUID] = set()
        self._refused: dict[UUID, None] = {}

    def run(self, account_id: UUID, lane: Callable[[Run], None]) -> None:
        """Drain a lane; returns when that has ended or goes on alone, or at once where it is not its time.

        Raises:
            whatever `lane` raised while it was not alone.
        """
        run = self._begin(account_id)
        if run is None:
            return
        self._start(run, lane)
        while not self._leave_alone(run):
            if run.ended.wait(_LOOK_AT_OPENING_SECONDS if run.is_opening else _LOOK_SECONDS):
                if run.error is not None:
                    raise run.error
                return

    def at_work(self) -> list[Run]:
        """The lanes that have not ended."""
        with self._guard:
            return list(self._runs)

    def lanes_wait(self) -> bool:
        """Whether every task is busy, so that other lanes may wait for one."""
        with self._guard:
            return self._beside() >= self._tasks

    def has_opened(self, account_id: UUID) -> bool:
        """Whether this process was let in by an account's server the last time."""
        with self._guard:
            return account_id in self._opened

    def opened(self, account_id: UUID) -> bool:
        """Note that an account's server let us in; whether that is new."""
        with self._guard:
            new = account_id not in self._opened
            self._opened.add(account_id)
            return new

    def did_not_open(self, account_id: UUID) -> None:
        """Note that it did not: until it does, one connection at a time is tried."""
        with self._guard:
            self._opened.discard(account_id)

    def waited(self, account_id: UUID, seconds: float) -> None:
        """Note how long a server let us wait."""
        with self._guard:
            if seconds > _PATIENCE_SECONDS:
                self._slow.add(account_id)
            else:
                self._slow.discard(account_id)

    def close(self) -> list[Run]:
        """Wait for the mails in hand, then cut off what still waits for its server's reply.

        Returns:
            The lanes that have not ended even so.
        """
        self._wait_while(lambda run: not run.is_opening, _IN_HAND_SECONDS)
        for run in self.at_work():
            run.cut_off()
        self._wait_while(lambda run: not run.is_opening, _CUT_OFF_SECONDS)
        return self.at_work()

    def _begin(self, account_id: UUID) -> Run | None:
        with self._guard:
            if account_id not in self._opened and any(run.account_id == account_id for run in self._runs):
                return None  # the one at work nudges when it was let in, and when it ends
            if not self._answers(account_id) and self._is_full():
                self._refused[account_id] = None
                return None
            run = Run(self, account_id)
            self._runs.add(run)
            return run

    def _start(self, run: Run, lane: Callable[[Run], None]) -> None:
        try:
            threading.Thread(target=self._ride, args=(run, lane), name=f"lane-{run.account_id}", daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            with self._guard:
                self._runs.discard(run)
            raise

    def _ride(self, run: Run, lane: Callable[[Run], None]) -> None:
        try:
            lane(run)
        except BaseException as error:  # noqa: BLE001 - it is raised in the task, or told here
            run.error = error
        with self._guard:
            self._runs.discard(run)
            run.ended.set()
            refused = next(iter(self._refused), None)
            if refused is not None:
                del self._refused[refused]
        if run.alone and run.error is not None:
            log.error("a lane failed", account=str(run.account_id), error=type(run.error).__name__)
        if refused is not None and not self._stopping.is_set():
            self._nudge(refused)

    def _leave_alone(self, run: Run) -> bool:
        """Whether its task may end: the lane goes on without it."""
        with self._guard:
            if run.ended.is_set():
                return False
            busy = run.is_opening and self._beside() > self._tasks // 2
            waits = run.waits_seconds
            late = waits > 0 and (busy or waits > _PATIENCE_SECONDS) and self._alone() < self._most_alone
            run.alone = late or self._stopping.is_set()
            return run.alone

    def _is_full(self) -> bool:
        doubtful = sum(not run.alone and not self._answers(run.account_id) for run in self._runs)
        return self._alone() >= self._most_alone and doubtful >= max(1, self._tasks // 2)

    def _answers(self, account_id: UUID) -> bool:
        return account_id in self._opened and account_id not in self._slow

    def _alone(self) -> int:
        return sum(run.alone for run in self._runs)

    def _beside(self) -> int:
        return sum(not run.alone for run in self._runs)

    def _wait_while(self, which: Callable[[Run], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while any(which(run) for run in self.at_work()) and time.monotonic() < until:
            time.sleep(_LOOK_AT_OPENING_SECONDS)
