"""Redis and PostgreSQL, set so that what they took lasts: the same for all systems."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import child
from postroom.front import local_redis
from postroom.producer.names import local_redis_socket
from servers.postgresql import PostgresqlServer

_POSTGRESQL: Final = {"autovacuum": "on", "shared_buffers": "128MB", "max_connections": "100"}
"""PostgreSQL's own defaults, which the tests' servers depart from."""


@dataclass(frozen=True, slots=True)
class Redis:
    """A running Redis or Valkey: append-only file, written to disk every second, nothing evicted."""

    pid: int
    socket: Path

    @property
    def url(self) -> str:
        """Its URL, in kombu's spelling."""
        return f"redis+socket://{self.socket}"


@dataclass(frozen=True, slots=True)
class Postgresql:
    """A running PostgreSQL whose commits are durable."""

    pid: int
    url: str
    folder: Path


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """A Redis with its files in this folder, which `postroom up` would start so."""
    local_redis.prepare(folder)
    command = local_redis.command(local_redis.find_server(), folder)
    with child.started("redis", command, folder=folder) as process:
        yield Redis(process.pid, local_redis_socket(folder))


@contextmanager
def postgresql() -> Iterator[Postgresql]:
    """A PostgreSQL of its own."""
    with PostgresqlServer(durable=True, **_POSTGRESQL) as server:
        pid = int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
        yield Postgresql(pid, server.url(), server.folder)
