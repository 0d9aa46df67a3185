"""How the demo tells its story: chapters, sentences, commands, steps and tables; plain text where nobody sees colours.

What strangers could have written (replies, subjects, letters) reaches the terminal without control characters.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from postroom.worker.verify import Progress

_WIDTH: Final = 110
_NO_CONTROLS: Final = dict.fromkeys((*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


class Telling:
    """Tells on stdout."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal without Unicode gets question marks, not a traceback
        terminal = sys.stdout.isatty()
        self._console = Console(width=None if terminal else _WIDTH, highlight=False, markup=False, emoji=False)
        self._terminal = terminal and self._console.is_terminal
        self._chapters = 0

    def title(self, title: str, subtitle: str) -> None:
        """The first thing told."""
        self._print(Panel(Text(subtitle), title=Text(title, "bold"), width=min(self._console.width, _WIDTH)))

    def chapter(self, heading: str) -> None:
        """Begin a chapter; they are numbered."""
        self._chapters += 1
        self._print(Text(f"\n{self._chapters}. {heading}", "bold cyan"))

    def say(self, sentence: str) -> None:
        """A sentence of the story."""
        self._print(Padding(_clean(sentence), (0, 0, 0, 3)))

    def command(self, line: str) -> None:
        """A command that a person would type. It can be copied: no line break gets into it."""
        self._indented(Text.assemble(("$ ", "dim"), (line.translate(_NO_CONTROLS), "bold")))

    def password(self) -> None:
        """A password is typed here."""
        self._indented(Text("Password: (typed, and never shown)", "dim"))

    def call(self, name: str, values: Mapping[str, Any]) -> None:
        """A call as it would stand in Python."""
        self._indented(Text(f"{name}(", "bold"))
        for argument, value in values.items():
            self._indented(Text.assemble("    ", (argument, "cyan"), f"={value!r},".translate(_NO_CONTROLS)))
        self._indented(Text("))" if "(" in name else ")", "bold"))

    def step(self, progress: Progress) -> None:
        """A step of a proof, as it ends."""
        if progress.step == "done":
            return
        took = f"{progress.duration_seconds * 1000:.0f} ms" if progress.duration_seconds else ""
        mark = ("✓", "green") if progress.ok else ("✗", "bold red")
        detail = progress.detail.translate(_NO_CONTROLS)
        self._indented(Text.assemble("  ", mark, f" {progress.step:<10}", (f"{took:>7}  ", "dim"), detail))

    def fact(self, name: str, value: str) -> None:
        """A name and its value, which can be copied."""
        self._indented(Text.assemble(f"{name + ':':<14}", value.translate(_NO_CONTROLS)))

    def good(self, fact: str) -> None:
        """Something went as it should."""
        self._marked(("✓ ", "bold green"), fact)

    def refused(self, fact: str) -> None:
        """Something was refused, as it should be."""
        self._marked(("✗ ", "bold red"), fact)

    def working(self, what: str) -> AbstractContextManager[object]:
        """Show that something is going on while the block runs."""
        if self._terminal:
            return self._console.status(Text(what))
        self.say(what)
        return nullcontext()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows under column names; a name ending in `>` is of numbers."""
        drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")
        for column in columns:
            drawn.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left", overflow="fold")
        for row in rows:
            drawn.add_row(*(_coloured(cell) for cell in row))
        self._print(Padding(drawn, (0, 0, 0, 3)))

    def letter(self, heading: str, headers: Iterable[tuple[str, str]], text: str) -> None:
        """A letter as its reader sees it."""
        head = [Text.assemble((f"{name}: ", "bold"), value.translate(_NO_CONTROLS)) for name, value in headers]
        body = Text("\n").join([*head, Text(), _clean(text.strip())])
        width = min(self._console.width, _WIDTH) - 3
        self._print(Padding(Panel(body, title=_clean(heading), width=width), (0, 0, 0, 3)))

    def _marked(self, mark: tuple[str, str], fact: str) -> None:
        grid = Table.grid()
        grid.add_row(Text(*mark), _clean(fact))
        self._print(Padding(grid, (0, 0, 0, 3)))

    def _indented(self, line: Text) -> None:
        self._print(Text.assemble("   ", line), soft_wrap=True)

    def _print(self, what: RenderableType, *, soft_wrap: bool = False) -> None:
        if self._terminal:
            self._console.print(what, soft_wrap=soft_wrap)
            return
        with self._console.capture() as captured:
            self._console.print(what, soft_wrap=soft_wrap)
        for line in captured.get().splitlines():
            self._console.out(line.rstrip(), highlight=False)


def _clean(text: str) -> Text:
    return Text(text.translate(_NO_CONTROLS))


def _coloured(cell: str) -> Text:
    colours = {"sent": "green", "✓": "green", "held": "red", "✗": "red"}
    return Text(cell.translate(_NO_CONTROLS), colours.get(cell, ""))
