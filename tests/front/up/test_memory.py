"""What starts and stays imports no more than it needs: each part of a house would pay for it in time and memory."""

import subprocess
import sys

import pytest

_LEDGER = ("sqlalchemy", "alembic", "psycopg")
_PEOPLE = ("rich", "flower", "tornado")
_MESSAGES = ("celery.app.base", "kombu")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("postroom.front.up", (*_LEDGER, *_PEOPLE, *_MESSAGES, "structlog")),
        ("postroom.front.flower", (*_LEDGER, *_PEOPLE, *_MESSAGES, "structlog")),
        ("postroom.worker.scheduler", (*_LEDGER, *_PEOPLE)),
        ("postroom.worker.app", ("alembic", "psycopg", "typer", *_PEOPLE)),
    ],
)
def test_a_part_imports_only_what_it_needs(module: str, unwanted: tuple[str, ...]) -> None:
    script = f"import sys, {module}; print([name for name in {unwanted} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
