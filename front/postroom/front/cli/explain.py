"""`postroom explain`: who would send a mail with this From, and why the others would not."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

from typing import TYPE_CHECKING, Annotated, Final

import typer

from postroom.config.states import Health, HeldReason
from postroom.front.cli import output
from postroom.front.cli.opening import opened

if TYPE_CHECKING:
    from postroom.config.accounts import Account
    from postroom.worker.choose import Choice

app = typer.Typer()

_REASONS: Final = {
    HeldReason.NO_ACCOUNT: "no active account sends as this address for it. `postroom account add` adds one.",
    HeldReason.ACCOUNT_SUSPENDED: "its account is suspended. `postroom account verify` tries again, `edit` mends it.",
    HeldReason.PAUSED: "its account is paused, or all are. `postroom resume` lets it send again.",
    HeldReason.SENDER_NOT_CONFIRMED: "its owner has not confirmed this address as a sender.",
    HeldReason.SENDER_REFUSED: "every server refused this From. `postroom mail resend` tries again.",
}


@app.command()
def explain(
    *,
    sender: Annotated[str, typer.Option("--from", help="The From address of a mail that might be.")],
    owner: Annotated[str | None, typer.Option(help="Its owner, a CRM user's id.")] = None,
    as_json: output.Json = False,
) -> None:
    """Say of every account whether it would send a mail with this From, and why."""
    from postroom.producer.errors import InvalidMail
    from postroom.producer.mail import Address
    from postroom.worker import lanes

    try:
        address = Address.model_validate(sender)
    except InvalidMail as error:
        raise typer.BadParameter(error.why, param_hint="--from") from None
    with opened() as access, access.read() as connection:
        choice = lanes.explain(connection, address.key, owner)
    show(choice, address.address, owner, as_json)


def _waits(account: "Account") -> str:
    if account.health != Health.OK:
        return f", but it is {account.health}: mail waits"
    if account.open_at is not None:
        return f", but it has reached a limit: mail waits until {output.moment(account.open_at.isoformat())}"
    return ""


def show(choice: "Choice", sender: str, owner: str | None, as_json: bool) -> None:
    """Print a choice with the verdict on every account."""
    if as_json:
        output.as_json(choice.to_json())
        return
    whose = f"From {sender} of owner {owner}" if owner else f"From {sender} without an owner"
    if choice.account is not None:
        output.say(output.good("✓ "), f"{whose}: account {choice.account.id} sends it{_waits(choice.account)}.")
    else:
        why = _REASONS.get(choice.held, "") if choice.held else ""
        output.say(output.bad("✗ "), f"{whose}: it would be held, ", output.bad(str(choice.held)), f": {why}")
    output.table(
        ["account", "", "", "id"],
        [
            [
                each.account.address,
                output.good("✓") if each.ok else output.bad("✗"),
                each.why,
                output.dim(str(each.account.id)),
            ]
            for each in choice.verdicts
        ],
        none="There is no account yet; `postroom account add` adds one.",
    )
