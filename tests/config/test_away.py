"""Which errors mean that the database is away, so that the same may succeed later, and which that it never will."""

import select
import sqlite3
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, event, exc, make_url, text

from postroom.config.away import is_away
from postroom.config.database import Database
from servers.command import wait_until
from servers.databases import Databases, on_postgresql, on_sqlite

ON_POSTGRESQL = {
    "08006": True,  # connection failure
    "25006": True,  # read-only: a standby after a failover
    "25P03": True,  # idle for too long within a transaction
    "40001": True,  # could not serialise
    "40P01": True,  # deadlock
    "53100": True,  # disk full
    "53300": True,  # too many connections
    "55P03": True,  # lock not available
    "57014": True,  # cancelled
    "57P01": True,  # administrator's shutdown
    "57P02": True,  # crash of another connection
    "57P03": True,  # starting up
    "58030": True,  # input or output error
    "22001": False,  # too long for its column
    "23505": False,  # not unique
    "42501": False,  # no privilege
    "42P01": False,  # no such table
    "54000": False,  # too large for an index
}


@pytest.mark.parametrize(("sqlstate", "away"), ON_POSTGRESQL.items())
def test_an_error_of_postgresql(sqlstate: str, away: bool) -> None:
    error = psycopg.errors.lookup(sqlstate)("words")
    wrapped = exc.DBAPIError.instance("UPDATE mails", {}, error, psycopg.Error)
    assert is_away(wrapped) is away


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (psycopg.OperationalError("connection refused"), True),  # none was made, so it has no code
        (exc.TimeoutError("no connection came free"), True),
        (OSError("No space left on device"), True),
        (ValueError("a moment needs an offset"), False),
    ],
    ids=str,
)
def test_an_error_without_a_code(error: Exception, away: bool) -> None:
    wrapped = exc.DBAPIError.instance("x", {}, error, psycopg.Error) if isinstance(error, psycopg.Error) else error
    assert isinstance(wrapped, Exception)
    assert is_away(wrapped) is away


@on_sqlite
def test_sqlite_locked_is_away_and_a_missing_table_is_not(database_url: str, data_dir: Path) -> None:
    database = Database(database_url)
    with database.read() as connection, pytest.raises(exc.OperationalError) as missing:
        connection.execute(text("SELECT * FROM nothing"))
    assert not is_away(missing.value)
    database.close()
    impatient = Database(f"{database_url}?timeout=0")
    other = sqlite3.connect(data_dir / "postroom.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # one that does not know of our file lock, such as a backup
    with pytest.raises(exc.OperationalError) as locked, impatient.write():
        pass
    other.close()
    impatient.close()
    assert is_away(locked.value)


@on_postgresql
def test_a_closed_connection_is_replaced_with_all_others_before_it_is_used(
    database_url: str, databases: Databases
) -> None:
    database = Database(database_url, connections=4)
    one, two, three = (database.engine.connect() for _ in range(3))
    one.execute(text("SELECT 1"))
    for idle in (two, three):
        idle.close()
    assert databases.server.end_connections(str(make_url(database_url).database)) == 3
    with pytest.raises(exc.OperationalError) as closed:  # the first words after it was closed
        one.execute(text("SELECT 1"))
    assert is_away(closed.value)
    one.close()
    for _ in range(4):
        with database.read() as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
    database.close()


@on_postgresql
def test_a_new_connection_that_is_ended_at_once_is_away(database_url: str, databases: Databases) -> None:
    """As while a server restarts: what was asked is asked again, and not given up as a wrong statement."""
    database = Database(database_url, connections=1)
    with database.read() as connection:
        connection.execute(text("SELECT 1"))
    name = str(make_url(database_url).database)
    databases.server.end_connections(name)

    @event.listens_for(database.engine, "connect")
    def end(connection: psycopg.Connection[object], _record: object) -> None:
        databases.server.end_connections(name)
        wait_until(lambda: select.select([connection], [], [], 0)[0])

    with pytest.raises(exc.SQLAlchemyError) as caught, database.read() as connection:
        connection.execute(text("SELECT 1"))
    assert is_away(caught.value)
    database.close()


@on_postgresql
def test_a_connection_to_a_standby_is_not_used_again(database_url: str) -> None:
    database = Database(database_url, connections=1)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
        connection.commit()
    with pytest.raises(exc.DBAPIError) as refused, database.write() as connection:
        connection.execute(text("DELETE FROM senders"))
    assert is_away(refused.value)
    with database.write() as connection:
        connection.execute(text("DELETE FROM senders"))
    database.close()


@on_postgresql
def test_who_is_suspended_within_a_transaction_lets_its_rows_go(database_url: str) -> None:
    database = Database(database_url, connections=2)
    with pytest.raises(exc.DBAPIError) as ended, database.write() as suspended:
        _stand_still(database, suspended)
    assert is_away(ended.value)
    for _ in range(2):
        with database.write() as connection:
            connection.execute(text("DELETE FROM senders"))
    database.close()


def _stand_still(database: Database, suspended: Connection) -> None:
    assert suspended.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "10s"
    suspended.execute(text("SET idle_in_transaction_session_timeout = '50ms'"))
    suspended.execute(text("LOCK TABLE senders"))
    wait_until(lambda: _is_free(database))
    suspended.execute(text("DELETE FROM senders"))


def _is_free(database: Database) -> bool:
    with suppress(exc.DBAPIError), database.write() as connection:
        connection.execute(text("LOCK TABLE senders NOWAIT"))
        return True
    return False
