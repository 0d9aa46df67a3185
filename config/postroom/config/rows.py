"""Many rows as one parameter of a statement, whose text is the same for any number of them: it is compiled once, and
the database plans and runs it once. They travel as JSON, which both databases read.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    JSON,
    FromClause,
    Integer,
    String,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

S = TypeVar("S")


class Rows:
    """The shape of rows that a statement is given.

    Args:
        name: theirs within the statement, where it is given several kinds of rows.
        columns: name → type, in the order in which rows hold their values: numbers, truth values, text and UUIDs.
    """

    def __init__(self, name: str = "given", /, **columns: type[TypeEngine[Any]]) -> None:
        self._name = name
        self._columns = columns
        self._rows = bindparam(f"{name}_rows", type_=String)
        self._number = bindparam(f"{name}_number", type_=Integer)

    def statement(self, build: Callable[[FromClause], S]) -> dict[str, S]:
        """A statement over such rows for each kind of database, by the name of its dialect."""
        return {"sqlite": build(self._on_sqlite()), "postgresql": build(self.on_postgresql())}

    def parameters(self, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The parameters that give a statement these rows."""
        objects = [dict(zip(self._columns, row, strict=True)) for row in rows]
        text = json.dumps(objects, default=_uuid, ensure_ascii=False)
        return {self._rows.key: text, self._number.key: len(objects)}

    def _on_sqlite(self) -> FromClause:
        each = func.json_each(self._rows).table_valued("value")
        values = (
            type_coerce(func.json_extract(each.c.value, literal_column(f"'$.{name}'")), kind).label(name)
            for name, kind in self._columns.items()
        )
        return select(*values).select_from(each).subquery(self._name)

    def on_postgresql(self) -> FromClause:
        """The rows, as a part of a statement for PostgreSQL alone."""
        columns = (column(name, kind) for name, kind in self._columns.items())
        each = func.json_to_recordset(cast(self._rows, JSON)).table_valued(*columns).render_derived(with_types=True)
        # Without the limit its planner expects a hundred rows, and would rather scan a table of some thousands.
        return select(each).limit(self._number).subquery(self._name)


def _uuid(value: UUID) -> str:
    return value.hex
