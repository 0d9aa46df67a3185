"""The root of the command line: one line a subject.

A subject is a file beside this one with a `typer.Typer()` named `app`: `add_typer(accounts.app, name="account")` gives
`postroom account …`; without a name its commands stand at the root.
"""

import os
from importlib import metadata
from typing import Annotated

import typer

from postroom.front import child
from postroom.front.cli import (
    account,
    demo,
    doctor,
    erasing,
    explain,
    mail,
    output,
    pausing,
    reject,
    reply,
    running,
    send,
)

app = typer.Typer(
    name="postroom",
    help="Sends an organisation's mail from its own mailboxes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, passwords among them
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"postroom {metadata.version('postroom')}")
        raise typer.Exit


@app.callback()
def begin(
    version: Annotated[  # noqa: ARG001 - it ends the command by itself
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Tell of names that look like settings and are none. What `up` starts leaves that to it."""
    from postroom.config import settings_sources  # noqa: PLC0415 - not for --help

    if child.SUPERVISOR_PID not in os.environ:
        for each in settings_sources.unknown():
            output.note(f"postroom: {each}")


app.add_typer(running.app)
app.add_typer(account.app, name="account")
app.add_typer(send.app)
app.add_typer(mail.app, name="mail")
app.add_typer(explain.app)
app.add_typer(pausing.app)
app.add_typer(reject.app, name="reject")
app.add_typer(reply.app)
app.add_typer(erasing.app)
app.add_typer(doctor.app)
app.add_typer(demo.app)
