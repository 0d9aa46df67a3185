"""Starts Redis, a worker with a process for each connection, and the site."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from bench import scratch, stores
from bench.child import Children
from bench.rivals import surroundings
from bench.sink import Sink
from bench.system import System

NAME: Final = "Celery task + smtplib"
_TASKS: Final = "bench.rivals.naive_celery.tasks"
_QUIET: Final = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "warning")


@contextmanager
def started(folder: Path, to: Sink, *, connections: int, sending: bool = True) -> Iterator[System]:
    """Start it.

    Args:
        folder: for its files; it is made.
        to: where it sends.
        connections: how many processes send.
        sending: whether its worker runs.
    """
    folder.mkdir(mode=0o700, parents=True)
    python = scratch.python()
    with stores.redis(folder) as store:
        environment = surroundings.environment(to, folder) | {"BROKER_URL": store.url}
        with Children(folder, environment) as children, redis.Redis(unix_socket_path=str(store.socket)) as client:
            if sending:
                many = ("--concurrency", str(connections))
                children.start("worker", python, "-m", "celery", "-A", _TASKS, "worker", *many, *_QUIET)
            producer = children.start_producer(python, "-m", "bench.rivals.naive_celery.producer")

            def all_recorded(_count: int) -> bool:
                """It records nothing; what counts is that no task is left."""
                left: list[Any] = client.pipeline().llen("celery").hlen("unacked").execute()
                return not any(left)

            yield System(NAME, producer, {"redis": store.pid, **children.pids}, all_recorded, folder)
