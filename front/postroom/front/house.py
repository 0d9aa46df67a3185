"""Runs `postroom up` as a child, waits until everything is up and stops it: for the demo, and for tests.

with house.started(settings, log=folder / "up.log") as running:
    running.flower_url, running.programs["drain"]
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from postroom.config.settings import Settings
from postroom.front import child
from postroom.front.process import ending
from postroom.front.up import ready_file, self_command
from postroom.producer.errors import Refused
from postroom.producer.surroundings import SECRETS_DIR

_STOP_SECONDS: Final = 20.0
_LAST_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class House:
    """A `postroom up` in which everything is up.

    Attributes:
        process: of `postroom up` itself.
        flower_url: with the last slash.
        programs: name → pid, as at the start.
    """

    process: subprocess.Popen[bytes]
    flower_url: str
    programs: dict[str, int]


@contextmanager
def started(settings: Settings, *, log: Path, timeout_seconds: float = 60) -> Iterator[House]:
    """Everything that `postroom up` starts, under exactly these settings; stopped warmly when the block ends.

    A terminal's Ctrl-C does not reach it, so that whoever asked for it decides; it stops by itself when the process
    that started it is gone. Call it from the main thread.

    Args:
        settings: in force inside, whatever the environment and the current folder's `.env` say.
        log: file that takes what `up` prints.
        timeout_seconds: how long to wait until everything is up.

    Raises:
        Refused: it did not come up; the message ends with its last lines.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    process = None
    try:
        with _signals_put_off():
            process = _start(settings, log)
        yield _when_up(process, settings, log, timeout_seconds)
    finally:
        if process is not None:
            _stop(process)


def _start(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            self_command("up"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=settings.data_dir,
            env={**environment_of(settings), child.SUPERVISOR_PID: str(os.getpid())},
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def _signals_put_off() -> Iterator[None]:
    """Let a signal's handler wait for the end of the block: raised within it, a process just started would be lost."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    handled = {number: handler for number, handler in before.items() if callable(handler)}
    for number in handled:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
        for each in came[:1]:
            signal.raise_signal(each)


def environment_of(settings: Settings) -> dict[str, str]:
    """This process's environment with exactly these settings in it."""
    given = {name: value for name, value in os.environ.items() if not name.upper().startswith("POSTROOM_")}
    given[SECRETS_DIR] = os.devnull
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            given[f"POSTROOM_{name.upper()}"] = _text(value)
    return given


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):  # it is read in another folder
        return str(value.resolve())
    return str(value)


def _when_up(process: subprocess.Popen[bytes], settings: Settings, log: Path, timeout_seconds: float) -> House:
    until = time.monotonic() + timeout_seconds
    path = ready_file(settings.data_dir)
    while time.monotonic() < until:
        if path.exists() and (state := json.loads(path.read_text("utf-8")))["pid"] == process.pid:
            return House(process, state["flower_url"], state["programs"])
        try:
            what = ending(process.wait(0.05))
        except subprocess.TimeoutExpired:
            continue
        raise Refused(f"`postroom up` ended before everything was up ({what}):\n{_end_of(log)}")
    raise Refused(f"`postroom up` was not up after {timeout_seconds:.0f} s:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:])
