"""Commands that run the parts of Postroom, and those that get them ready to run.

Imports stand in the functions: `postroom broker-url` should not wait for Flower.
"""

import os
import signal
from typing import Literal

import typer

from postroom.config import settings as settings_module

app = typer.Typer()
worker = typer.Typer(no_args_is_help=True)
app.add_typer(worker, name="worker", help="One kind of worker process, in the foreground.")


@app.command()
def up() -> None:
    """Run everything on this machine: Redis, workers, scheduler, Flower. Ctrl-C stops it all."""
    from postroom.front.child import follow_supervisor  # noqa: PLC0415
    from postroom.front.up import up as run  # noqa: PLC0415

    follow_supervisor(signal.SIGTERM)
    raise typer.Exit(run(settings_module.load()))


@worker.command()
def accept() -> None:
    """Take jobs from the inbox into the ledger."""
    _work("accept")


@worker.command()
def drain() -> None:
    """Send the mail of the lanes."""
    _work("drain")


@worker.command()
def care() -> None:
    """Do what a person or the clock waits for: proofs and chores."""
    _work("care")


@app.command()
def scheduler() -> None:
    """Run the clock that starts the chores (Celery beat). One in all."""
    from celery import signals  # noqa: PLC0415

    from postroom.front import child  # noqa: PLC0415
    from postroom.worker.scheduler import run_scheduler  # noqa: PLC0415

    def begin(**_: object) -> None:
        # Celery's own handler raises SystemExit out of whatever runs; inside a reply from Redis that was seen to get
        # lost, and the clock ran on. It keeps nothing, so it may go at any moment.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os._exit(0))
        child.say_ready()

    child.follow_supervisor()
    tell = child.alive_teller()
    signals.beat_init.connect(begin, weak=False)
    signals.after_task_publish.connect(lambda **_: tell(), weak=False)  # it has published a chore
    run_scheduler(settings_module.load())


@app.command()
def flower() -> None:
    """Watch the workers in a browser (Flower), at POSTROOM_FLOWER_BIND, behind a password."""
    from postroom.front import child  # noqa: PLC0415
    from postroom.front.flower import run  # noqa: PLC0415

    child.follow_supervisor()
    run(settings_module.load())


@app.command()
def migrate() -> None:
    """Bring the database to this release's schema. Harmless when it is there already."""
    from postroom.front.up import migrate as bring_up_to_date  # noqa: PLC0415

    os.umask(0o077)  # as `up` makes its files
    bring_up_to_date(settings_module.load())


@app.command()
def keygen() -> None:
    """Make the key files that are missing and print where they are. Never overwrites one."""
    from postroom.front import key_files  # noqa: PLC0415

    settings = settings_module.load()
    made = key_files.make(settings)
    for path in (settings.ring_file, settings.public_file, settings.front_file):
        typer.echo(f"{path} ({'made' if path in made else 'was there'})")
    if settings.ring_file in made:
        typer.echo(f"Back up {settings.ring_file}: without it no stored password and no letter opens again.", err=True)


@app.command("broker-url")
def broker_url() -> None:
    """Print the Redis URL in force: export POSTROOM_BROKER_URL=$(postroom broker-url)."""
    typer.echo(settings_module.load().broker)


def _work(kind: Literal["accept", "drain", "care"]) -> None:
    from celery import signals  # noqa: PLC0415

    from postroom.front import child  # noqa: PLC0415
    from postroom.worker.app import run_worker  # noqa: PLC0415

    child.follow_supervisor()
    tell = child.alive_teller()
    signals.worker_ready.connect(lambda **_: child.say_ready(), weak=False)
    signals.heartbeat_sent.connect(lambda **_: tell(), weak=False)  # its loop turns, connected to Redis
    run_worker(kind, settings_module.load())
