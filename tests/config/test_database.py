"""Writers take turns, readers wait for nobody, and time is the database's."""

import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text

from postroom.config.database import Database, later, now
from servers.databases import on_sqlite


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    database = Database(database_url)
    yield database
    database.close()


@on_sqlite
def test_what_is_committed_is_durable(database: Database) -> None:
    with database.read() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2


def test_the_clock_and_its_sums(database: Database) -> None:
    with database.read() as connection:
        clock, soon, moved = connection.execute(select(now(), now(90), later(now(), now(-60)))).one()
    assert abs(datetime.now(UTC) - clock) < timedelta(seconds=5)
    assert timedelta(seconds=89) < soon - clock < timedelta(seconds=91)
    assert timedelta(seconds=59) < moved - clock < timedelta(seconds=61)


@on_sqlite
def test_writers_of_one_and_of_several_processes_take_turns(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("CREATE TABLE counter (n INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))
    others = [database, Database(database.url), Database(database.url)]  # a lock of its own, as another process has

    def count(mine: Database) -> None:
        for _ in range(20):
            with mine.write() as connection:
                found = connection.execute(text("SELECT n FROM counter")).scalar_one()
                connection.execute(text("UPDATE counter SET n = :n"), {"n": found + 1})

    threads = [threading.Thread(target=count, args=[each]) for each in others * 2]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    with database.read() as connection:
        assert connection.execute(text("SELECT n FROM counter")).scalar_one() == 120
    for other in others:
        other.close()


def test_a_reader_does_not_wait_for_a_writer(database: Database) -> None:
    with database.write() as writing, database.read() as reading:
        writing.execute(text("DELETE FROM senders"))
        assert reading.execute(text("SELECT count(*) FROM senders")).scalar_one() == 0


def test_memory_is_no_ledger() -> None:
    with pytest.raises(ValueError, match="POSTROOM_DATABASE_URL"):
        Database("sqlite://")


def test_a_connection_in_use_when_all_are_closed_is_closed_when_it_is_given_back(database_url: str) -> None:
    database = Database(database_url)
    with database.read() as connection:
        connection.execute(select(now()))
        used = connection.connection.driver_connection
        database.close()
        assert connection.execute(select(now())).scalar() is not None
    if isinstance(used, sqlite3.Connection):
        with pytest.raises(sqlite3.ProgrammingError):
            used.execute("SELECT 1")
    else:
        assert used is not None
        assert used.closed
