"""A command under test: a real process whose lines can be waited for."""

import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE_SECONDS = 30.0


def _hear_hang_ups() -> None:
    """SIGHUP is ignored by all that tests start when they run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Command:
    """A running command. Its output, stdout and stderr as one, is collected by a thread until it ends."""

    def __init__(self, argv: Sequence[str], *, terminal: bool = False, **options: object) -> None:
        self.output = ""
        self._more = threading.Condition()
        self.began_at = time.monotonic()
        self.reading = threading.Event()
        self.reading.set()
        ours, its = pty.openpty() if terminal else os.pipe()
        self._hung_up = threading.Event()
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
            **{"preexec_fn": _hear_hang_ups, **options},  # type: ignore[call-overload]
        )
        os.close(its)
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    def _read(self, ours: int) -> None:
        while not self._hung_up.is_set():
            try:  # never blocked in read: that would keep the terminal open after hang_up
                data = os.read(ours, 65536) if select.select([ours], [], [], 0.05)[0] else None
            except OSError:  # a pty whose other side is closed
                data = b""
            if data is None:
                continue
            with self._more:
                self.output += data.decode()
                self._more.notify_all()
            if not data:
                break
            self.reading.wait()
        os.close(ours)

    def wait_for(self, pattern: str, *, start: int = 0) -> re.Match[str]:
        """The first place where the output, from `start` on, matches."""
        with self._more:
            found = self._more.wait_for(lambda: re.search(pattern, self.output[start:]), PATIENCE_SECONDS)
        assert found, f"no {pattern!r} in:\n{self.output[-3000:]}"
        return found

    def hang_up(self) -> None:
        """Close our side of its terminal or pipe: whoever watched is gone."""
        self._hung_up.set()
        self.reading.set()
        self._reader.join(PATIENCE_SECONDS)

    def ends(self) -> int:
        """Wait for its end and for the last of its output; gives the exit status."""
        status: int = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return status

    def pids(self) -> dict[str, int]:
        """Name → pid of the programs, from the lines that say that they are up."""
        return {name: int(pid) for name, pid in re.findall(r"\| (?:\x1b\[0m )?(\w+) is up \(pid (\d+)", self.output)}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.hang_up()


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(what: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition of the outside world holds."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it never came to hold"
        time.sleep(0.01)
