"""A doctor's patient: a folder with keys and a migrated database, and the settings that point at it."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from postroom.config.database import migrate
from postroom.config.settings import Settings
from postroom.config.vault import keygen
from postroom.front.doctor import Report, diagnose
from postroom.front.house import environment_of
from servers.redis_server import RedisServer

Examine = Callable[..., Report]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Everything that can be there without a running program."""
    settings = Settings(_env_file=None, data_dir=tmp_path / "data", broker_url=f"redis+socket://{tmp_path}/no.sock")
    settings.data_dir.mkdir(mode=0o700, exist_ok=True)
    keygen(settings)
    migrate(settings.database)
    return settings


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Examine:
    """Runs the doctor under these settings, in an empty folder."""

    def run(settings: Settings) -> Report:
        for name in [name for name in os.environ if name.startswith("POSTROOM_")]:
            monkeypatch.delenv(name)
        for name, value in environment_of(settings).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        return diagnose()

    return run


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def web_server() -> Iterator[Callable[[dict[str, int]], int]]:
    """Starts servers that answer paths with a status, 404 to others; gives the port."""
    with ExitStack() as stack:

        def start(status_of: dict[str, int]) -> int:
            class Answers(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status_of.get(self.path, 404))
                    self.end_headers()

                def log_message(self, *_: object) -> None: ...

            server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Answers))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)
            return server.server_port

        yield start
