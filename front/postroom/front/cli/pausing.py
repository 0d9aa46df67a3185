"""`postroom pause` and `postroom resume`: of one account, or of all."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

from typing import TYPE_CHECKING, Annotated

import typer

from postroom.config.accounts import rfc3339
from postroom.front.cli import output
from postroom.front.cli.opening import opened

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from postroom.front.access import Access

app = typer.Typer()

_Reference = Annotated[
    str | None, typer.Argument(metavar="[ACCOUNT]", help="Its id or address; without it, all.", show_default=False)
]


@app.command()
def pause(*, reference: _Reference = None, as_json: output.Json = False) -> None:
    """Let an account, or all, send nothing until it is resumed. What is being sent at this moment is finished.

    The mail of one account goes to another one with its address, else it is held, as is all that comes. Proofs go on.
    """
    from postroom.front import pausing

    with opened() as access:
        if reference is None:
            changed = pausing.pause_all(access)
            since = _all_paused_since(access)
            whose, shown = "all accounts", {"paused_at": rfc3339(since)}
        else:
            account, changed = pausing.pause(access, _id(access, reference))
            since, whose, shown = account.paused_at, f"{account.address} ({account.id})", account.to_json()
    if as_json:
        output.as_json(shown)
        return
    output.say(output.good("paused" if changed else f"was paused already since {_moment(since)}"), f": {whose}")


@app.command()
def resume(*, reference: _Reference = None, as_json: output.Json = False) -> None:
    """Let an account, or all, send again. Held mail leaves by itself.

    What was paused alone is resumed alone: `postroom resume` does not lift the pause of a single account.
    """
    from postroom.config import pauses
    from postroom.front import pausing

    with opened() as access:
        if reference is None:
            changed = pausing.resume_all(access)
            whose, shown = "all accounts", {"paused_at": None}
            with access.read() as connection:
                alone = pauses.of_accounts(connection)
        else:
            account, changed = pausing.resume(access, _id(access, reference))
            whose, shown, alone = f"{account.address} ({account.id})", account.to_json(), []
        since = _all_paused_since(access)
    if as_json:
        output.as_json(shown)
    else:
        output.say(output.good("resumed" if changed else "was not paused"), f": {whose}")
    if since is not None:
        output.note(f"All accounts are paused since {_moment(since)}; `postroom resume` lifts that.")
    for each in alone:
        output.note(f"{each.address} stays paused by itself; `postroom resume {each.id}` lifts that.")


def _id(access: "Access", reference: str) -> "UUID":
    from postroom.config import accounts

    with access.read() as connection:
        return accounts.find(connection, reference).id


def _all_paused_since(access: "Access") -> "datetime | None":
    from postroom.config import pauses

    with access.read() as connection:
        return pauses.since(connection)


def _moment(moment: "datetime | None") -> str | None:
    return output.moment(rfc3339(moment))
