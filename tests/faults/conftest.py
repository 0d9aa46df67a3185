"""Faults are tried in the worker's house: real Redis, real database, scripted SMTP servers."""

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from postroom.front.cli import main
from postroom.front.house import environment_of
from worker.conftest import House, house, redis_server, smtp  # noqa: F401 - fixtures


@dataclass(frozen=True)
class Told:
    """What a command left: its exit status and what it printed."""

    code: int
    out: str
    err: str


Postroom = Callable[..., Told]


@pytest.fixture
def postroom(house: House) -> Postroom:  # noqa: F811 - pytest's way
    """Runs a command of the house, in this process."""

    def run(*words: str, stdin: bytes = b"") -> Told:
        out, err = io.StringIO(), io.StringIO()
        code: object = 0
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in environment_of(house.process.settings).items():
                patch.setenv(name, value)
            patch.chdir(house.process.settings.data_dir)
            patch.setattr(sys, "argv", ["postroom", *words])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            try:
                main()
            except SystemExit as end:
                code = end.code
        said = f"{code}\n" if isinstance(code, str) else ""
        return Told(code if isinstance(code, int) else 1, out.getvalue(), err.getvalue() + said)

    return run
