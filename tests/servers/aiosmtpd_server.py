"""A real SMTP server, aiosmtpd, on loopback with STARTTLS and AUTH; it records what it took.

The peer for whatever should work: for what a far side can do wrong there is `servers.scripted_smtp`.
"""

import asyncio
import hmac
import socket
import ssl
import threading
import warnings
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session


@dataclass(frozen=True, slots=True)
class Received:
    """One transaction that the server took.

    Attributes:
        content: the letter as the server saw it, with CRLF, dots unstuffed.
        login: who signed in, or None.
    """

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    options: tuple[str, ...]
    encrypted: bool
    login: str | None


class AiosmtpdServer:
    """The server, as a context manager, on 127.0.0.1 and a free port, in a thread of its own.

    Args:
        certificate: server-side TLS context. With it STARTTLS is required before anything else, or, with
            `implicit_tls`, the connection starts with TLS.
        login: the only login that may sign in, by PLAIN or LOGIN; with it MAIL needs AUTH.
        own_address_only: MAIL takes no address but the login (553 5.7.1).
        refuse: recipient → the whole reply that RCPT gets for it.

    Attributes:
        received: the transactions taken, in order.
    """

    def __init__(
        self,
        *,
        certificate: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: str | None = None,
        password: str = "",
        own_address_only: bool = False,
        refuse: dict[str, str] | None = None,
        size_bytes: int = 33_554_432,
        smtputf8: bool = False,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.received: list[Received] = []
        self._certificate = certificate
        self._implicit_tls = implicit_tls
        self._login = login
        self._password = password
        self._own_address_only = own_address_only
        self._refuse = refuse or {}
        self._size_bytes = size_bytes
        self._smtputf8 = smtputf8
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Starts it, again on the same port."""
        self._loop = asyncio.new_event_loop()
        self._tasks: set[SMTP] = set()
        self._listener = socket.create_server((self.host, self.port), backlog=512)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or EHLO's reply waits 40 ms
        self.port = self._listener.getsockname()[1]
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="aiosmtpd", daemon=True)
        self._thread.start()
        started.wait(5)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes the listener and every connection, and waits for the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(5)

    def wait_received(self, count: int, timeout_seconds: float = 5) -> list[Received]:
        """Waits until at least `count` transactions were taken, and returns them all."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.received) >= count, timeout_seconds):
                raise AssertionError(f"{len(self.received)} of {count} transactions came in {timeout_seconds} s")
            return list(self.received)

    # -- aiosmtpd's hooks

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._own_address_only and address != self._login:
            return f"553 5.7.1 <{address}>: Sender address rejected: not owned by user {self._login}"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self._refuse.get(address):
            return refusal
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        content = envelope.original_content
        with self._changed:
            self.received.append(
                Received(
                    reverse_path=envelope.mail_from or "",
                    recipients=tuple(envelope.rcpt_tos),
                    content=content if isinstance(content, bytes) else b"",
                    options=tuple(envelope.mail_options),
                    encrypted=session.ssl is not None or self._implicit_tls,
                    login=self._login if session.authenticated else None,
                )
            )
            self._changed.notify_all()
        return "250 2.0.0 OK"

    def _authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, credentials: Any
    ) -> AuthResult:
        assert self._login is not None
        right = credentials.login == self._login.encode() and hmac.compare_digest(
            credentials.password, self._password.encode()
        )
        return AuthResult(success=right, handled=False)

    # -- the thread

    def _protocol(self) -> SMTP:
        starttls = self._certificate if not self._implicit_tls else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of AUTH without STARTTLS, which is what some tests are about
            protocol = SMTP(
                self,
                hostname="aiosmtpd.example",
                data_size_limit=self._size_bytes,
                enable_SMTPUTF8=self._smtputf8,
                tls_context=starttls,
                require_starttls=starttls is not None,
                auth_required=self._login is not None,
                auth_require_tls=starttls is not None,
                authenticator=self._authenticate if self._login else None,
                loop=self._loop,
            )
        self._tasks.add(protocol)
        return protocol

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve(started))
        finally:
            self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        self._stopping = asyncio.Event()
        server = await self._loop.create_server(
            self._protocol, sock=self._listener, ssl=self._certificate if self._implicit_tls else None
        )
        started.set()
        await self._stopping.wait()
        server.close()
        for protocol in self._tasks:
            if isinstance(protocol.transport, asyncio.Transport):
                protocol.transport.abort()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
