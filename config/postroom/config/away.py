"""Whether the database is away: gone, starting, full, locked, read-only. What was asked may well succeed later."""

import sqlite3
from typing import Final

from sqlalchemy import ExceptionContext, exc

_READ_ONLY: Final = "25006"
_TOOK_TOO_LONG: Final = "25P03"
_AWAY_SQLSTATES: Final = (
    "08",  # connection exceptions
    _READ_ONLY,  # a standby
    _TOOK_TOO_LONG,  # this process stood still within a transaction, and the server ended it
    "40",  # rolled back in favour of another transaction: serialisation failures, deadlocks
    "53",  # insufficient resources: disk full, too many connections, out of memory
    "55P03",  # a lock was not to be had in time
    "57",  # shut down, starting up, cancelled by an administrator or a time limit
    "58",  # the server's own disk or files
)
"""Classes and codes of https://www.postgresql.org/docs/15/errcodes-appendix.html."""

_AWAY_SQLITE_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def is_away(error: BaseException) -> bool:
    """Whether the database, and not the statement, is the trouble."""
    if isinstance(error, exc.TimeoutError | OSError):  # no connection came free; SQLite's lock file
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    sqlstate: str | None = getattr(error.orig, "sqlstate", None)
    if sqlstate is not None:
        return sqlstate.startswith(_AWAY_SQLSTATES)
    sqlite_code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return sqlite_code & 0xFF in _AWAY_SQLITE_CODES  # extended codes keep the plain one in their last byte
    return isinstance(error, exc.OperationalError | exc.InterfaceError)


def leave_connection(context: ExceptionContext) -> None:
    """A listener to SQLAlchemy's `handle_error`: a connection that the server has ended is made anew; so are one that
    leads to what is a standby since a failover, and its like.
    """
    if getattr(context.original_exception, "sqlstate", None) in {_READ_ONLY, _TOOK_TOO_LONG}:
        context.is_disconnect = True
