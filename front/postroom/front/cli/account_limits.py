"""How an account's limits are given to `postroom account`, and told by it."""

from typing import Annotated, Any, Final

import typer

OPTIONS: Final = {"mails_per_minute": "--mails-per-minute", "recipients_per_day": "--recipients-per-day"}
"""Limit → its option."""

MailsPerMinute = Annotated[
    str | None,
    typer.Option(metavar="N|none", help="Mails in any 60 seconds, at most. What is over waits.", show_default=False),
]
RecipientsPerDay = Annotated[
    str | None,
    typer.Option(metavar="N|none", help="Recipients in any 24 hours, at most. What is over waits.", show_default=False),
]


def given(**texts: str | None) -> dict[str, Any]:
    """The limits among these that were given; `none` is None."""
    return {name: _number(name, text) for name, text in texts.items() if text is not None}


def _number(name: str, text: str) -> int | None:
    if text.lower() == "none":
        return None
    if not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"must be a number or none, not {text!r}", param_hint=OPTIONS[name])
    return int(text)


def told(limits: dict[str, int | None]) -> str:
    """Those that there are, in words."""
    return ", ".join(f"{limit} {name.replace('_', ' ')}" for name, limit in limits.items() if limit is not None)
