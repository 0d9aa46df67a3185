"""What the front says to workers: Celery messages with ids in them and nothing else. Waits a bounded time."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import kombu.exceptions
import redis
from celery import Celery

from postroom.producer import names
from postroom.producer.broker import celery_url
from postroom.producer.errors import BrokerUnavailable

_WAIT_SECONDS: Final = 5


@contextmanager
def broker_answers() -> Iterator[None]:
    """Turn every way in which Redis can fail the block into one error.

    Raises:
        BrokerUnavailable: Redis did not answer, or refused.
    """
    try:
        yield
    except (redis.RedisError, kombu.exceptions.OperationalError) as error:
        raise BrokerUnavailable(
            f"Redis cannot be used ({error}); `postroom up` starts one, and POSTROOM_BROKER_URL says where another is"
        ) from None


class Nudges:
    """Says where work is. All but `ask` may fail without harm: a chore finds the work."""

    def __init__(self, broker_url: str) -> None:
        self._broker_url = broker_url

    def ask(self, task: str, queue: str, arguments: list[Any], *, expires_seconds: float | None = None) -> None:
        """Send one task.

        Raises:
            BrokerUnavailable: Redis did not answer.
        """
        with broker_answers():
            self._app.send_task(
                task, args=arguments, queue=queue, expires=expires_seconds, ignore_result=True, retry=False
            )

    def drain(self, account_ids: Iterable[UUID]) -> None:
        """There is mail in these accounts' lanes."""
        for account_id in account_ids:
            with suppress(BrokerUnavailable):
                self.ask(names.TASK_DRAIN, names.QUEUE_DRAIN, [str(account_id)])

    def accept(self, field: str) -> None:
        """There is a job in the inbox under this field."""
        with suppress(BrokerUnavailable):
            self.ask(names.TASK_ACCEPT, names.QUEUE_ACCEPT, [[field], []])

    def release(self) -> None:
        """Held mail may be able to leave now."""
        with suppress(BrokerUnavailable):
            self.ask(names.TASK_RELEASE, names.QUEUE_CARE, [])

    def close(self) -> None:
        """Close the connections."""
        if "_app" in self.__dict__:
            self._app.close()

    @cached_property
    def _app(self) -> Celery:
        app = Celery("postroom.front", set_as_current=False)
        # unlike broker_url, these are not overridden by CELERY_BROKER_URL in the environment
        app.conf.broker_read_url = app.conf.broker_write_url = celery_url(self._broker_url)
        app.conf.broker_connection_timeout = _WAIT_SECONDS
        app.conf.broker_transport_options = {
            "socket_timeout": _WAIT_SECONDS,
            "socket_connect_timeout": _WAIT_SECONDS,
            "max_retries": 0,
        }
        return app
