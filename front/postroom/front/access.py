"""What a program of the front holds to reach the ledger and the workers. Each part is made when it is first needed, and
what only that part needs is imported then: a command that reads the ledger waits neither for Celery nor for keys.
"""
# ruff: noqa: PLC0415

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError

from postroom.config.database import Database, is_of_newer_release, newest_revision
from postroom.config.settings import Settings
from postroom.producer.errors import PostroomError, Refused

if TYPE_CHECKING:
    import redis

    from postroom.front.nudges import Nudges
    from postroom.producer.sealing import PublicKey

_HOW_TO_MIGRATE: Final = "`postroom up` or `postroom migrate` makes it ready"


class Access:
    """The ledger's database, Redis, the workers and the public key. The private ring is out of reach here."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def nudges(self) -> "Nudges":
        """What is said to workers."""
        from postroom.front.nudges import Nudges

        return Nudges(self.settings.broker)

    @cached_property
    def redis(self) -> "redis.Redis":
        """The Redis of inbox, nudges and proofs."""
        from postroom.producer.broker import redis_client

        return redis_client(self.settings.broker)

    @cached_property
    def public_key(self) -> "PublicKey":
        """The key that seals passwords and candidates.

        Raises:
            KeyUnusable: it is missing or malformed.
        """
        from postroom.config import vault

        return vault.public_key(self.settings)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            Refused: the database is not there, or has another release's schema.
        """
        with self._said_clearly(), self._database.read() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: durable when the block ends, rolled back when it raises.

        Raises:
            Refused: the database is not there, or has another release's schema.
        """
        with self._said_clearly(), self._database.write() as connection:
            yield connection

    def close(self) -> None:
        """Close what was opened."""
        for name in ("nudges", "redis", "_database"):
            if name in self.__dict__:
                self.__dict__.pop(name).close()

    @cached_property
    def _database(self) -> Database:
        url = make_url(self.settings.database)
        if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).is_file():
            # Connecting would make an empty one, and hide a wrong POSTROOM_DATA_DIR.
            raise Refused(f"there is no database at {url.database}; {_HOW_TO_MIGRATE}")
        return Database(self.settings.database, connections=2)

    @contextmanager
    def _said_clearly(self) -> Iterator[None]:
        """Find out why the database failed only once it has: looking first would cost every command its time."""
        try:
            yield
        except DBAPIError as error:
            raise Refused(self._what_is_wrong(error)) from None
        except PostroomError:
            raise
        except OSError as error:  # the lock file beside SQLite's
            raise Refused(f"the database cannot be written: {error.filename}: {error.strerror}") from None

    def _what_is_wrong(self, error: DBAPIError) -> str:
        said = str(error.orig).strip().partition("\n")[0]
        try:
            with self._database.read() as connection:
                revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        except DBAPIError as again:
            if again.connection_invalidated or "alembic_version" not in str(again.orig):
                return f"the database (POSTROOM_DATABASE_URL) cannot be used: {said}"
            return f"the database is empty; {_HOW_TO_MIGRATE}"
        if revision is not None and is_of_newer_release(self.settings.database, revision):
            return f"the database is of a newer release (revision {revision}); install that release"
        if revision != newest_revision(self.settings.database):
            return f"the database has an older release's schema ({revision}); {_HOW_TO_MIGRATE}"
        return f"the database refused: {said}"
