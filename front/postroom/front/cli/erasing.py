"""`postroom erase`: all that has ended and is from or to one address, at once."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from postroom.front.cli import output
from postroom.front.cli.opening import opened

if TYPE_CHECKING:
    from postroom.worker.erase_by_address import Erased

app = typer.Typer()


@app.command()
def erase(
    *,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="In any spelling.", show_default=False)],
    as_json: output.Json = False,
) -> None:
    """Erase what is from or to an address, in mails that have ended and in rejected jobs. There is no way back.

    Of a mail to others as well, this recipient goes with subject and letter; the others stay until the mail's own time.
    Mail that still waits is left, and told.
    """
    from postroom.front import erasing
    from postroom.producer.errors import InvalidMail
    from postroom.producer.mail import Address

    try:
        wanted = Address.model_validate(address)
    except InvalidMail as error:
        raise typer.BadParameter(error.why, param_hint="ADDRESS") from None
    with opened() as access:
        erased = erasing.erase_address(access, wanted.address)
    if as_json:
        output.as_json(asdict(erased))
        return
    output.say(output.good("erased"), f": {_told(erased)}")
    if erased.rejects_unreadable:
        output.note(
            f"{_counted(erased.rejects_unreadable, 'rejected job')} cannot be opened with the workers' keys and may be "
            "from or to it; `postroom reject list` shows them"
        )
    if erased.waiting:
        output.note(
            output.bad(f"{_counted(erased.waiting, 'mail')} from or to it still {_verb(erased.waiting, 'wait')}"),
            f"; cancel {'it' if erased.waiting == 1 else 'them'} first (`postroom mail list --to {wanted.address}` or "
            "`--from`, then `postroom mail cancel ID`), and erase again",
        )


def _told(erased: "Erased") -> str:
    return ", ".join(
        (
            f"{_counted(erased.mails, 'mail')} whole",
            f"{_counted(erased.recipients, 'mail')} to others as well (this recipient, letter and subject)",
            f"{_counted(erased.replies, 'further server reply', 'further server replies')}",
            f"{_counted(erased.rejects, 'rejected job')}",
        )
    )


def _counted(count: int, one: str, several: str | None = None) -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def _verb(count: int, verb: str) -> str:
    return verb + "s" if count == 1 else verb
