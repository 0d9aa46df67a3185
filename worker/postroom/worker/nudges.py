"""Nudges: Celery messages that say where work is, never what it is. One may be lost, doubled or late without harm."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol
from uuid import UUID

import redis
import structlog
from celery import Celery

from postroom.producer import names
from postroom.producer.broker import redis_client
from postroom.producer.nudge import Urgency, list_of, nudge

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
        """Nudge `drain` for one account."""
        self._publish(names.TASK_DRAIN, names.QUEUE_DRAIN, [str(account_id)])

    def release(self) -> None:
        """Nudge the chore `release`."""
        self._publish(names.TASK_RELEASE, names.QUEUE_CARE, [])

    def _publish(self, task: str, queue: str, arguments: list[Any], urgency: Urgency = Urgency.AT_ONCE) -> None:
        try:
            message = nudge(task, queue, arguments, origin="worker", urgency=urgency)
            self._redis.lpush(list_of(queue, urgency), message)
        except redis.RedisError as error:  # no work may fail because it could not be announced
            log.warning("a nudge was not published", task=task, error=type(error).__name__)

    @cached_property
    def _redis(self) -> redis.Redis:
        return redis_client(str(self._app.conf.broker_url))
