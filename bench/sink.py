"""Starts the mail server of `sink.c`, compiled for the occasion, and reads what it took."""

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import child
from bench.child import Child
from servers.certificates import Certificates

HOST: Final = "127.0.0.1"
LOGIN: Final = "bench@shop.example"
PASSWORD: Final = "correct horse"  # noqa: S105 - of a server that keeps nothing
_SOURCE: Final = Path(__file__).with_suffix(".c")
_LOOK_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Taken:
    """A mail that the sink took.

    Attributes:
        at: `time.monotonic()` of its final 250.
    """

    at: float
    recipient: str


class Sink:
    """A running sink.

    Attributes:
        ca_file: whom to trust; None where it speaks in clear and asks for no sign-in.
    """

    def __init__(self, process: Child, journal: Path, ca_file: Path | None) -> None:
        self.process = process
        self.ca_file = ca_file
        self.port = int(process.hear())
        self._journal = journal
        self._read_bytes = 0
        self._taken: list[Taken] = []

    @property
    def taken(self) -> list[Taken]:
        """All that it took so far, in order; at most 5 ms behind."""
        with self._journal.open("rb") as file:
            file.seek(self._read_bytes)
            news = file.read()
        whole = news[: news.rfind(b"\n") + 1]
        self._read_bytes += len(whole)
        for line in whole.decode().splitlines():
            at, _, recipient = line.partition(" ")
            self._taken.append(Taken(float(at), recipient))
        return self._taken

    def wait_taken(self, count: int, timeout_seconds: float) -> None:
        """Wait until it took so many in all.

        Raises:
            TimeoutError: it did not in time.
        """
        until = time.monotonic() + timeout_seconds
        while (taken := len(self.taken)) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"only {taken} of {count} mails arrived within {timeout_seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)


@contextmanager
def started(folder: Path, *, secure: bool, delay_seconds: float = 0) -> Iterator[Sink]:
    """A sink of its own, on a free port of 127.0.0.1.

    Args:
        folder: an empty one, for its files.
        secure: whether it demands STARTTLS and AUTH (PLAIN or LOGIN).
        delay_seconds: how long it is busy with each mail before its 250.

    Raises:
        RuntimeError: it cannot be compiled here.
    """
    folder.mkdir(parents=True)
    arguments = [str(folder / "journal"), str(round(delay_seconds * 1_000_000))]
    ca_file = None
    if secure:
        certificates = Certificates(folder)
        certificates.write_good(folder / "server.pem")
        ca_file = certificates.ca_file
        secrets = f"\0{LOGIN}\0{PASSWORD}", LOGIN, PASSWORD
        arguments += [str(folder / "server.pem"), *(base64.b64encode(each.encode()).decode() for each in secrets)]
    with child.started("sink", [_compiled(folder), *arguments], folder=folder, speaks=True) as process:
        yield Sink(process, folder / "journal", ca_file)


def _compiled(folder: Path) -> Path:
    program = folder / "sink"
    compiler = shutil.which("cc")
    command = [compiler or "cc", "-O2", "-o", str(program), str(_SOURCE), "-lssl", "-lcrypto"]
    if compiler is None or subprocess.run(command, check=False).returncode != 0:
        raise RuntimeError("the mail server needs a C compiler and OpenSSL (apt install gcc libc6-dev libssl-dev)")
    return program
