"""Redis or the database away, in the log: a line, said again at growing pauses, where each try would be a traceback."""

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import kombu.exceptions
import redis
import structlog

_FIRST_PAUSE_SECONDS: Final = 30.0
_LONGEST_PAUSE_SECONDS: Final = 600.0
_LIBRARIES: Final = ("celery", "kombu")
_CONNECTED: Final = "celery.worker.consumer.connection"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Outage:
    """One kind of trouble that is going on."""

    began_at: float
    told_at: float
    pause_seconds: float = _FIRST_PAUSE_SECONDS

    def is_to_be_told(self, now: float) -> bool:
        """Whether it is time to say it, for the first time or again."""
        if now == self.told_at:
            return True
        if now < self.told_at + self.pause_seconds:
            return False
        self.told_at = now
        self.pause_seconds = min(self.pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
        return True


class DatabaseOutage:
    """Tells of tasks that end since the database is away. What they were about is found by a later task.

    It is back when a task ends well that had failed: one that only reads may do so all the time the disk is full.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._going_on: _Outage | None = None
        self._failed: set[str] = set()

    def note(self, task: str, error: Exception) -> None:
        """A task ended by it."""
        with self._guard:
            now = time.monotonic()
            outage = self._going_on = self._going_on or _Outage(now, now)
            self._failed.add(task)
            if not outage.is_to_be_told(now):
                return
        log.warning(
            "the database cannot be used; `postroom doctor` tells why. It is tried again",
            error=type(error).__name__,
            since_seconds=round(now - outage.began_at),
        )

    def over(self, task: str) -> None:
        """A task ended well."""
        if task not in self._failed:
            return
        with self._guard:
            outage, self._going_on = self._going_on, None
            self._failed.clear()
        if outage is not None:
            log.info("the database is back", after_seconds=round(time.monotonic() - outage.began_at))


class Outages(logging.Filter):
    """Shortens what Celery and kombu say about a Redis that cannot be used. Lets all else through as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._going_on: dict[str, _Outage] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written; one about an outage is made one line."""
        if not record.name.startswith(_LIBRARIES):
            return True
        if record.name == _CONNECTED and self._going_on:
            began_at = min(outage.began_at for outage in self._going_on.values())
            self._going_on.clear()
            _say(record, f"Redis is back after {time.monotonic() - began_at:.0f} s")
            return True
        trouble = next((each for error in _errors(record) for each in _chain(error) if _is_of_redis(each)), None)
        if trouble is None:
            return True
        kind = type(trouble).__name__
        first = kind not in self._going_on
        told = self._tell(kind) or record.levelno >= logging.CRITICAL
        again = "" if first else "still "
        _say(record, f"Redis {again}cannot be used ({kind}); `postroom doctor` tells why. It is tried again")
        return told

    def _tell(self, kind: str) -> bool:
        now = time.monotonic()
        return self._going_on.setdefault(kind, _Outage(now, now)).is_to_be_told(now)


def _errors(record: logging.LogRecord) -> Iterator[BaseException]:
    if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
        yield record.exc_info[1]
    if isinstance(record.args, tuple):
        yield from (each for each in record.args if isinstance(each, BaseException))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, the first cause first."""
    if error is not None:
        yield from _chain(error.__cause__ or error.__context__)
        yield error


def _is_of_redis(error: BaseException) -> bool:
    """Whether it says what Redis has; that a transaction was given up is not why."""
    ours = isinstance(error, redis.RedisError | kombu.exceptions.OperationalError)
    return ours and not isinstance(error, redis.exceptions.ExecAbortError)


def _say(record: logging.LogRecord, text: str) -> None:
    record.msg, record.args = text, ()
    record.exc_info = record.exc_text = record.stack_info = None
