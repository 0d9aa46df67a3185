"""Nudges: Celery messages that say where work is, never what it is. One may be lost, doubled or late without harm."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final, Protocol
from uuid import UUID

import redis
import structlog
from celery import Celery

from postroom.producer import names
from postroom.producer.broker import redis_client
from postroom.producer.nudge import Urgency, list_of, nudge

_WAITS: Final = "postroom:nudged:"
"""With an account's id: a nudge for its lane waits to be read."""
_WAITS_MILLISECONDS: Final = 2000
"""If it was lost, so long until the next may come."""
_NUDGE_ONCE: Final = """
if redis.call("SET", KEYS[2], "", "NX", "PX", ARGV[2]) then
    redis.call("LPUSH", KEYS[1], ARGV[1])
end
"""

log = structlog.get_logger(__name__)


class Nudges(Protocol):
    """Says where work is."""

    def accept(self, fields: Sequence[str]) -> None:
        """There are jobs in the inbox under these fields."""

    def drain(self, account_id: UUID) -> None:
        """There is mail in this account's lane."""

    def release(self) -> None:
        """There may be more mail that has to be chosen for anew."""


class CeleryNudges:
    """Nudges over Celery's queues. One that cannot be published is passed over: a chore finds the work."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def accept(self, fields: Sequence[str]) -> None:
        """Nudge `accept`, 100 fields a message, after what comes in now."""
        for start in range(0, len(fields), 100):
            self._publish(names.TASK_ACCEPT, names.QUEUE_ACCEPT, [list(fields[start : start + 100]), []], Urgency.SOON)

    def drain(self, account_id: UUID) -> None:
        """Nudge `drain` for one account, if no such nudge waits: many would keep those of other accounts waiting."""
        message = nudge(names.TASK_DRAIN, names.QUEUE_DRAIN, [str(account_id)], origin="worker")
        keys = list_of(names.QUEUE_DRAIN, Urgency.AT_ONCE), f"{_WAITS}{account_id}"
        with _passed_over(names.TASK_DRAIN):
            self._redis.eval(_NUDGE_ONCE, len(keys), *keys, message, _WAITS_MILLISECONDS)

    def drain_begins(self, account_id: UUID) -> None:
        """One that waited was read, and its task looks at the lane after this: later mail needs another."""
        with _passed_over(names.TASK_DRAIN):
            self._redis.delete(f"{_WAITS}{account_id}")

    def release(self) -> None:
        """Nudge the chore `release`."""
        self._publish(names.TASK_RELEASE, names.QUEUE_CARE, [])

    def _publish(self, task: str, queue: str, arguments: list[Any], urgency: Urgency = Urgency.AT_ONCE) -> None:
        message = nudge(task, queue, arguments, origin="worker", urgency=urgency)
        with _passed_over(task):
            self._redis.lpush(list_of(queue, urgency), message)

    @cached_property
    def _redis(self) -> redis.Redis:
        return redis_client(str(self._app.conf.broker_url))


@contextmanager
def _passed_over(task: str) -> Iterator[None]:
    """No work may fail because it could not be announced."""
    try:
        yield
    except redis.RedisError as error:
        log.warning("a nudge was not published", task=task, error=type(error).__name__)
