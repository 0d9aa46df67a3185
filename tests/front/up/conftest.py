"""Commands under test, ended with the test that started them."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from servers.command import Command

STAND_INS = Path(__file__).with_name("stand_ins.py")

Run = Callable[..., Command]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts commands, and ends at the end of the test those that still run."""
    running: list[Command] = []

    def start(argv: Sequence[str], **options: object) -> Command:
        running.append(Command(argv, **options))  # type: ignore[arg-type]
        return running[-1]

    yield start
    for each in running:
        each.close()


@pytest.fixture
def supervise(run: Run, tmp_path: Path) -> Run:
    """Starts a supervisor over stand-ins: name → (floor, behaviour)."""

    def start(plan: Mapping[str, tuple[int, str]], *, first_pause: float = 1, **options: object) -> Command:
        path = tmp_path / "plan.json"
        path.write_text(json.dumps([[name, floor, what, first_pause] for name, (floor, what) in plan.items()]))
        environment = {**os.environ, "STAND_IN_SAID_ALL": str(tmp_path / "said-all")}
        return run([sys.executable, str(STAND_INS), str(path)], env=environment, **options)

    return start


@pytest.fixture
def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port
