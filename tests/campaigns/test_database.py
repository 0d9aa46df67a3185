"""The database fails in the middle: the connection breaks inside a COMMIT, another program locks the file, the disk is
full. Every process goes on by itself, and each commit that got no answer is asked about before it is done again.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import make_url

from campaigns.going_on import CONNECTIONS, goes_on_after
from campaigns.house import House
from long_form import LONG
from servers.command import wait_until
from servers.databases import Databases
from servers.link import CommitLink
from servers.redis_server import RedisServer
from servers.small_disk import small_disk

pytestmark = pytest.mark.timeout(1200 if LONG else 120)

MAILS = 1000 if LONG else 60
CUTS = 50 if LONG else 8
LOCKED_SECONDS = 45 if LONG else 2
FULL_SECONDS = 20 if LONG else 2


@pytest.mark.parametrize("moment", ["before", "after"] if LONG else ["after"])
def test_the_connection_breaks_inside_a_commit(
    databases: Databases, tmp_path: Path, moment: Literal["before", "after"]
) -> None:
    with (
        databases.migrated("postgresql", tmp_path) as url,
        CommitLink(databases.server.folder / ".s.PGSQL.5432") as link,
        RedisServer() as redis_server,
        House(tmp_path, url, redis_server) as house,
    ):
        through = make_url(url).set(host="127.0.0.1", port=link.port, query={"sslmode": "disable"})
        settings = house.settings.model_copy(update={"database_url": through.render_as_string(hide_password=False)})
        house.start("care")
        house.open_books(connections=CONNECTIONS)
        for kind in ("accept", "drain"):
            house.start(kind, settings=settings)
        house.enqueue(1)
        house.wait_arrived(1)
        link.cut_commits(moment, every=5, times=CUTS)
        with house.load(MAILS - 1):
            pass
        house.settle()
        books = house.books()
        print(f"{link.cuts} cuts {moment} it was executed; {books}")
        assert link.cuts == CUTS
        assert books.balance, books
        assert (books.sent, books.doubled_announced) == (MAILS, 0)
        assert not any(house.ended(kind) for kind in ("accept", "drain")), "nobody had to start them again"


@contextmanager
def sqlite_house(databases: Databases, folder: Path, disk: Path) -> Iterator[House]:
    """A house at work whose database lies on a disk of its own."""
    with (
        databases.migrated("sqlite", disk) as url,
        RedisServer() as redis_server,
        House(folder, url, redis_server) as house,
    ):
        for kind in ("accept", "care", "drain"):
            house.start(kind)
        yield house


_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print(flush=True)
sys.stdin.read()
"""


def test_sqlite_is_locked_by_another_program(databases: Databases, tmp_path: Path) -> None:
    """One that knows nothing of our file lock; in the long form for longer than we wait for it (30 s)."""
    path = tmp_path / "postroom.db"

    def locked(house: House) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", _LOCK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other_program:
            assert other_program.stdout is not None
            assert other_program.stdout.readline() == b"\n"
            house.enqueue(MAILS // 4)
            time.sleep(LOCKED_SECONDS)
            other_program.communicate()

    with sqlite_house(databases, tmp_path, tmp_path) as house:
        goes_on_after(house, MAILS, locked, "locked")


def test_the_disk_is_full_for_a_while(databases: Databases, tmp_path: Path) -> None:
    size_megabytes = 64 if LONG else 8  # room for all in the end, the log and what is rewritten too
    disks = small_disk(tmp_path / "disk", megabytes=size_megabytes)
    with disks as disk, sqlite_house(databases, tmp_path, disk.path) as house:

        def full(house: House) -> None:
            disk.fill()
            house.enqueue(MAILS // 4, text="x" * 20_000)
            wait_until(lambda: "the database cannot be" in house.log)
            time.sleep(FULL_SECONDS)
            disk.make_room()

        goes_on_after(house, MAILS, full, "full")
