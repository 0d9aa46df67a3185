"""One process of a campaign: `postroom worker KIND` or `scheduler`, with faults planted in it.

It is forked from a process that has imported everything and done nothing else: imports are most of a worker's start,
and campaigns start hundreds.
"""

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import pytest

from campaigns.faults import plant
from postroom.config.settings import load
from postroom.worker.app import run_worker
from postroom.worker.scheduler import run_scheduler

_PR_SET_PDEATHSIG = 1
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])
_TESTS = Path(__file__).parent.parent


class Child:
    """A process that has been started.

    Args:
        kind: accept, drain, care or scheduler.
        name: the worker's.
        faults: planted before it begins.
        environment: all that it gets of one.
        folder: where it works; what it says is added to `workers.log` there.
    """

    def __init__(
        self, kind: str, name: str, *, faults: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        _start_forks()
        arguments = (kind, name, faults, dict(environment), folder)
        self._process = _FORKS.Process(target=_live, args=arguments, daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.status is None:
            os.kill(self.pid, number)

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """Wait for its end.

        Raises:
            AssertionError: it still runs.
        """
        self._process.join(seconds)
        assert self.status is not None, f"it has not ended within {seconds} s"
        return self.status


@cache
def _start_forks() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(_TESTS), prepend=os.pathsep)  # for what is imported beforehand
        forkserver.ensure_running()


def _live(kind: str, name: str, faults: Sequence[str], environment: dict[str, str], folder: Path) -> None:
    # A campaign that is killed leaves no process behind, not even a stopped one.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    with Path(os.devnull).open("rb") as nothing, Path("workers.log").open("ab") as log:
        for ours, theirs in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(ours.fileno(), theirs)
    for fault in faults:
        plant(fault)
    if kind == "scheduler":
        run_scheduler(load())
    else:
        run_worker(kind, load(), name=name)  # type: ignore[arg-type]
