"""The doctor in a house where everything is up, and where one program after the other stops answering."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from postroom.config.settings import Settings
from postroom.front import house
from postroom.front.doctor import Report

Examine = Callable[[Settings], Report]
DOCTOR = [sys.executable, "-P", "-m", "postroom.front.cli", "doctor"]


@contextmanager
def paused(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def sick(report: Report) -> set[str]:
    return {check.name for check in report.checks if not check.ok}


def test_all_is_well_and_each_program_that_stops_answering_is_named(
    settings: Settings, examine: Examine, free_port: int, tmp_path: Path
) -> None:
    settings = settings.model_copy(update={"broker_url": None, "flower_bind": f"127.0.0.1:{free_port}"})
    with house.started(settings, log=tmp_path / "up.log") as running:
        report = examine(settings)
        assert report.ok, [check for check in report.checks if not check.ok]

        told = subprocess.run([*DOCTOR, "--json"], env=house.environment_of(settings), capture_output=True, check=True)
        printed = json.loads(told.stdout)
        assert printed["ok"] is True
        assert [set(check) for check in printed["checks"]] == [{"name", "ok", "message", "action"}] * len(report.checks)

        with paused(running.programs["drain"]):
            assert sick(examine(settings)) == {"worker_drain"}
        with paused(running.programs["flower"]):
            assert sick(examine(settings)) == {"flower"}
        with paused(running.programs["redis"]):
            began_at = time.monotonic()
            assert {"redis", "inbox", "worker_care", "scheduler"} <= sick(examine(settings))
            assert time.monotonic() - began_at < 8


def test_people_get_a_table_and_programs_an_exit_status(settings: Settings) -> None:
    told = subprocess.run(DOCTOR, env=house.environment_of(settings), capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "✓  private ring" in told.stdout
    assert "✗  redis" in told.stdout
    assert "POSTROOM_DATA_DIR" in told.stdout
    assert "Traceback" not in told.stderr
