"""`postroom mail …`: what became of each mail, and what a person may do about it."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import typer

from postroom.config.states import Health, HeldReason, MailState
from postroom.front.cli import explain as explaining
from postroom.front.cli import output
from postroom.front.cli.opening import opened

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from postroom.config.accounts import Account

app = typer.Typer(no_args_is_help=True, help="What became of each mail, and what to do about it.")

_AGO: Final = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_GOOD: Final = ("sent", "accepted")
_BAD: Final = ("failed", "expired", "held", "uncertain", "refused", "bounced")

_Id = Annotated[UUID, typer.Argument(metavar="ID", help="The mail's id.", show_default=False)]


def _moment(text: str) -> datetime:
    """A moment as people write it.

    Raises:
        typer.BadParameter: it is none.
    """
    if ago := _AGO.fullmatch(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no moment: write it as 2026-11-24, 2026-11-24T09:30+03:00 or, for how long ago, 90m, 2h, 7d"
        ) from None


_SINCE = typer.Option(parser=_moment, metavar="TIME", help="Taken in at or after it: 2h, 7d, or a date and time.")
_UNTIL = typer.Option(parser=_moment, metavar="TIME", help="Taken in before it.")


@app.command("list")
def list_(
    *,
    state: Annotated[MailState | None, typer.Option(metavar="STATE", help=f"{', '.join(MailState)}.")] = None,
    reason: Annotated[
        HeldReason | None, typer.Option(metavar="WHY", help=f"Held for it: {', '.join(HeldReason)}.")
    ] = None,
    account: Annotated[
        str | None, typer.Option(help="In this account's lane, or sent by it: its id or address.")
    ] = None,
    sender: Annotated[str | None, typer.Option("--from", help="With this From address.")] = None,
    recipient: Annotated[str | None, typer.Option("--to", help="To this address, in To, Cc or Bcc.")] = None,
    owner: Annotated[str | None, typer.Option(help="Of this CRM user.")] = None,
    template: Annotated[str | None, typer.Option(help="Made from the template of this name.")] = None,
    since: Annotated[datetime | None, _SINCE] = None,
    until: Annotated[datetime | None, _UNTIL] = None,
    limit: output.Limit = 50,
    as_json: output.Json = False,
) -> None:
    """List mails, newest first. Times without an offset are this machine's."""
    from postroom.config import mails

    with opened() as access, access.read() as connection:
        wanted = mails.Filter(
            state=state,
            reason=reason,
            account_id=None if account is None else _account_id(connection, account),
            sender=sender,
            recipient=recipient,
            owner=owner,
            template=template,
            since=since,
            until=until,
        )
        found = mails.newest(connection, wanted, limit=limit)
    if as_json:
        output.as_json(found)
        return
    output.table(
        ["id", "taken in", "state", "from", "to", "subject"],
        [
            [
                output.dim(each["id"]),
                output.moment(each["created_at"]),
                _state(each),
                each["from"],
                _several(each["to"]),
                each["subject"],
            ]
            for each in found
        ],
        none="There is no mail yet." if wanted == mails.Filter() else "There is no such mail.",
    )


@app.command()
def show(*, mail_id: _Id, as_json: output.Json = False) -> None:
    """Show one mail, its recipients, and each attempt with what the server answered. Never its content."""
    from postroom.config import accounts, mails
    from postroom.worker import limits

    with opened() as access, access.read() as connection:
        shown = mails.show(connection, mail_id)
        lane = shown["account_id"] if shown["state"] in {MailState.QUEUED, MailState.DEFERRED} else None
        account = accounts.get(connection, UUID(lane)) if lane else None
        if account is not None:
            [account] = limits.as_of_now(connection, [account])
    _show(shown, as_json, account)


@app.command()
def explain(*, mail_id: _Id, as_json: output.Json = False) -> None:
    """Say of every account whether it may send this mail, and why."""
    from postroom.config import mails
    from postroom.producer.errors import Refused
    from postroom.producer.mail import address_key
    from postroom.worker import lanes

    with opened() as access, access.read() as connection:
        shown = mails.show(connection, mail_id)
        if shown["erased_at"] is not None:
            raise Refused(
                f"mail {mail_id} is {shown['state']}, and who it was from was erased: nothing can be explained"
            )
        refused_by = lanes.refusing_accounts(connection, [mail_id]).get(mail_id, set())
        choice = lanes.explain(connection, address_key(shown["from"]), shown["owner"], refused_by)
    if not as_json:
        output.say(f"Mail {shown['id']} is ", _state(shown), f": {_story(shown)}")
        output.say()
    explaining.show(choice, shown["from"], shown["owner"], as_json)


@app.command()
def cancel(*, mail_id: _Id, as_json: output.Json = False) -> None:
    """Take a mail back before it leaves."""
    from postroom.worker import interventions

    def change(connection: "Connection") -> set[UUID]:
        interventions.cancel(connection, mail_id)
        return set()

    _intervene(mail_id, change, as_json)


