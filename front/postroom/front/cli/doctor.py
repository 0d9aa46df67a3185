"""`postroom doctor`."""

import sys

import typer

from postroom.front.cli import output

app = typer.Typer()


@app.command()
def doctor(*, as_json: output.Json = False) -> None:
    """Say whether everything that `postroom up` runs does its work, and what to do if not. Changes nothing."""
    from postroom.front.doctor import diagnose  # noqa: PLC0415 - commands start fast

    report = diagnose()
    if as_json:
        output.as_json(report.to_json())
    else:
        output.table(
            ["", "check", "found", "to do"],
            [
                [
                    output.good("✓") if check.ok else output.bad("✗"),
                    check.name.replace("_", " "),
                    check.message,
                    check.action,
                ]
                for check in report.checks
            ],
            none="",
        )
        output.say()
        output.table(
            ["setting", "in force", "said in"],
            [
                [name, value, output.dim(report.said_in.get(name, "default"))]
                for name, value in report.settings.items()
                if value is not None
            ],
            none="",
        )
    sys.exit(0 if report.ok else 1)
