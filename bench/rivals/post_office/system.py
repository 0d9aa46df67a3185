"""Starts PostgreSQL, the process that sends, and the site."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg

from bench import scratch, stores
from bench.child import Children
from bench.rivals import surroundings
from bench.sink import Sink
from bench.system import System

NAME: Final = "django-post_office"
_SENT: Final = "SELECT count(*) FROM post_office_email WHERE status = 0"


@contextmanager
def started(folder: Path, to: Sink, *, connections: int, sending: bool = True) -> Iterator[System]:
    """Start it.

    Args:
        folder: for its files; it is made.
        to: where it sends.
        connections: how many threads send.
        sending: whether it sends at all.
    """
    folder.mkdir(mode=0o700, parents=True)
    python = scratch.python()
    with stores.postgresql() as store:
        environment = surroundings.environment(to, folder) | {
            "DJANGO_SETTINGS_MODULE": "bench.rivals.post_office.settings",
            "POSTGRESQL_FOLDER": str(store.folder),
            "CONNECTIONS": str(connections),
            "TMPDIR": str(folder),  # where its lock lies
        }
        subprocess.run([python, "-m", "django", "migrate", "--verbosity", "0"], env=environment, check=True, cwd=folder)
        with (
            Children(folder, environment) as children,
            psycopg.connect(host=str(store.folder), user="postgres", autocommit=True) as connection,
        ):
            if sending:
                children.start("worker", python, "-m", "bench.rivals.post_office.sending")
            producer = children.start_producer(python, "-m", "bench.rivals.post_office.producer")

            def all_recorded(count: int) -> bool:
                row = connection.execute(_SENT).fetchone()
                return row is not None and row[0] >= count

            yield System(NAME, producer, {"database": store.pid, **children.pids}, all_recorded, folder)
