"""A real SMTP server, npm's smtp-server, on loopback: PLAIN, LOGIN, CRAM-MD5 and XOAUTH2, over STARTTLS and over TLS.

It needs node and npm. npm installs it once into the user's cache folder; afterwards no network is needed.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from servers.certificates import Certificates

_HERE: Final = Path(__file__).with_name("npm_smtp")
_START_SECONDS: Final = 20.0
_INSTALL_SECONDS: Final = 100.0
_MAILBOXES: Final = {"info@shop.example": "Pass-wörd 1", "sales@shop.example": "Pass-wörd 2"}


@dataclass(frozen=True, slots=True)
class Received:
    """One transaction that the server took; `content` with CRLF, dots unstuffed."""

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    login: str


class NpmSMTPServer:
    """The server, as a context manager, on 127.0.0.1 and two free ports. Where it cannot run, tests skip.

    Sign-in is required. A login may send from its own address alone (553 otherwise). A recipient whose local part
    begins with ``unknown`` is refused (550 5.1.1). An XOAUTH2 token is the password.

    Args:
        certificates: whose `good` certificate it shows.
        mailboxes: address → password. The address is the login, too.
        size_bytes: the largest letter taken.

    Attributes:
        port: begins plain and offers STARTTLS.
        tls_port: begins with TLS.
        login, password: of the first mailbox.
        other_login: of the second mailbox.
        received: the transactions taken, in order.
    """

    host: Final = "127.0.0.1"

    def __init__(
        self,
        certificates: Certificates,
        *,
        mailboxes: Mapping[str, str] = _MAILBOXES,
        size_bytes: int = 1_000_000,
    ) -> None:
        self.port = self.tls_port = 0
        self.received: list[Received] = []
        (self.login, self.password), (self.other_login, _) = list(mailboxes.items())[:2]
        self._certificates = certificates
        self._mailboxes = dict(mailboxes)
        self._size_bytes = size_bytes
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        missing = [program for program in ("node", "npm") if shutil.which(program) is None]
        if missing:
            assert os.environ.get("CI") != "true", f"smtp-server cannot run here: no {', '.join(missing)}"
            pytest.skip(f"smtp-server cannot run here: no {', '.join(missing)}")
        self._folder = Path(tempfile.mkdtemp(prefix="postroom-npm-", dir="/tmp"))
        self._certificates.write_good(self._folder / "chain.pem")
        try:
            self.start()
        except BaseException:
            shutil.rmtree(self._folder)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Starts it, again on the same ports; returns when it listens."""
        asked = {
            "chain": str(self._folder / "chain.pem"),
            "host": self.host,
            "ports": [self.port, self.tls_port],
            "mailboxes": self._mailboxes,
            "size": self._size_bytes,
        }
        self._process = subprocess.Popen(
            ["/usr/bin/env", "node", _HERE / "server.cjs", json.dumps(asked)],
            env={"PATH": os.environ["PATH"], "NODE_PATH": str(_installed() / "node_modules")},
            stdin=subprocess.PIPE,  # it ends with us, however we end
            stdout=subprocess.PIPE,
        )
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, name="npm-smtp-server", daemon=True)
        self._reader.start()
        if not self._listening.wait(_START_SECONDS):
            self.stop()
            raise RuntimeError("smtp-server does not start")

    def stop(self) -> None:
        """Ends it at once: open connections are cut."""
        self._process.kill()
        self._reader.join(5)
        self._process.communicate()

    def wait_received(self, count: int, timeout_seconds: float = 5) -> list[Received]:
        """Waits until at least `count` transactions were taken, and returns them all."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.received) >= count, timeout_seconds):
                raise AssertionError(f"{len(self.received)} of {count} transactions came in {timeout_seconds} s")
            return list(self.received)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, Any] = json.loads(line)
            if "ports" in told:
                self.port, self.tls_port = told["ports"]
                self._listening.set()
                continue
            with self._changed:
                content = base64.b64decode(told["content"])
                self.received.append(Received(told["reverse_path"], tuple(told["recipients"]), content, told["login"]))
                self._changed.notify_all()


def _installed() -> Path:
    """The folder with smtp-server in it, which npm fills if that was not done yet, by one of us at a time."""
    wanted = (_HERE / "package.json").read_text()
    version = json.loads(wanted)["dependencies"]["smtp-server"]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "postroom-tests"
    folder = cache / f"smtp-server-{version}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            unfinished = cache / f"{folder.name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            (unfinished / "package.json").write_text(wanted)
            command = [
                "/usr/bin/env",
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--no-package-lock",
                "--ignore-scripts",
            ]
            subprocess.run(command, cwd=unfinished, check=True, capture_output=True, timeout=_INSTALL_SECONDS)
            unfinished.rename(folder)
    return folder
