"""`postroom reject …`: jobs that could not be taken into the ledger."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

from typing import Annotated
from uuid import UUID

import typer

from postroom.front.cli import output
from postroom.front.cli.opening import opened

app = typer.Typer(no_args_is_help=True, help="Jobs that could not be taken into the ledger.")

_Id = Annotated[UUID, typer.Argument(metavar="ID", help="The reject's id.", show_default=False)]


@app.command("list")
def list_(*, limit: output.Limit = 50, as_json: output.Json = False) -> None:
    """List rejected jobs with why, newest first."""
    from postroom.config import rejects

    with opened() as access, access.read() as connection:
        found = rejects.newest(connection, limit=limit)
    if as_json:
        output.as_json(found)
        return
    output.table(
        ["id", "rejected", "replayed", "producer", "error"],
        [
            [
                output.dim(each["id"]),
                output.moment(each["created_at"]),
                output.moment(each["replayed_at"]),
                each["producer"],
                each["error"],
            ]
            for each in found
        ],
        none="No job was rejected.",
    )


@app.command()
def show(*, reject_id: _Id, as_json: output.Json = False) -> None:
    """Show one rejected job; never its content."""
    from postroom.config import rejects

    with opened() as access, access.read() as connection:
        shown = rejects.show(connection, reject_id)
    if as_json:
        output.as_json(shown)
        return
    for name in ("created_at", "replayed_at"):
        shown[name] = output.moment(shown[name])
    output.details((name.replace("_", " "), value) for name, value in shown.items())


@app.command()
def replay(*, reject_id: _Id, as_json: output.Json = False) -> None:
    """Lay a rejected job into the inbox again, now that its cause is gone. Doing it twice sends it once."""
    from postroom.config import rejects
    from postroom.front.nudges import broker_answers
    from postroom.worker.inbox import Inbox

    with opened() as access:
        with access.read() as connection:
            mail_id, sealed = rejects.sealed_job(connection, reject_id)
        field = f"{mail_id}~{reject_id.hex}"  # beside whatever else may lie there for this mail
        with broker_answers():
            Inbox(access.redis).return_job(field, sealed)
        access.nudges.accept(field)
        with access.write() as connection:
            rejects.note_replayed(connection, reject_id)
            shown = rejects.show(connection, reject_id)
    if as_json:
        output.as_json(shown)
    else:
        output.say(output.good("replayed"), f": the job of mail {mail_id} lies in the inbox again")
