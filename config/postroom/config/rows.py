"""Many rows as parameters of one statement: its text is the same for any number of them, so it is compiled once, and
the database plans and runs it once.

PostgreSQL takes each column as an array; SQLite takes all rows as one JSON text.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import Connection, FromClause, bindparam, column, func, literal_column, select, type_coerce
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import TypeEngine

S = TypeVar("S")

_AS_JSON: Final = "rows_as_json"


class Rows:
    """The shape of rows that a statement is given.

    Args:
        columns: name → type, in the order in which rows hold their values: numbers, truth values, text and UUIDs.
    """

    def __init__(self, **columns: type[TypeEngine[Any]]) -> None:
        self._columns = columns

    def statement(self, build: Callable[[FromClause], S]) -> dict[str, S]:
        """A statement over such rows for each kind of database, by the name of its dialect."""
        return {"sqlite": build(self._from_json()), "postgresql": build(self._from_arrays())}

    def parameters(self, connection: Connection, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The parameters that give a statement these rows."""
        if connection.dialect.name == "sqlite":
            return {_AS_JSON: json.dumps(rows, default=_uuid)}
        return {name: list(values) for name, values in zip(self._columns, zip(*rows, strict=True), strict=True)}

    def _from_json(self) -> FromClause:
        each = func.json_each(bindparam(_AS_JSON)).table_valued("value")
        values = (
            type_coerce(func.json_extract(each.c.value, literal_column(f"'$[{place}]'")), kind).label(name)
            for place, (name, kind) in enumerate(self._columns.items())
        )
        return select(*values).select_from(each).subquery("given")

    def _from_arrays(self) -> FromClause:
        arrays = (bindparam(name, type_=ARRAY(kind)) for name, kind in self._columns.items())
        columns = (column(name, kind) for name, kind in self._columns.items())
        return func.unnest(*arrays).table_valued(*columns, name="given").render_derived()


def _uuid(value: UUID) -> str:
    return value.hex
