"""The writer: one thread a process that groups what all lanes write into few transactions.

A lane submits an operation and goes on; the future is done when the operation is *durable*. While the database is
away the writer keeps what it was given and tries again, so no outcome is forgotten while the process lives.
"""

import contextlib
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, exc

from postroom.config.away import is_away
from postroom.config.database import Database

T = TypeVar("T")
R = TypeVar("R")
Operation = Callable[[Connection, Sequence[T]], Sequence[R]]

_MOST_IN_A_GROUP = 200
_GATHERS_SECONDS = 0.002
"""To wait so long for a fuller group costs less than a group more: over 10 connections a third more mails a second."""
_SHORTEST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 2.0
_GIVES_UP_SECONDS = 1.5

log = structlog.get_logger(__name__)


class Writer:
    """Groups operations of many threads into transactions; each operation succeeds or fails on its own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: queue.SimpleQueue[tuple[Any, Any, Future[Any]] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, operation: Operation[T, R], item: T) -> Future[R]:
        """Ask for one operation. The future holds its result once it is durable; until its transaction has begun it
        can be cancelled, and then surely nothing of it is written.
        """
        future: Future[R] = Future()
        self._waiting.put((operation, item, future))
        return future

    def do(self, operation: Operation[T, R], item: T) -> R:
        """Submit one operation and wait until it is durable."""
        return self.submit(operation, item).result()

    def close(self) -> None:
        """Write what was submitted, then end the thread. Where the database is away, that is given up after a moment:
        a mail whose outcome is lost so has its mark, and becomes uncertain when its lease ends.
        """
        self._give_up_at = time.monotonic() + _GIVES_UP_SECONDS
        self._waiting.put(None)
        self._closing.set()
        self._thread.join(_GIVES_UP_SECONDS + _SHORTEST_PAUSE_SECONDS)

    def _run(self) -> None:
        ending = False
        group: list[Any] = []
        while not ending:
            group = self._gathered(len(group))
            ending = None in group
            asked = [each for each in group if each is not None and each[2].set_running_or_notify_cancel()]
            if asked:
                self._write(asked)

    def _gathered(self, before: int) -> list[Any]:
        """The next group. Where lanes wait together, those who are about to ask are waited for a moment."""
        group = [self._waiting.get()]
        until = time.monotonic() + (_GATHERS_SECONDS if before > 1 else 0)
        while len(group) < _MOST_IN_A_GROUP:
            try:
                group.append(self._waiting.get_nowait())
            except queue.Empty:
                left = until - time.monotonic()
                if left <= 0 or len(group) > before:
                    break
                with contextlib.suppress(queue.Empty):
                    group.append(self._waiting.get(timeout=left))
        return group

    def _write(self, asked: list[tuple[Any, Any, Future[Any]]]) -> None:
        try:
            results = self._commit(asked)
        except Exception as error:  # noqa: BLE001 - it reaches the caller through the future
            if len(asked) == 1:
                log.error("not written", operation=asked[0][0].__name__, error=type(error).__name__)  # noqa: TRY400
                asked[0][2].set_exception(error)
                return
            for each in asked:  # one of them is bad: find it, and let the others through
                self._write([each])
            return
        for (_, _, future), result in zip(asked, results, strict=True):
            future.set_result(result)

    def _commit(self, asked: list[tuple[Any, Any, Future[Any]]]) -> list[Any]:
        pause_seconds = _SHORTEST_PAUSE_SECONDS
        while True:
            try:
                with self._database.write() as connection:
                    return _apply(connection, asked)
            except (exc.SQLAlchemyError, OSError) as error:
                if not is_away(error) or time.monotonic() > self._give_up_at:
                    raise
                log.warning("the database cannot be written; trying again", error=type(error).__name__)
            if self._closing.is_set():
                time.sleep(_SHORTEST_PAUSE_SECONDS)
                continue
            self._closing.wait(pause_seconds)
            pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)


def _apply(connection: Connection, asked: list[tuple[Any, Any, Future[Any]]]) -> list[Any]:
    """Run each kind of operation once with all its items; results come in the order asked."""
    kinds: dict[Any, list[int]] = defaultdict(list)
    for at, (operation, _, _) in enumerate(asked):
        kinds[operation].append(at)
    results: list[Any] = [None] * len(asked)
    for operation, places in kinds.items():
        for at, result in zip(places, operation(connection, [asked[at][1] for at in places]), strict=True):
            results[at] = result
    return results
