"""The nudge: a Celery message that says where work is, never what it is (design §4).

It is put together and published by Celery's parts below `send_task`, because that takes in what belongs to the site
around it: the broker and result backend named in ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``, the ids and
stamps of the task that is running, and whatever the receivers of ``before_task_publish`` add, such as the user's name.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from celery import Celery

from postroom.producer import names
from postroom.producer.broker import MOST_CONNECTIONS, celery_url

_PERSISTENT: Final = 2


class Nudger:
    """Publishes nudges to the workers that accept.

    Args:
        broker_url: Redis.
        origin: who nudges; Flower shows it.
        timeout_seconds: how long connecting, and each reply, may take.

    Raises:
        SettingsInvalid: it is no Redis URL.
    """

    def __init__(self, broker_url: str, origin: str, *, timeout_seconds: float) -> None:
        self._origin = origin
        app = Celery("postroom.producer", loader="app", set_as_current=False)
        self._messages = app.amqp
        self._connections = app.connection_for_write(
            celery_url(broker_url),
            connect_timeout=timeout_seconds,
            transport_options={
                "socket_timeout": timeout_seconds,
                "socket_connect_timeout": timeout_seconds,
                "max_connections": MOST_CONNECTIONS,
                "max_retries": 0,
            },
        ).Pool(MOST_CONNECTIONS)

    def accept(self, fields: Sequence[str], templates: Sequence[dict[str, Any]]) -> None:
        """Say that jobs lie in the inbox.

        Args:
            fields: where; the inbox's fields.
            templates: what kinds of mail they are, for Flower's eyes: name, locale, version and meta of each.

        Raises:
            Exception: of kombu's, redis-py's or the system's kinds; it was not published.
        """
        message = self._messages.as_task_v2(
            str(uuid4()),
            names.TASK_ACCEPT,
            (fields, templates),
            {},
            argsrepr=repr((fields, templates)),
            kwargsrepr="{}",
            ignore_result=True,
            origin=self._origin,
        )
        with self._connections.acquire(block=True) as connection:
            connection.Producer().publish(
                message.body,
                routing_key=names.QUEUE_ACCEPT,
                exchange="",
                serializer="json",
                delivery_mode=_PERSISTENT,
                headers=message.headers,
                retry=False,
                **message.properties,
            )

    def close(self) -> None:
        """Close the connections."""
        self._connections.force_close_all()
