"""The database: one way to read, one way to write, and its own clock. SQLite embedded, PostgreSQL at scale.

Writers of several processes on SQLite queue on a file lock before ``BEGIN IMMEDIATE``: measured faster and far fairer
than SQLite's busy handler. Readers never take it (WAL).
"""

import fcntl
import os
import select
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Double,
    Engine,
    Table,
    cast,
    create_engine,
    event,
    exc,
    literal,
    make_url,
    types,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from postroom.config.away import leave_connection
from postroom.producer.errors import Refused, SettingsInvalid

if TYPE_CHECKING:
    import alembic.config
    import alembic.script

_WRITES: Final = "postroom_writes"
_NEW: Final = "postroom_new"
_BUSY_SECONDS: Final = 30
_FORGET_MILLISECONDS: Final = 500
_REWRITTEN_AT_ONCE_BYTES: Final = 100 * 1024 * 1024
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "temp_store=MEMORY",
    "secure_delete=ON",  # what is erased is overwritten; Debian's SQLite has it by itself, others have not
)

_CONNECTION: Final = {
    "client_encoding": "utf8",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""libpq's options: text is text whatever the server's encoding is, and no thread waits for a server that fell silent.
What the URL says goes before.
"""

_BOUNDED_SESSION: Final = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
}
"""The server's settings that end the transaction of a process that was suspended within it, or whose host is cut off:
its locks would keep mails from all others. Our transactions are never idle for longer than the machine stands still.
"""


_BY_INDEX_ALONE: Final = dict.fromkeys(
    ("enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"
)
"""The planner's settings that let it take no way but an index where there is one. Every statement of ours is made for
an index, but where much came in since the last ANALYZE, or the statement was planned while the ledger was empty, the
planner thinks that a scan is cheaper: with 16,000 mails waiting a claim took 12 ms instead of 1. What no index is made
for now looks so dear to it that it would compile it (`jit`), which takes longer than doing it.
"""


class Moment(types.TypeDecorator[datetime]):
    """A point in time, always UTC and aware in Python. Text of fixed width on SQLite, so that it compares as time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; SQLite stores UTC without an offset."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs an offset")
        return value.astimezone(UTC).replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Give SQLite's value its offset back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class now(FunctionElement[datetime]):  # noqa: N801 - an SQL function, spelled as one
    """The database's clock, plus some seconds: the only clock that leases and due times are compared with."""

    type = Moment()
    inherit_cache = True
    name = "postroom_now"

    def __init__(self, plus_seconds: Any = None) -> None:
        seconds = literal(float(plus_seconds)) if isinstance(plus_seconds, int | float) else plus_seconds
        super().__init__(*(() if seconds is None else (cast(seconds, Double),)))


