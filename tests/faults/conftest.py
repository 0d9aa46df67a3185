"""Faults are tried in the worker's house: real Redis, real database, scripted SMTP servers."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from postroom.front.house import environment_of
from worker.conftest import House, house, redis_server, smtp  # noqa: F401 - fixtures

Postroom = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def postroom(house: House) -> Postroom:  # noqa: F811 - pytest's way
    """Runs a command of the house as its user would."""

    def run(*words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", "postroom.front.cli", *words],
            env={**environment_of(house.process.settings), **settings},
            cwd=house.process.settings.data_dir,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
