"""Measures Postroom and what one would take instead, and writes `RESULTS.md` and its chart. See `README.md`."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bench import enqueueing, growth, idle, limit, results, rounds, scratch, slow_servers, under_load
from bench.contestants import CONNECTIONS
from bench.ending import ends_well
from bench.house import DatabaseKind
from bench.machine import machine, versions
from bench.rounds import Figures
from bench.slow_servers import CASES, Case

_HERE: Final = Path(__file__).parent
_CHART: Final = "results.png"


@dataclass(frozen=True, slots=True)
class Form:
    """How much is measured."""

    command: str
    rounds: int
    share: float
    singles: int
    limit_mails: int
    databases: tuple[DatabaseKind, ...]
    slow: tuple[Case, ...]
    slow_seconds: float
    bulk: int
    probes: int
    calls: int
    many: int
    recorded: int
    waiting: int
    growth_mails: int
    idle_seconds: float


FULL: Final = Form(
    command="make bench",
    rounds=5,
    share=1,
    singles=25,
    limit_mails=50_000,
    databases=("postgresql", "sqlite"),
    slow=CASES,
    slow_seconds=5,
    bulk=50_000,
    probes=75,
    calls=1000,
    many=10_000,
    recorded=1_000_000,
    waiting=100_000,
    growth_mails=2000,
    idle_seconds=30,
)
QUICK: Final = Form(
    command="make bench QUICK=1",
    rounds=1,
    share=0.1,
    singles=10,
    limit_mails=10_000,
    databases=("sqlite",),
    slow=CASES[:1],
    slow_seconds=1,
    bulk=5000,
    probes=15,
    calls=300,
    many=2000,
    recorded=50_000,
    waiting=5000,
    growth_mails=300,
    idle_seconds=5,
)

_INTRODUCTION: Final = """\
# What was measured

Written by `{command}` on {machine}.

Each system ran alone on that machine with its site, its stores and the mail server. Rounds, in changing order:
{rounds}. Given is the median, and in brackets between what all rounds lie. Compare within this page: another machine
gives other figures and much the same ratios.

A mail is an order confirmation of about 4 kB, text and HTML, each to another recipient, from one account with
{connections} connections. **The site renders it, in all systems alike** (by Jinja; in Node by Nunjucks, its port):
Postroom does not render templates yet. Redis (Valkey) writes its append-only file to disk every second; PostgreSQL
commits durably. The mail server is `sink.c`. It takes a letter from `smtp-source` for {sink_ms:.3f} ms of processor
time and is not what limits anybody; what it takes from the others stands with their processor time.

{versions}.

![Throughput and latency]({chart})
"""
_OF_THROUGHPUT: Final = "Mails a second, from the first call that hands one over until the last outcome is recorded."
_OF_LATENCY: Final = "One mail on an idle system in clear, from the call to the server's 250, in milliseconds."
_OF_COST: Final = "In milliseconds, user and system, of each process while a stream was sent; memory at its end."


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the page; `measure` gives its table."""

    title: str
    about: str
    measure: Callable[[], str]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    quick: Annotated[bool, typer.Option(help="once, and little of each: to see that it works")] = False,
    folder: Annotated[Path, typer.Option(help="where RESULTS.md and its chart are written")] = _HERE,
) -> None:
    """Measure everything and write it down. Progress is told on stderr."""
    form = QUICK if quick else FULL
    with ends_well(), tempfile.TemporaryDirectory(prefix="postroom-bench-") as made:
        whole = _write(form, folder, _parts(form, Path(made)), Path(made))
    print(f"written: {folder / 'RESULTS.md'}", file=sys.stderr)
    raise typer.Exit(0 if whole else 1)


def _write(form: Form, folder: Path, parts: list[Part], scratch_folder: Path) -> bool:
    """Measure, and write the page and the chart; False where a part failed, which the page says."""
    where, what = machine(), versions()
    top = limit.measured(scratch_folder / "limit", form.limit_mails)
    figures = rounds.measured(scratch_folder / "rounds", rounds=form.rounds, share=form.share, singles=form.singles)
    page = [
        _INTRODUCTION.format(
            command=form.command,
            machine=where,
            versions=what,
            rounds=form.rounds,
            connections=CONNECTIONS,
            sink_ms=top.sink_ms,
            chart=_CHART,
        ),
        _section("Throughput", _OF_THROUGHPUT, results.throughput(figures, top)),
        _section("Latency", _OF_LATENCY, results.latency(figures)),
        _section("Processor time a mail", _OF_COST, results.cost(figures)),
    ]
    _draw(figures, folder / _CHART)
    whole = True
    for part in parts:
        began_at = time.monotonic()
        try:
            found = part.measure()
        except (AssertionError, RuntimeError, TimeoutError) as error:
            whole = False
            found = f"**Not measured**: {str(error).splitlines()[0]}"
            traceback.print_exception(error)
        page.append(_section(part.title, part.about, found))
        print(f"{part.title}: {time.monotonic() - began_at:.0f} s", file=sys.stderr)
    (folder / "RESULTS.md").write_text("\n".join(page), "utf-8")
    return whole


def _parts(form: Form, folder: Path) -> list[Part]:
    return [
        Part(
            "Slow servers",
            "The server is busy with each mail for that long. Share: of connections ÷ server time.",
            lambda: results.slow(
                slow_servers.measured(
                    folder / "slow", cases=form.slow, seconds=form.slow_seconds, databases=form.databases
                )
            ),
        ),
        Part(
            "Under load",
            "On PostgreSQL, while bulk mail of one account waits; from the call to the server's 250.",
            lambda: results.under_load(under_load.measured(folder / "load", bulk=form.bulk, probes=form.probes)),
        ),
        Part(
            "Enqueueing",
            "While no worker runs. Peak: resident set of the site's process after a tenth of the many, and after all.",
            lambda: results.enqueueing(enqueueing.measured(folder / "enqueueing", calls=form.calls, many=form.many)),
        ),
        Part(
            "Growth",
            "Streams into an empty ledger, and into the same one filled by SQL, with a thousand more accounts.",
            lambda: results.growth(
                growth.measured(
                    folder / "growth",
                    databases=form.databases,
                    recorded=form.recorded,
                    waiting=form.waiting,
                    mails=form.growth_mails,
                )
            ),
        ),
        Part(
            "Idle",
            "`postroom up` on SQLite, with an empty ledger.",
            lambda: results.at_rest(idle.measured(folder / "idle", seconds=form.idle_seconds)),
        ),
    ]


def _section(title: str, about: str, found: str) -> str:
    return f"## {title}\n\n{about}\n\n{found}\n"


def _draw(figures: list[Figures], path: Path) -> None:
    given: dict[str, list[Any]] = {
        "names": [each.contestant.name for each in figures],
        "plain": [statistics.median(one.mails_a_second for one in each.plain) for each in figures],
        "secure": [statistics.median(one.mails_a_second for one in each.secure) for each in figures],
        "latencies_ms": [each.latencies_ms for each in figures],
    }
    drawing = [str(scratch.python()), "-m", "bench.chart", str(path.resolve())]
    subprocess.run(drawing, input=json.dumps(given), text=True, check=True)


if __name__ == "__main__":
    app()