@compiles(now, "sqlite")
def _now_on_sqlite(element: now, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    if not seconds:
        return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


@compiles(now, "postgresql")
def _now_on_postgresql(element: now, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    if not seconds:
        return "statement_timestamp()"
    return f"(statement_timestamp() + make_interval(secs => {seconds}))"


class later(FunctionElement[datetime]):  # noqa: N801 - an SQL function, spelled as one
    """A moment moved on by the time that has passed since another one."""

    type = Moment()
    inherit_cache = True
    name = "postroom_later"

    def __init__(self, moment: Any, since: Any) -> None:
        super().__init__(moment, since)


@compiles(later, "sqlite")
def _later_on_sqlite(element: later, compiler: Any, **options: Any) -> str:
    moment, since = (compiler.process(clause, **options) for clause in element.clauses)
    passed = f"((julianday('now') - julianday({since})) * 86400.0) || ' seconds'"
    return f"(strftime('%Y-%m-%d %H:%M:%f', {moment}, {passed}) || '000')"


@compiles(later, "postgresql")
def _later_on_postgresql(element: later, compiler: Any, **options: Any) -> str:
    moment, since = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({moment} + (statement_timestamp() - {since}))"


class _FileTurn:
    """One writer at a time over all processes that share a SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_turn = threading.Lock()
        self._descriptor: int | None = None
        self._pid = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._thread_turn:
            if self._descriptor is None or self._pid != os.getpid():
                self._descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
                self._pid = os.getpid()
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class _NoTurn:
    @contextmanager
    def __call__(self) -> Iterator[None]:
        yield


class Database:
    """Connections to the ledger's database.

    Args:
        url: SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://…``.
        connections: how many connections this process holds at most. Threads that find none free wait for one: what
            is done over one takes milliseconds.
    """

    def __init__(self, url: str, *, connections: int = 8) -> None:
        self.url = url
        parsed = make_url(url)
        if parsed.drivername == "postgres":
            parsed = parsed.set(drivername="postgresql")
        self._turn: _FileTurn | _NoTurn = _NoTurn()
        if parsed.get_backend_name() == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise SettingsInvalid("POSTROOM_DATABASE_URL: SQLite needs a file, since several processes share it")
            waits = {} if "timeout" in parsed.query else {"timeout": _BUSY_SECONDS}
            self.engine = create_engine(parsed, pool_size=connections, max_overflow=0, connect_args=waits)
            self._turn = _FileTurn(Path(f"{parsed.database}.write-lock"))
            _set_up_sqlite(self.engine)
        elif parsed.get_backend_name() != "postgresql":
            raise SettingsInvalid(
                f"POSTROOM_DATABASE_URL: must be sqlite:///… or postgresql://…, not {parsed.drivername}://…"
            )
        else:
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            ours = {name: value for name, value in _CONNECTION.items() if name not in parsed.query}
            self.engine = create_engine(parsed.update_query_dict(ours), pool_size=connections, max_overflow=0)
            event.listen(self.engine, "connect", _bound_session)
            event.listen(self.engine, "checkout", _refuse_ended)
            event.listen(self.engine, "handle_error", leave_connection)
        self._closed = False
        event.listen(self.engine, "checkin", self._given_back)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads; it waits for no writer."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: committed and durable when the block ends, rolled back when it raises."""
        with self._turn(), self.engine.connect() as connection:
            writing = connection.execution_options(**{_WRITES: True})
            with writing.begin():
                yield writing

    def forget(self, *, rewrite: bool = False) -> None:
        """Leave nothing of what was erased in SQLite's files, as far as it can be done at once.

        What is erased is overwritten in the file (`secure_delete`), but earlier pages lie in the log until it is used
        again: it is emptied, unless a reader is in the way for too long. Pages that were split may hold old copies of
        their rows in the room left free; only rewriting the file removes these. Writers wait for both.

        Args:
            rewrite: rewrite the file too, if it is not so large that writers would wait for many seconds.
        """
        if self.engine.dialect.name != "sqlite":
            return
        size_bytes = Path(str(self.engine.url.database)).stat().st_size
        with self._turn(), self.engine.connect() as connection:
            plain: Any = connection.connection.driver_connection
            plain.execute(f"PRAGMA busy_timeout={_FORGET_MILLISECONDS}")
            try:
                if rewrite and size_bytes <= _REWRITTEN_AT_ONCE_BYTES:
                    with suppress(sqlite3.OperationalError):  # no room for it, or a reader's lock
                        plain.execute("VACUUM")
                plain.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                plain.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000}")

    def close(self) -> None:
        """Close all connections; one that a thread still uses is closed when it is given back."""
        self._closed = True
        self.engine.dispose()

    def _given_back(self, _connection: Any, record: Any) -> None:
        if self._closed:
            record.close()


def _bound_session(connection: Any, record: Any) -> None:
    record.info[_NEW] = True
    connection.autocommit = True
    ours = (_BOUNDED_SESSION | _BY_INDEX_ALONE).items()
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in ours)
    connection.execute(f"SELECT {settings}")
    connection.autocommit = False


def _refuse_ended(connection: Any, record: Any, _proxy: Any) -> None:
    """Have a connection made anew that the server has ended: there is something to read from it. To ask the server each
    time, as `pool_pre_ping` does, costs as much as a statement. A new one is used as it is: where it has ended too,
    what is asked over it says so.
    """
    if record.info.pop(_NEW, False):
        return
    waits = select.poll()
    waits.register(connection.fileno(), select.POLLIN)
    if waits.poll(0):
        raise exc.DisconnectionError


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def insert_new(table: Table, connection: Connection) -> Any:
    """An INSERT that passes over rows whose key is there already; both databases spell it alike."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return insert(table).on_conflict_do_nothing()


def _alembic(url: str) -> "alembic.config.Config":
    import alembic.config  # noqa: PLC0415

    configuration = alembic.config.Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    configuration.attributes["url"] = url
    return configuration


def migrate(url: str) -> None:
    """Bring the database to the newest schema. Harmless when it is there already.

    Raises:
        Refused: it is of a newer release, or cannot hold every letter.
    """
    import alembic.command  # noqa: PLC0415 - workers need no Alembic
    from alembic.script.revision import ResolutionError  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    try:
        alembic.command.upgrade(_alembic(url), "head")
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise Refused(
            f"the database is of a newer release (revision {error.__cause__.argument}); "
            "install that release, or restore a backup"
        ) from None


def _scripts(url: str) -> "alembic.script.ScriptDirectory":
    import alembic.script  # noqa: PLC0415

    return alembic.script.ScriptDirectory.from_config(_alembic(url))


def newest_revision(url: str) -> str:
    """The revision that this release's code is written for."""
    head = _scripts(url).get_current_head()
    if head is None:
        raise RuntimeError("this release carries no migrations")
    return head


def is_of_newer_release(url: str, revision: str) -> bool:
    """Whether this release's code does not know a revision."""
    return revision not in {each.revision for each in _scripts(url).walk_revisions()}
