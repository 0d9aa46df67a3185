"""`postroom reply`: what Postroom would make of a server's reply, by which rule."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from postroom.config.states import Effect, Outcome, Scope
from postroom.front.cli import output

if TYPE_CHECKING:
    from postroom.worker.smtp.replies import Verdict

app = typer.Typer()


class Command(StrEnum):
    """What a reply may answer."""

    GREETING = "greeting"
    EHLO = "EHLO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    DOT = "."


_OF_EFFECT: Final = {
    Effect.SUSPEND: "The account cannot send until that is put right: its mail is held, and none loses an attempt.",
    Effect.SLOW: "The account goes on later and slower; no mail loses an attempt.",
    Effect.QUOTA: "The account has sent what it may: it waits, without trying, until it may send again.",
    Effect.BLOCK: "The provider has blocked the account: it is paused until `postroom resume` or a change of it.",
}
_OF_SCOPE: Final = {
    (Outcome.DEFERRED, Scope.MAIL): "The mail is tried again later.",
    (Outcome.DEFERRED, Scope.RECIPIENT): "This recipient is tried again later.",
    (Outcome.FAILED, Scope.MAIL): "The mail is refused for good.",
    (Outcome.FAILED, Scope.RECIPIENT): "This recipient is refused for good; the others are not.",
    (Outcome.FAILED, Scope.SENDER): (
        "This account may not send as that From: the next one with that address may, else the mail is held."
    ),
}
_FALLBACKS: Final = {
    "accepted": "no rule: 2yz and 3yz are success",
    "class_4": "no rule fits: 4yz is tried again",
    "class_5": "no rule fits: 5yz is refused",
}


@app.command(context_settings={"ignore_unknown_options": True})
def reply(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REPLY…",
            help="As the server, a log or a bounce (Diagnostic-Code) had it. Default: stdin.",
            show_default=False,
        ),
    ] = None,
    command: Annotated[
        Command | None,
        typer.Option(help="What it answered. Default: as the text says.", show_default=False, case_sensitive=False),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Say what a server's reply means: its outcome, what it is about, what becomes of the account, and by what rule."""
    from dataclasses import replace

    from postroom.worker.smtp.pasted import parse_pasted
    from postroom.worker.smtp.replies import classify, rule_named

    if not words and sys.stdin.isatty():
        raise typer.BadParameter('give the reply, such as "550 5.1.1 User unknown"', param_hint="REPLY")
    try:
        said = parse_pasted(" ".join(words) if words else sys.stdin.read())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="REPLY") from None
    if command is not None:
        said = replace(said, command=command.value)
    verdict = classify(said)
    meaning = {
        "outcome": verdict.outcome,
        "scope": verdict.scope,
        "effect": verdict.effect,
        "rule": verdict.rule,
    }
    if as_json:
        output.as_json(meaning)
        return
    rule = rule_named(verdict.rule)
    output.details(
        [
            ("reply", str(said)),
            ("answers", said.command),
            *meaning.items(),
            ("wait", _wait(verdict)),
            ("means", _in_words(verdict)),
            ("hint", verdict.hint),
            ("provider", rule.provider if rule else None),
            ("source", rule.source if rule else _FALLBACKS[verdict.rule]),
        ]
    )


def _in_words(verdict: "Verdict") -> str:
    if verdict.outcome is Outcome.ACCEPTED:
        return "The server takes it."
    return _OF_EFFECT.get(verdict.effect) or _OF_SCOPE[verdict.outcome, verdict.scope]


def _wait(verdict: "Verdict") -> str | None:
    if verdict.wait_seconds is None:
        return None
    return f"{verdict.wait_seconds:g} s" if verdict.wait_seconds else "none: at once, in a next transaction"
