"""Nudges: Celery messages that say where work is, never what it is. One may be lost, doubled or late without harm."""

from collections.abc import Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import structlog
from celery import Celery

from postroom.producer import names

_ONCE_MORE: Final = {"max_retries": 1, "interval_start": 0}
"""A connection that lay idle while Redis was started again fails once."""

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
    """Nudges over Celery. One that cannot be published is passed over: a chore finds the work."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def accept(self, fields: Sequence[str]) -> None:
        """Nudge `accept`, 100 fields a message."""
        for start in range(0, len(fields), 100):
            self._publish(names.TASK_ACCEPT, names.QUEUE_ACCEPT, [list(fields[start : start + 100]), []])

    def drain(self, account_id: UUID) -> None:
        """Nudge `drain` for one account."""
        self._publish(names.TASK_DRAIN, names.QUEUE_DRAIN, [str(account_id)])

    def release(self) -> None:
        """Nudge the chore `release`."""
        self._publish(names.TASK_RELEASE, names.QUEUE_CARE, [])

    def _publish(self, task: str, queue: str, arguments: list[Any]) -> None:
        try:
            self._app.send_task(task, args=arguments, queue=queue, ignore_result=True, retry_policy=_ONCE_MORE)
        except Exception as error:  # noqa: BLE001 - no work may fail because it could not be announced
            log.warning("a nudge was not published", task=task, error=type(error).__name__)
