"""The Celery app as everyone needs it who sends or watches messages: Redis, the queues, and the names of chores.

It knows no task and so needs no database: the scheduler, Flower and the doctor get by with it.
"""

import os
from typing import Any, Final, Literal

from celery import Celery

from postroom.config.settings import Settings
from postroom.producer import names
from postroom.producer.broker import celery_url

Kind = Literal["accept", "drain", "care"]

QUEUES: Final[dict[Kind, str]] = {
    "accept": names.QUEUE_ACCEPT,
    "drain": names.QUEUE_DRAIN,
    "care": names.QUEUE_CARE,
}

CHORE_PERIODS_SECONDS: Final = {
    "strays": 10.0,
    "leases": 5.0,
    "due": 1.0,
    "release": 2.0,
    "probe": 5.0,
    "expire": 30.0,
    "erase": 60.0,
    "prune": 300.0,
}

ROUND: Final = "round"
"""Name of the chore that does others: all that are due at once come as one message."""

LAST_RUN_KEPT_SECONDS: Final = 30 * 86_400

RING_KEY: Final = "postroom:ring"
"""Redis key of the ids of the keys in the private ring, as the worker that started last told them."""

_SOFT_STOP_SECONDS: Final = 10


def chore_task(name: str) -> str:
    """The task name of a chore."""
    return f"postroom.chore.{name}"


def last_run_key(chore: str) -> str:
    """Redis key that lives for LAST_RUN_KEPT_SECONDS from when a chore last ended: Redis alone tells how long ago."""
    return f"postroom:chore:{chore}:at"


def make_celery(settings: Settings) -> Celery:
    """The Celery app for these settings, without tasks. Nothing is connected to yet."""
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        os.environ.pop(name, None)  # another Celery's, and it would go before what is set here
    app = Celery("postroom", set_as_current=True)
    app.conf.update(_configuration(settings))
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": celery_url(settings.broker),
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_create_missing_queues": True,
        "task_default_queue": names.QUEUE_CARE,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        "worker_soft_shutdown_timeout": _SOFT_STOP_SECONDS,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 32,
        "broker_transport_options": {
            "max_connections": settings.drain_threads + 64,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "health_check_interval": 25,
        },
        "timezone": "UTC",
    }
