"""One connection: whole replies in, bytes out, everything bounded in time and size."""

import contextlib
import re
import select
import socket
import ssl
import time
from typing import Final

from postroom.worker.smtp.errors import Closed, Surprise, TimedOut
from postroom.worker.smtp.replies import Reply, reply_of

LINE_KEPT_BYTES: Final = 4096
"""A longer line is cut; RFC 5321 §4.5.3.1.5 allows 512."""
REPLY_LIMIT_BYTES: Final = 65536
"""A larger reply ends the session."""
BLOCK_BYTES: Final = 262144
"""Content is written in blocks of this size, each with its own time-out."""
_READ_BYTES: Final = 16384
_STOPPED: Final = "the worker was stopped while it waited for the reply"
_CODE: Final = re.compile(rb"[2-5][0-9][0-9]")


class Wire:
    """A connected socket with its read buffer.

    Every method that talks raises `TimedOut`, `Closed` or `Surprise`; afterwards the wire is of no more use.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self._cut_off = False
        self._poll = select.poll()
        self._poll.register(connection.fileno(), select.POLLIN)

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def tls_summary(self) -> str:
        """For people: protocol version and whom the certificate names."""
        assert isinstance(self._socket, ssl.SSLSocket)  # noqa: S101 - asked only after the handshake
        certificate = self._socket.getpeercert() or {}
        alternatives = certificate.get("subjectAltName", ())
        names = [str(name) for _, name in alternatives] if isinstance(alternatives, tuple) else []
        return f"{self._socket.version()}, certificate of {', '.join(names[:3]) or 'nobody'}"

    @property
    def has_unread(self) -> bool:
        """Whether bytes lie in the buffer that no reply has used."""
        return bool(self._buffer)

    def write(self, data: bytes | memoryview, *, timeout_seconds: float) -> None:
        """Writes all of `data` within the time-out."""
        try:
            self._socket.settimeout(timeout_seconds)
            self._socket.sendall(data)
        except TimeoutError as error:
            raise TimedOut(f"the server took nothing in for {timeout_seconds:g} s") from error
        except OSError as error:
            raise Closed("the connection broke while writing") from error

    def write_content(self, content: bytes, *, block_timeout_seconds: float) -> None:
        """Writes content in blocks, each within the time-out (RFC 5321 §4.5.3.2.5)."""
        if len(content) <= BLOCK_BYTES:
            self.write(content, timeout_seconds=block_timeout_seconds)
            return
        view = memoryview(content)
        for start in range(0, len(content), BLOCK_BYTES):
            self.write(view[start : start + BLOCK_BYTES], timeout_seconds=block_timeout_seconds)

    def read_reply(self, command: str, *, timeout_seconds: float) -> Reply:
        """The next reply, whole, within the time-out however slowly it drips (RFC 5321 §4.2)."""
        code, lines = self.read_lines(timeout_seconds=timeout_seconds)
        return reply_of(code, lines, command)

    def read_lines(self, *, timeout_seconds: float) -> tuple[int, list[bytes]]:
        """The next reply as its code and the text of every line."""
        deadline = time.monotonic() + timeout_seconds
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._read_line(deadline, timeout_seconds)
            size += len(line)
            if size > REPLY_LIMIT_BYTES:
                raise Surprise("the server's reply has no end")
            code, separator = line[:3], line[3:4]
            if not (_CODE.fullmatch(code) and separator in (b" ", b"-", b"")):
                raise Surprise(f"the server does not speak SMTP here: {_shown(line)}")
            lines.append(line[4:LINE_KEPT_BYTES])
            if separator != b"-":
                return int(code), lines

    def waiting(self) -> bool:
        """Whether something arrived that nobody asked for: bytes, or the end of the connection. Never blocks."""
        if self._buffer:
            return True
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0
        if not pending and not self._poll.poll(0):
            return False
        try:
            self._socket.settimeout(0)
            piece = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):  # TLS has matters of its own, such as session tickets
            return False
        except OSError:
            return True
        self._buffer += piece
        return True

    def last_words(self) -> Reply | None:
        """The reply that already arrived on a broken connection, such as a 421 or 552 before the server hung up."""
        with contextlib.suppress(OSError):
            return self.read_reply("", timeout_seconds=0.05)
        return None

    def start_tls(self, context: ssl.SSLContext, host: str, *, timeout_seconds: float) -> None:
        """Makes the TLS handshake and verifies the certificate for `host`.

        Raises:
            ssl.SSLError: the handshake failed, or the certificate does not hold.
            OSError: the connection broke, or the time ran out.
        """
        if self._buffer:  # injected before the handshake, it would pass for the server's word after it (CVE-2011-0411)
            raise Surprise("the server sent plain text after agreeing to STARTTLS")
        self._socket.settimeout(timeout_seconds)
        self._socket.getpeername()  # raises if it was reset meanwhile; wrap_socket would then leave a socket unclosed
        self._socket = context.wrap_socket(self._socket, server_hostname=host)

    def cut_off(self) -> None:
        """Breaks the connection from another thread than the one that waits for it; never raises."""
        self._cut_off = True
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # not TLS's, which the other thread is using

    def close(self) -> None:
        """Closes the connection at once; never raises."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _read_line(self, deadline: float, timeout_seconds: float) -> bytes:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > REPLY_LIMIT_BYTES:
                raise Surprise("the server's reply has no end")
            self._buffer += self._read(deadline, timeout_seconds)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def _read(self, deadline: float, timeout_seconds: float) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimedOut(f"no reply within {timeout_seconds:g} s")
        try:
            self._socket.settimeout(left)
            piece = self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            raise TimedOut(f"no reply within {timeout_seconds:g} s") from error
        except OSError as error:
            raise Closed(_STOPPED if self._cut_off else "the connection broke") from error
        if not piece:
            raise Closed(_STOPPED if self._cut_off else "the server closed the connection")
        return piece


def _shown(line: bytes) -> str:
    """A line of garbage, made fit to be shown: it may well be a page of HTML or a TLS record."""
    text = line[:60].decode("ascii", "replace")
    return repr("".join(character if character.isprintable() else "." for character in text))
