"""The root of the command line: one line a subject.

A subject is a file beside this one with a `typer.Typer()` named `app`. Where that has a name, it is `postroom NAME …`;
else its commands stand at the root. Only the subject that is spoken to is imported: a worker waits for no table drawn
by `mail list`.
"""

import os
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import Annotated, Final

import typer

from postroom.front import child

_SUBJECTS: Final = {
    "running": ("up", "worker", "scheduler", "flower", "migrate", "keygen", "broker-url"),
    "account": ("account",),
    "send": ("send",),
    "mail": ("mail",),
    "explain": ("explain",),
    "pausing": ("pause", "resume"),
    "reject": ("reject",),
    "reply": ("reply",),
    "erasing": ("erase",),
    "doctor": ("doctor",),
    "demo": ("demo",),
}
"""File → the words that it answers to."""
_NAMED: Final = ("account", "mail", "reject")


def make(words: Sequence[str]) -> typer.Typer:
    """The app for a command line: with the subject that its first word names, else with all of them."""
    app = typer.Typer(
        name="postroom",
        help="Sends an organisation's mail from its own mailboxes.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # its tracebacks show local variables, passwords among them
    )
    app.callback()(begin)
    spoken_to = [subject for subject, answers in _SUBJECTS.items() if words and words[0] in answers]
    for subject in spoken_to or _SUBJECTS:
        commands = import_module(f"postroom.front.cli.{subject}").app
        app.add_typer(commands, name=subject if subject in _NAMED else None)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"postroom {metadata.version('postroom')}")
        raise typer.Exit


def begin(
    version: Annotated[  # noqa: ARG001 - it ends the command by itself
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Tell of names that look like settings and are none. What `up` starts leaves that to it."""
    if child.SUPERVISOR_PID not in os.environ:
        from postroom.config import settings_sources  # noqa: PLC0415 - not for --help

        if unknown := settings_sources.unknown():
            from postroom.front.cli import output  # noqa: PLC0415 - not for a worker

            for each in unknown:
                output.note(f"postroom: {each}")
