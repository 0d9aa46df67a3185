"""How commands speak: what was asked for on stdout, one JSON value or text for people; all else on stderr.

Subjects, names and servers' replies come from strangers: none of their control characters reaches a terminal.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_OF_NO_TERMINAL: Final = 240
_READABLE_WIDTH: Final = 12
_CONTROLS: Final = (*range(32), *range(127, 160))
_NO_CONTROLS: Final = dict.fromkeys(_CONTROLS, "\N{REPLACEMENT CHARACTER}")
_ESCAPED: Final = {code: f"\\u{code:04x}" for code in range(127, 160)}
"""Those that JSON lets stand in a string."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]


def as_json(value: Any) -> None:
    """Print one JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False).translate(_ESCAPED) + "\n")
    sys.stdout.flush()


def say(*parts: str | Text) -> None:
    """Print a line for people on stdout."""
    _console(sys.stdout).print(_line(parts), soft_wrap=True)


def note(*parts: str | Text) -> None:
    """Print a line on stderr: progress, and what was decided on the way."""
    _console(sys.stderr).print(_line(parts), soft_wrap=True)


def good(text: str) -> Text:
    """Text that tells of success."""
    return Text(text.translate(_NO_CONTROLS), "green")


def bad(text: str) -> Text:
    """Text that tells of failure."""
    return Text(text.translate(_NO_CONTROLS), "red")


def dim(text: str) -> Text:
    """Text beside the point."""
    return Text(text.translate(_NO_CONTROLS), "dim")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, none: str) -> None:
    """Print rows as a table; the first column is never cut. Where a terminal is too narrow for that, each row is a list
    of names and values. Without rows, print `none` on stderr.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if not cells:
        note(none)
        return
    console = _console(sys.stdout)
    if _least_width(columns, cells) > console.width:
        for number, row in enumerate(cells):
            if number:
                say()
            details(zip(columns, row, strict=True))
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in cells:
        drawn.add_row(*row)
    console.print(drawn)


def _least_width(columns: Sequence[str], cells: Sequence[Sequence[Text]]) -> int:
    """Of a table that can be read: the first column whole, each other at least a word wide."""
    widths = [max(map(cell_len, (name, *(row[at].plain for row in cells)))) for at, name in enumerate(columns)]
    return widths[0] + sum(1 + min(width, _READABLE_WIDTH) for width in widths[1:])


def details(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values below each other; what has no value is left out."""
    drawn = Table(box=None, pad_edge=False, show_header=False)
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in pairs:
        cell = _cell(value)
        if cell.plain:
            drawn.add_row(name, cell)
    _console(sys.stdout).print(drawn)


def moment(text: str | None) -> str | None:
    """A moment of the ledger in this machine's time, to the second."""
    return None if text is None else datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _console(stream: Any) -> Console:
    width = None if stream.isatty() else _WIDTH_OF_NO_TERMINAL
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def _line(parts: Sequence[str | Text]) -> Text:
    return Text.assemble(*(_cell(part) for part in parts))


def _cell(value: Any) -> Text:
    if isinstance(value, Text):
        return value
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return Text("" if value is None else str(value).translate(_NO_CONTROLS))
