"""One program of the house while it runs: a session of its own, read without waiting, ended with all it began."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from postroom.front import child
from postroom.front.display import Lines

_READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes:
        name: before its lines.
        argv: the command.
        floor: started when everything on lower floors is ready, stopped when everything on higher floors has ended.
        answers: asked every 20 ms whether the program is ready; None if it says so itself (`child.say_ready`).
        first_pause_seconds: before the first restart; doubled from 1 s with each early death, 30 s at most.
        environment: all that it gets of one; None: this process's own.
    """

    name: str
    argv: Sequence[str]
    floor: int = 1
    answers: Callable[[], bool] | None = None
    first_pause_seconds: float = 1.0
    environment: Mapping[str, str] | None = None


class Process:
    """A program that has been started.

    Raises:
        OSError: it cannot be started.

    Attributes:
        output: descriptor of what it writes, stdout and stderr as one.
        word: descriptor on which it says one byte when it is ready; closed by `hear_ready`.
        started_at: of `time.monotonic`.
    """

    def __init__(self, program: Program) -> None:
        self.word, its_word = os.pipe()
        try:
            self._process = subprocess.Popen(
                program.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[its_word],
                start_new_session=True,
                preexec_fn=child.dying_with(os.getpid()),  # noqa: PLW1509 - whoever supervises has one thread
                env={
                    **(os.environ if program.environment is None else program.environment),
                    child.READY_FD: str(its_word),
                    child.SUPERVISOR_PID: str(os.getpid()),
                    "PYTHONUNBUFFERED": "1",
                },
            )
        except OSError:
            os.close(self.word)
            raise
        finally:
            os.close(its_word)
        if self._process.stdout is None:
            raise AssertionError("it was asked for")
        self._stdout = self._process.stdout
        self.output = self._stdout.fileno()
        os.set_blocking(self.output, False)
        self._lines = Lines()
        self.started_at = time.monotonic()

    @property
    def pid(self) -> int:
        """Process id, and the id of its process group."""
        return self._process.pid

    def ended(self) -> int | None:
        """Its return code, negative for a signal; None while it runs."""
        return self._process.poll()

    def hear_ready(self) -> bool:
        """Read its word: whether it said that it is ready, rather than closed the pipe."""
        said = os.read(self.word, 1)
        os.close(self.word)
        self.word = -1
        return bool(said)

    def read(self) -> list[bytes] | None:
        """The lines it wrote since; None when it will write no more or, for now, has not."""
        try:
            data = os.read(self.output, _READ_BYTES)
        except BlockingIOError:
            return None
        return self._lines.feed(data) if data else None

    def ask_to_stop(self) -> None:
        """SIGTERM, to the program alone."""
        self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, to the program and whatever it has started itself."""
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of zombies
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> list[bytes]:
        """Clean up after its end; gives the lines that had not been read."""
        lines = []
        while (more := self.read()) is not None:
            lines += more
        self._stdout.close()
        if self.word >= 0:
            os.close(self.word)
        return lines + self._lines.last()


def ending(code: int) -> str:
    """How a process ended, in words, from its return code as `subprocess` gives it."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
