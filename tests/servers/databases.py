"""Databases for tests: on SQLite and on PostgreSQL, empty or migrated.

Migrating one takes longer than most tests, and so does making one on PostgreSQL. So a migrated SQLite is copied, and a
PostgreSQL database is emptied after its test and used again, unless its schema was changed.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import psycopg
import pytest

from postroom.config.database import migrate
from postroom.config.tables import metadata
from servers.postgresql import PostgresqlServer

Kind = Literal["sqlite", "postgresql"]
KINDS: tuple[Kind, ...] = ("sqlite", "postgresql")

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For tests of what SQLite alone has: a file, a folder, a lock."""
on_postgresql = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
"""For tests of what PostgreSQL alone has: connections, and a server that can go away."""

_EMPTY = ";".join(str(table.delete()) for table in reversed(metadata.sorted_tables))
_SCHEMA = """
    SELECT string_agg(concat_ws(' ', attrelid::regclass, attnum, attname, atttypid, attnotnull), ',' ORDER BY 1)
      || (SELECT version_num FROM alembic_version)
      FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = 'public'::regnamespace
"""


class Databases:
    """Makes databases, and removes each after its use. All that are PostgreSQL's lie in one server, which is started
    for the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started = ExitStack()
        self._idle: list[str] = []

    @cached_property
    def server(self) -> PostgresqlServer:
        """The PostgreSQL that all share: not to be stopped by a test."""
        return self._started.enter_context(PostgresqlServer())

    def close(self) -> None:
        """End the server, if it was started."""
        self._started.close()

    @contextmanager
    def empty(self, kind: Kind, folder: Path) -> Iterator[str]:
        """The URL of an empty one; SQLite's is `postroom.db` in the folder, made when it is first opened."""
        if kind == "sqlite":
            yield f"sqlite:///{folder / 'postroom.db'}"
            return
        name = self._made("template0")
        yield self.server.url(name)
        self._drop(name)

    @contextmanager
    def migrated(self, kind: Kind, folder: Path) -> Iterator[str]:
        """The URL of one with the newest schema."""
        if kind == "sqlite":
            shutil.copy(self._migrated_file, folder / "postroom.db")
            yield f"sqlite:///{folder / 'postroom.db'}"
            return
        name = self._idle.pop() if self._idle else self._made(self._migrated_name)
        yield self.server.url(name)
        if self._emptied(name):
            self._idle.append(name)
        else:
            self._drop(name)

    def _made(self, template: str) -> str:
        name = f"postroom_{uuid4().hex}"
        self.server.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return name

    def _drop(self, name: str) -> None:
        self.server.run(f"DROP DATABASE {name} WITH (FORCE)")

    def _emptied(self, name: str) -> bool:
        """Close what the test left open and delete all rows; False where the schema is no longer what it was."""
        self.server.end_connections(name)
        try:
            self.server.run(_EMPTY, name)
            return self.server.run(_SCHEMA, name) == self._schema
        except psycopg.errors.UndefinedTable:
            return False

    @cached_property
    def _schema(self) -> list[tuple[Any, ...]]:
        return self.server.run(_SCHEMA, self._migrated_name)

    @cached_property
    def _migrated_file(self) -> Path:
        path = self._folder / "migrated.db"
        migrate(f"sqlite:///{path}")
        return path

    @cached_property
    def _migrated_name(self) -> str:
        self.server.run("CREATE DATABASE migrated")
        migrate(self.server.url("migrated"))
        return "migrated"
