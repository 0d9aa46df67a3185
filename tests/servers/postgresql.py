"""A PostgreSQL of a test's own, on a Unix socket in a short scratch folder. It runs as `postgres` where we are root.
Where it is not installed, tests skip.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

_START_SECONDS = 30.0
_STOP_SECONDS = 30
_USER = "postgres"
_MISSING = "PostgreSQL is not installed (apt install postgresql)"


def find_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: on the PATH, else where Debian keeps its newest; None where none is."""
    on_path = [Path(found).resolve().parent] if (found := shutil.which("initdb")) else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin_dir: int(bin_dir.parent.name))
    return next((each for each in [*on_path, *reversed(debian)] if (each / "postgres").exists()), None)


class PostgresqlServer:
    """The server, as a context manager. Options are given as ``max_connections="20"``.

    Args:
        durable: whether what is committed survives `kill`, as it must outside of tests; slower.
    """

    def __init__(self, *, durable: bool = False, **options: str) -> None:
        fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        small = {"max_connections": "300", "shared_buffers": "32MB", "autovacuum": "off", "log_min_messages": "fatal"}
        self._options = {**small, **({} if durable else fast), **options}
        self.folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = _USER) -> str:
        """SQLAlchemy URL of one of its databases, for a superuser."""
        return f"postgresql+psycopg://{_USER}@/{database}?host={self.folder}"

    def run(self, statement: str, database: str = _USER) -> list[tuple[Any, ...]]:
        """Run one statement, or several, outside of a transaction; gives the rows of the first."""
        with self._connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def end_connections(self, database: str) -> int:
        """Close all connections to a database, as an administrator or a failover does; gives how many they were."""
        with self._connect(_USER) as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            return len(connection.execute(query, [database]).fetchall())

    def _connect(self, database: str) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(host=str(self.folder), user=_USER, dbname=database, autocommit=True)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self.begin_start()
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.run("SELECT 1")
            except psycopg.OperationalError:
                assert self._process is not None
                if self._process.poll() is not None:  # what a killed one left behind is still going away
                    self.begin_start()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def begin_start(self) -> None:
        """Start it without waiting: at first it says that it is starting up."""
        options = {"listen_addresses": "", "unix_socket_directories": str(self.folder), **self._options}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self._process = self._spawn("postgres", "-D", str(self.folder / "data"), *settings)

    def stop(self) -> None:
        """Stop it as `systemctl stop` would: connections are closed, what runs is rolled back."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """SIGKILL of the postmaster; its children see that and go."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def _spawn(self, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
        programs = find_programs()
        assert programs is not None, _MISSING
        root = os.geteuid() == 0
        return subprocess.Popen(
            [str(programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            user=_USER if root else None,
            group=_USER if root else None,
            extra_groups=[] if root else None,
        )

    def __enter__(self) -> Self:
        if find_programs() is None:
            assert os.environ.get("CI") != "true", _MISSING
            pytest.skip(_MISSING)
        self.folder = Path(tempfile.mkdtemp(prefix="postroom-pg-", dir="/tmp"))
        if os.geteuid() == 0:
            shutil.chown(self.folder, _USER, _USER)
        made = ("--username", _USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
        assert self._spawn("initdb", "-D", str(self.folder / "data"), *made).wait() == 0
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder)
