"""A process that the bench starts: ended when its block ends, and spoken with in lines where it speaks."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

_SHOWN_CHARACTERS: Final = 3000


class Child:
    """A running process.

    Attributes:
        name: what the tables call it.
        pid: its id; its own children count with it.
    """

    def __init__(self, name: str, process: "subprocess.Popen[str]", log: Path) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    def say(self, line: str) -> None:
        """Write one line to it."""
        if self._process.stdin is not None:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def hear(self) -> str:
        """The next line that it says.

        Raises:
            RuntimeError: it ended, or is not one that speaks; the message holds the end of its log.
        """
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} says nothing more. Its log:\n{self.log}")
        return line.rstrip("\n")

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    @property
    def log(self) -> str:
        """The end of what it logged."""
        return self._log.read_text("utf-8", "replace")[-_SHOWN_CHARACTERS:]


class Children:
    """Processes that run in one folder, as a context manager; they end in the reverse order of their start.

    Attributes:
        pids: name → process id.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self.pids: dict[str, int] = {}
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def start(self, name: str, *command: str | Path, speaks: bool = False) -> Child:
        """Start one more; see `started`."""
        process = self._running.enter_context(
            started(name, command, folder=self.folder, environment=self.environment, speaks=speaks)
        )
        self.pids[name] = process.pid
        return process

    def start_producer(self, *command: str | Path) -> Child:
        """Start what speaks as `bench.producing` tells, and wait until it is ready."""
        producer = self.start("producer", *command, speaks=True)
        producer.hear()
        return producer


@contextmanager
def started(
    name: str,
    command: Sequence[str | Path],
    *,
    folder: Path,
    environment: Mapping[str, str] | None = None,
    speaks: bool = False,
) -> Iterator[Child]:
    """Start a process in a folder, where its log is kept too. When the block ends it is killed with all its children:
    what it kept is worth nothing then. On Linux it does not outlive the bench, however that ends, and Ctrl-C does not
    reach it.

    Args:
        name: what the tables call it.
        command: the program and its arguments.
        folder: where it runs.
        environment: all of its environment; none: this process's.
        speaks: its stdin and stdout are for `say` and `hear`; else stdout goes to the log.
    """
    bound = ["setpriv", "--pdeathsig", "TERM"] if sys.platform == "linux" else []
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*bound, *command],
            stdin=subprocess.PIPE if speaks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if speaks else output,
            stderr=output,
            text=True,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    try:
        yield Child(name, process, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
