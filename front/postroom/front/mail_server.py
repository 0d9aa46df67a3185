"""A real SMTP server on loopback, for the demo: STARTTLS and AUTH are demanded, and what it took is kept with its time.

It is a provider in small: each mailbox signs in with its own address and password, and may send only as itself.
"""

import asyncio
import hmac
import logging
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

HOST: Final = "127.0.0.1"
_STARTING_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """A letter that the server took.

    Attributes:
        content: as it came, dots unstuffed.
        login: the mailbox that had signed in.
        at: `time.monotonic()` of the server's 250.
    """

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    login: str
    at: float


class MailServer:
    """The server, as a context manager, on a free port and in a thread of its own.

    Args:
        tls: the context for STARTTLS.
        mailboxes: address → password of those who may sign in.

    Attributes:
        port: where it listens, on 127.0.0.1.
    """

    def __init__(self, tls: ssl.SSLContext, mailboxes: Mapping[str, str]) -> None:
        self.port = 0
        self._tls = tls
        self._mailboxes = dict(mailboxes)
        self._arrived: list[Arrived] = []
        self._more = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._connections: set[SMTP] = set()

    def __enter__(self) -> Self:
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)  # a refused login is part of the story
        listener = socket.create_server((HOST, 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a reply of several lines takes 40 ms
        self.port = listener.getsockname()[1]
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, started.set), name="mail-server", daemon=True)
        self._thread.start()
        started.wait(_STARTING_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def arrived(self) -> list[Arrived]:
        """What came so far, in order."""
        with self._more:
            return list(self._arrived)

    def wait_for(self, wanted: Callable[[Arrived], bool], timeout_seconds: float) -> Arrived | None:
        """The first letter that is wanted, as soon as it is there; None if it did not come in time."""

        def found() -> Arrived | None:
            return next(filter(wanted, self._arrived), None)

        with self._more:
            return self._more.wait_for(found, timeout_seconds)

    # What aiosmtpd asks

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, credentials: Any
    ) -> AuthResult:
        login = credentials.login.decode("utf-8", "replace")
        password = self._mailboxes.get(login)
        right = password is not None and hmac.compare_digest(credentials.password, password.encode())
        return AuthResult(success=right, handled=False, auth_data=login)

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """A mailbox sends as itself alone."""
        if address != session.auth_data:
            return f"553 5.7.1 <{address}>: not owned by {session.auth_data}"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Keep the letter."""
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        letter = Arrived(
            envelope.mail_from or "", tuple(envelope.rcpt_tos), content, str(session.auth_data), time.monotonic()
        )
        with self._more:
            self._arrived.append(letter)
            self._more.notify_all()
        return f"250 2.0.0 OK: letter {len(self._arrived)}"

    # The thread

    def _run(self, listener: socket.socket, say_started: Callable[[], None]) -> None:
        try:
            self._loop.run_until_complete(self._serve(listener, say_started))
        finally:
            self._loop.close()

    async def _serve(self, listener: socket.socket, say_started: Callable[[], None]) -> None:
        server = await self._loop.create_server(self._connection, sock=listener)
        say_started()
        await self._stop.wait()
        server.close()
        for connection in self._connections:
            if isinstance(connection.transport, asyncio.Transport):
                connection.transport.abort()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    def _connection(self) -> SMTP:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it finds odd in settings that are meant so
            connection = SMTP(
                self,
                hostname="mail.demo.example",
                ident="the demo's mail server",
                tls_context=self._tls,
                require_starttls=True,
                auth_required=True,
                authenticator=self._authenticate,
                loop=self._loop,
            )
        self._connections.add(connection)
        return connection
