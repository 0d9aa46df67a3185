"""What tests of the SMTP client share: an account on a test server, a client with short time-outs, a letter."""

import ssl
from dataclasses import dataclass
from typing import Any, Final, Protocol

import pytest

from postroom.config.settings import Settings
from postroom.config.states import Auth, Security
from postroom.worker.smtp.errors import OpenFailed
from postroom.worker.smtp.server import Client, Server, Timeouts
from postroom.worker.smtp.session import Session
from servers.scripted_smtp import ScriptedSMTP

LETTER: Final = b"From: a@shop.example\r\nTo: b@client.example\r\nSubject: hello\r\n\r\nHello\r\n"

SMTP_TIMEOUTS: Final[dict[str, Any]] = {
    name: 2 for name in Settings.model_fields if name.startswith("smtp_") and name.endswith("_timeout_seconds")
}
"""Settings for tests in which servers hang."""


class Listens(Protocol):
    """A test server of either kind."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


@dataclass(frozen=True, slots=True)
class At:
    """A place where something may listen."""

    host: str
    port: int


def account(server: Listens, **settings: Any) -> Server:
    """An account on that server: plain and without sign-in, unless said otherwise."""
    usual: dict[str, Any] = {"security": Security.NONE, "auth": Auth.NONE, "host": server.host, "port": server.port}
    return Server(**usual | settings)


def client_with(tls: ssl.SSLContext, seconds: float) -> Client:
    """A client that gives every step the same time, but no more than a second to QUIT."""
    return Client("client.example", Timeouts().at_most(seconds, dot_seconds=seconds), tls)


def permitted() -> bool:
    """The permit of a ledger that is well."""
    return True


def failure(server: ScriptedSMTP, client: Client, **settings: object) -> OpenFailed:
    """How opening a session on that server fails; the server has no connection left then."""
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, **settings), client)
    server.wait_connections_closed()
    return caught.value
