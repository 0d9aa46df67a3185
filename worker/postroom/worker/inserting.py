"""Inserting many rows of a table in one go."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, FromClause, LargeBinary, String, Table, func, select
from sqlalchemy.dialects import postgresql, sqlite

from postroom.config.rows import Rows

_COUNTED: Final = {"preserve_rowcount": True}


def insert_new_rows(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows, all of the same columns, but those whose key is there already.

    On PostgreSQL they travel as one JSON text: not for rows that hold megabytes.

    Returns:
        How many were inserted.
    """
    if connection.dialect.name == "sqlite":
        return connection.execute(_one_by_one(table), rows, execution_options=_COUNTED).rowcount
    shape, statement = _all_at_once(table, tuple(rows[0]))
    given = shape.parameters([[_in_json(value) for value in row.values()] for row in rows])
    return connection.execute(statement, given, execution_options=_COUNTED).rowcount


@cache
def _one_by_one(table: Table) -> sqlite.Insert:
    return sqlite.insert(table).on_conflict_do_nothing()


@cache
def _all_at_once(table: Table, columns: tuple[str, ...]) -> tuple[Rows, postgresql.Insert]:
    is_binary = {name: isinstance(table.c[name].type, LargeBinary) for name in columns}
    shape = Rows(**{name: String if is_binary[name] else type(table.c[name].type) for name in columns})

    def build(given: FromClause) -> postgresql.Insert:
        values = (func.decode(given.c[name], "hex") if is_binary[name] else given.c[name] for name in columns)
        return postgresql.insert(table).from_select(columns, select(*values)).on_conflict_do_nothing()

    return shape, shape.statement(build)["postgresql"]


def _in_json(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else value
