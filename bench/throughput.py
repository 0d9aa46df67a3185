"""Throughput of Postroom alone, and what a mail costs in each process.

    .venv/bin/python -m bench.throughput --database postgresql --security starttls --mails 10000

A stream is measured from the first `enqueue` until the last outcome is recorded: site, intake and sending share the
machine. With `--prefill` all mails lie in the ledger before the drain processes, started and warm, are let go: measured
is sending alone.
"""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench import house, measuring, sink
from bench.ending import ends_well
from bench.measuring import Measured


class Database(StrEnum):
    """Where the ledger is."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Security(StrEnum):
    """How the sink is spoken to: in clear, or by STARTTLS and AUTH."""

    NONE = "none"
    STARTTLS = "starttls"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0917 - Typer's options
    database: Database = Database.POSTGRESQL,
    security: Security = Security.NONE,
    mails: int = 5000,
    connections: Annotated[int, typer.Option(help="of the one account")] = 10,
    drains: Annotated[int, typer.Option(help="drain processes")] = 1,
    delay_seconds: Annotated[float, typer.Option(help="of the server, before each final 250")] = 0,
    rounds: int = 1,
    prefill: Annotated[bool, typer.Option(help="enqueue all before anything is sent")] = False,
) -> None:
    """Measure, and print mails a second and the milliseconds of processor time a mail, by process."""
    with ends_well(), tempfile.TemporaryDirectory(prefix="postroom-bench-") as scratch:
        folder = Path(scratch)
        with (
            sink.started(folder / "sink", secure=security is Security.STARTTLS, delay_seconds=delay_seconds) as to,
            house.started(folder / "house", to, database.value, connections=connections, drains=drains) as running,
        ):
            measuring.warm_up(running.system, to)
            for _ in range(rounds):
                if prefill:
                    show(measuring.prefilled(running, to, mails))
                else:
                    show(measuring.stream(running.system, to, mails))


def show(measured: Measured) -> None:
    """Print one measurement."""
    print(
        f"{measured.mails_a_second:,.0f} mails/s ({measured.mails} in {measured.seconds:.2f} s, "
        f"handed over within {measured.handing_over_seconds:.2f} s)"
    )
    a_mail = {name: ms / measured.mails for name, ms in measured.cpu_ms.items()}
    for name, ms in a_mail.items():
        memory = measured.memory_mib.get(name)
        print(f"  {name:10} {ms:6.3f} CPU-ms a mail" + ("" if memory is None else f" {memory:8.0f} MiB"))
    print(f"  {'all':10} {sum(a_mail.values()):6.3f} CPU-ms a mail {sum(measured.memory_mib.values()):8.0f} MiB")


if __name__ == "__main__":
    app()
