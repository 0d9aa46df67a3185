"""Starts Redis, the worker and the site."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from bench import scratch, stores
from bench.child import Children
from bench.rivals import surroundings
from bench.sink import Sink
from bench.system import System

NAME: Final = "BullMQ + Nodemailer"
PACKAGE: Final = Path(__file__).with_name("package.json")
_HERE: Final = PACKAGE.parent


@contextmanager
def started(folder: Path, to: Sink, *, connections: int, sending: bool = True) -> Iterator[System]:
    """Start it.

    Args:
        folder: for its files; it is made.
        to: where it sends.
        connections: of Nodemailer's pool.
        sending: whether its worker runs.
    """
    folder.mkdir(mode=0o700, parents=True)
    with stores.redis(folder) as store:
        environment = surroundings.environment(to, folder) | {
            "NODE_PATH": str(scratch.node_modules(PACKAGE)),
            "REDIS_SOCKET": str(store.socket),
            "CONNECTIONS": str(connections),
        }
        with Children(folder, environment) as children, redis.Redis(unix_socket_path=str(store.socket)) as client:
            if sending:
                children.start("worker", "node", _HERE / "worker.js")
            producer = children.start_producer("node", _HERE / "producer.js")

            def all_recorded(count: int) -> bool:
                return bool(client.execute_command("ZCARD", "bull:mail:completed") >= count)

            yield System(NAME, producer, {"redis": store.pid, **children.pids}, all_recorded, folder)
