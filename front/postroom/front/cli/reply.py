"""`postroom reply`: what Postroom would make of a server's reply."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

import sys
from typing import Annotated

import typer

from postroom.front.cli import output

app = typer.Typer()


@app.command(context_settings={"ignore_unknown_options": True})
def reply(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="REPLY…", help="As the server or a log had it. Default: stdin.", show_default=False),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Say what a server's reply means: its outcome, what it is about, and what becomes of the account."""
    from postroom.worker.smtp.replies import classify, parse_pasted

    if not words and sys.stdin.isatty():
        raise typer.BadParameter('give the reply, such as "550 5.1.1 User unknown"', param_hint="REPLY")
    try:
        said = parse_pasted(" ".join(words) if words else sys.stdin.read())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="REPLY") from None
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
    wait = None if verdict.wait_seconds is None else f"{verdict.wait_seconds:g} s"
    output.details([("reply", str(said)), *meaning.items(), ("wait", wait), ("hint", verdict.hint)])
