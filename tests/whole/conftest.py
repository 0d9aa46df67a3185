"""The whole of Postroom as `postroom up` runs it, in a scratch folder, with a real SMTP server."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from postroom.front.up import ready_file
from postroom.producer import Producer
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.command import Command
from servers.databases import Databases

LOGIN = "shop@shop.example"
PASSWORD = "correct-horse-Пароль"  # no mailbox of this world


@dataclass
class Whole:
    """Everything running, and the ways in."""

    folder: Path
    environment: dict[str, str]
    up: Command
    smtp: AiosmtpdServer
    flower_url: str

    def postroom(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command as its user would."""
        return subprocess.run(
            [sys.executable, "-P", "-m", "postroom.front.cli", *words],
            input=given,
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=60,
            check=False,
        )

    def add_account(self, address: str = LOGIN, *more: str) -> None:
        """Add an account that signs in over STARTTLS; it is proved by the running worker."""
        added = self.postroom(
            *("account", "add", "--address", address, "--name", "Магазин «Ромашка»", "--login", LOGIN),
            *("--host", "localhost", "--port", str(self.smtp.port), "--security", "starttls", "--password-stdin"),
            *more,
            given=PASSWORD,
        )
        assert added.returncode == 0, added.stderr

    @property
    def flower_auth(self) -> tuple[str, str]:
        """Flower's user and password, as `up` made them."""
        user, _, password = (self.folder / "data" / "keys" / "flower.auth").read_text().strip().partition(":")
        return user, password

    def producer(self) -> Producer:
        """A site's producer."""
        folder = self.folder / "data"
        return Producer(self.postroom("broker-url").stdout.strip(), public_key=folder / "keys" / "public.key")


@pytest.fixture(scope="module")
def whole(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Whole]:
    """On the SQLite that `up` makes, unless a module says `DATABASE = "postgresql"`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postroom-", dir="/tmp")))
        certificates = Certificates(folder)
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            flower_port = trial.getsockname()[1]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
        environment |= {
            "POSTROOM_DATA_DIR": str(folder / "data"),
            "POSTROOM_FLOWER_BIND": f"127.0.0.1:{flower_port}",
            "POSTROOM_SMTP_CA_FILE": str(certificates.ca_file),
            "POSTROOM_LEASE_SECONDS": "10",
        }
        if getattr(request.module, "DATABASE", "sqlite") == "postgresql":
            environment["POSTROOM_DATABASE_URL"] = stack.enter_context(databases.empty("postgresql", folder))
        up = Command([sys.executable, "-P", "-m", "postroom.front.cli", "up"], env=environment, cwd=folder)
        try:
            up.wait_for("Everything is up")
            assert ready_file(folder / "data").exists()
            with AiosmtpdServer(certificate=certificates.good, login=LOGIN, password=PASSWORD) as smtp:
                yield Whole(folder, environment, up, smtp, f"http://127.0.0.1:{flower_port}")
        finally:
            up.close()
