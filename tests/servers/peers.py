"""Every kind of SMTP server, seen alike: where to sign in, what arrived at whom, and a restart in between."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from postroom.config.states import Auth, Security
from postroom.worker.smtp.server import Server
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.npm_smtp_server import NpmSMTPServer
from servers.postfix import PostfixServer
from servers.scripted_smtp import ScriptedSMTP

SIZE_BYTES: Final = 1_000_000
"""The largest letter that any of them takes."""

_PLACE: Final = {Security.STARTTLS: 0, Security.TLS: 1}
_TRACE: Final = re.compile(rb"(?:(?:Return-Path|X-Original-To|Delivered-To|Received):[^\n]*\n(?:[ \t][^\n]*\n)*)*")


class Peer(ABC):
    """One kind of server, offering STARTTLS and TLS and requiring sign-in.

    Attributes:
        login, password: of the mailbox; the login is its address.
        foreign_sender: an address that the login may not use.
        unknown: a recipient that is refused (550 5.1.1).
    """

    login = "info@shop.example"
    password = "Pass-wörd 1"
    foreign_sender = "sales@shop.example"
    unknown = "unknown@client.example"

    def __init__(self, *servers: Any) -> None:
        self._servers = servers

    def account(self, security: Security, auth: Auth, **settings: Any) -> Server:
        """An account on it."""
        usual = {"login": self.login, "password": self.password}
        return Server(host="localhost", port=self._port(security), security=security, auth=auth, **usual | settings)

    def restart(self) -> None:
        """Stops it, which cuts all connections, and starts it again."""
        for server in self._servers:
            server.stop()
            server.start()

    def letters_to(self, recipient: str, count: int = 1, timeout_seconds: float = 10) -> list[bytes]:
        """Waits for so many letters to a recipient, and returns all that came, as they were sent, in any order."""
        deadline = time.monotonic() + timeout_seconds
        while len(letters := [letter for whom, letter in self._arrived() if recipient in whom]) < count:
            assert time.monotonic() < deadline, f"{len(letters)} of {count} letters came"
            time.sleep(0.01)
        return letters

    def _port(self, security: Security) -> int:
        port: int = self._servers[_PLACE[security]].port
        return port

    @abstractmethod
    def _arrived(self) -> Iterator[tuple[Sequence[str], bytes]]: ...


class _Postfix(Peer):
    def _port(self, security: Security) -> int:
        (server,) = self._servers
        return int(server.port if security is Security.STARTTLS else server.tls_port)

    def _arrived(self) -> Iterator[tuple[Sequence[str], bytes]]:
        (server,) = self._servers
        for delivered in server.delivered():
            trace = _TRACE.match(delivered)
            assert trace is not None
            recipient = re.search(rb"^X-Original-To: (.*)$", trace[0], re.MULTILINE)
            assert recipient is not None
            yield [recipient[1].decode()], delivered[trace.end() :].replace(b"\n", b"\r\n")


class _Npm(_Postfix):
    def _arrived(self) -> Iterator[tuple[Sequence[str], bytes]]:
        (server,) = self._servers
        yield from ((each.recipients, each.content) for each in list(server.received))


class _Aiosmtpd(Peer):
    def _arrived(self) -> Iterator[tuple[Sequence[str], bytes]]:
        for server in self._servers:
            yield from ((each.recipients, each.content) for each in list(server.received))


class _Scripted(Peer):
    foreign_sender = "mail-553-5.7.1@shop.example"
    unknown = "rcpt-550-5.1.1@client.example"

    def restart(self) -> None:
        for server in self._servers:
            server.disconnect_all()

    def _arrived(self) -> Iterator[tuple[Sequence[str], bytes]]:
        for server in self._servers:
            yield from ((each.recipients, each.content) for each in list(server.accepted))


@contextmanager
def postfix(certificates: Certificates) -> Iterator[Peer]:
    """Postfix: PLAIN, LOGIN, CRAM-MD5."""
    with PostfixServer(certificates, size_bytes=SIZE_BYTES) as server:
        assert (server.login, server.password, server.other_login) == (Peer.login, Peer.password, Peer.foreign_sender)
        yield _Postfix(server)


@contextmanager
def npm(certificates: Certificates) -> Iterator[Peer]:
    """npm's smtp-server: PLAIN, LOGIN, CRAM-MD5, XOAUTH2."""
    with NpmSMTPServer(certificates, size_bytes=SIZE_BYTES) as server:
        assert (server.login, server.password, server.other_login) == (Peer.login, Peer.password, Peer.foreign_sender)
        yield _Npm(server)


@contextmanager
def aiosmtpd(certificates: Certificates) -> Iterator[Peer]:
    """aiosmtpd: PLAIN, LOGIN; no PIPELINING."""
    settings: dict[str, Any] = {
        "certificate": certificates.good,
        "login": Peer.login,
        "password": Peer.password,
        "own_address_only": True,
        "refuse": {Peer.unknown: "550 5.1.1 no such user here"},
        "size_bytes": SIZE_BYTES,
        "smtputf8": True,
    }
    with AiosmtpdServer(**settings) as starttls, AiosmtpdServer(implicit_tls=True, **settings) as tls:
        yield _Aiosmtpd(starttls, tls)


@contextmanager
def scripted(certificates: Certificates) -> Iterator[Peer]:
    """The scripted server, on its best behaviour: PLAIN, LOGIN, CRAM-MD5, XOAUTH2."""
    settings: dict[str, Any] = {
        "certificate": certificates.good,
        "login": Peer.login,
        "password": Peer.password,
        "size_bytes": SIZE_BYTES,
        "extensions": ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8"],
    }
    with ScriptedSMTP(**settings) as starttls, ScriptedSMTP(implicit_tls=True, **settings) as tls:
        yield _Scripted(starttls, tls)