@app.command()
def resend(*, mail_id: _Id, as_json: output.Json = False) -> None:
    """Send a failed mail again, or one that is held as sender_refused or poison."""
    from postroom.worker import interventions

    _intervene(mail_id, lambda connection: interventions.resend(connection, mail_id), as_json)


@app.command()
def resolve(
    *,
    mail_id: _Id,
    resolution: Annotated[
        Literal["delivered", "resend", "drop"],
        typer.Argument(help="delivered: it arrived; resend: send it again, two copies may exist then; drop: leave it."),
    ],
    as_json: output.Json = False,
) -> None:
    """Say what became of a mail that may have been delivered."""
    from postroom.worker import interventions

    _intervene(mail_id, lambda connection: interventions.resolve(connection, mail_id, resolution), as_json)


def _intervene(mail_id: UUID, change: Callable[["Connection"], set[UUID]], as_json: bool) -> None:
    from postroom.config import mails

    with opened() as access:
        with access.write() as connection:
            got_mail = change(connection)
            shown = mails.show(connection, mail_id)
        access.nudges.drain(got_mail)
    if as_json:
        output.as_json(shown)
    else:
        output.say(f"Mail {mail_id} is now ", _state(shown))


def _account_id(connection: "Connection", reference: str) -> UUID:
    """An id stands for itself: the mails of an account that was removed are still listed by it."""
    from postroom.config import accounts

    try:
        return UUID(reference)
    except ValueError:
        return accounts.find(connection, reference).id


def _state(shown: dict[str, Any]) -> Any:
    text = shown["state"] + (f" ({shown['reason']})" if shown.get("reason") else "")
    if shown["state"] in _GOOD:
        return output.good(text)
    return output.bad(text) if shown["state"] in _BAD else text


def _several(addresses: list[str]) -> str:
    first = addresses[0] if addresses else ""
    return first if len(addresses) < 2 else f"{first} and {len(addresses) - 1} more"  # noqa: PLR2004 - one


def _story(shown: dict[str, Any]) -> str:
    to = _several(shown["to"])
    tried = shown["attempts_log"]
    last = f" The server's last words were: {tried[-1]['reply']}" if tried and tried[-1]["reply"] else ""
    times = {0: "not tried yet", 1: "tried once"}.get(len(tried), f"tried {len(tried)} times")
    return f"{shown['subject']!r}, from {shown['from']} to {to}, {times}.{last}"


def _waits_for(account: "Account | None") -> str | None:
    """What keeps a mail in its lane; None if nothing but its turn or its time does."""
    from postroom.config.accounts import rfc3339

    if account is not None and account.health == Health.OK and account.open_at is not None:
        return f"the limits of its account, until {output.moment(rfc3339(account.open_at))}"
    if account is None or account.health == Health.OK:
        return None
    when = output.moment(rfc3339(account.probe_at))
    next_try = f"; it is tried again at {when}" if when else ""
    return f"its account, which is {account.health}: {account.health_detail or 'no more is known'}{next_try}"


def _show(shown: dict[str, Any], as_json: bool, account: "Account | None" = None) -> None:
    if as_json:
        output.as_json(shown)
        return
    template = shown["template"] or {}
    meta = " ".join(f"{name}={value}" for name, value in (template.get("meta") or {}).items())
    parts = (template.get("name"), template.get("locale"), template.get("version"), meta)
    output.details(
        [
            ("id", shown["id"]),
            ("state", _state(shown)),
            ("waits for", _waits_for(account)),
            ("from", shown["from"]),
            ("subject", shown["subject"]),
            ("owner", shown["owner"]),
            ("account", shown["account_id"]),
            ("template", " ".join(filter(None, parts))),
            ("priority", shown["priority"]),
            ("tags", ", ".join(shown["tags"])),
            ("taken in", output.moment(shown["created_at"])),
            ("due", output.moment(shown["due_at"])),
            ("expires", output.moment(shown["expires_at"]) if shown["ended_at"] is None else None),
            ("ended", output.moment(shown["ended_at"])),
            ("erased", output.moment(shown["erased_at"])),
            ("copies possible", shown["copies_possible"] if shown["copies_possible"] > 1 else None),
        ]
    )
    output.say()
    output.table(
        ["recipient", "kind", "state", "reply"],
        [[each["address"], each["kind"], _state(each), each["reply"]] for each in shown["recipients"]],
        none="It has no recipients.",
    )
    output.say()
    output.table(
        ["attempt", "account", "outcome", "took", "reply"],
        [
            [
                output.moment(each["started_at"]),
                output.dim(each["account_id"]),
                _state({"state": each["outcome"]}),
                f"{each['duration_seconds'] * 1000:.0f} ms",
                each["reply"],
            ]
            for each in shown["attempts_log"]
        ],
        none="It has not been tried yet." if shown["ended_at"] is None else "It was never tried.",
    )
