"""One connection: whole replies in, bytes out, everything bounded in time and size."""

import contextlib
import math
import re
import select
import socket
import ssl
import time
from functools import lru_cache
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
_USUAL_LINE_BYTES: Final = 512
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_STOPPED: Final = "the worker was stopped while it waited for the reply"
_CODE: Final = re.compile(rb"[2-5][0-9][0-9]")


class Wire:
    """A connected socket with its read buffer. It never blocks by itself: what must wait asks `poll`, which costs one
    system call less than a socket's own time-out, and leaves the interpreter to other threads less often.

    Every method that talks raises `TimedOut`, `Closed` or `Surprise`; afterwards the wire is of no more use.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._encrypted: ssl.SSLSocket | None = None
        self._buffer = bytearray()
        self._cut_off = False
        self._readable = select.poll()
        self._readable.register(connection.fileno(), select.POLLIN)

    @property
    def encrypted(self) -> bool:
        """Whether TLS is on."""
        return self._encrypted is not None

    @property
    def tls_summary(self) -> str:
        """For people: protocol version and whom the certificate names."""
        assert self._encrypted is not None  # noqa: S101 - asked only after the handshake
        certificate = self._encrypted.getpeercert() or {}
        alternatives = certificate.get("subjectAltName", ())
        names = [str(name) for _, name in alternatives] if isinstance(alternatives, tuple) else []
        return f"{self._encrypted.version()}, certificate of {', '.join(names[:3]) or 'nobody'}"

    @property
    def has_unread(self) -> bool:
        """Whether bytes lie in the buffer that no reply has used."""
        return bool(self._buffer)

    def write(self, data: bytes | memoryview, *, timeout_seconds: float) -> None:
        """Writes all of `data` within the time-out."""
        try:
            sent = self._send(data)
            if sent < len(data):
                self._write_rest(memoryview(data)[sent:], timeout_seconds)
        except TimeoutError as error:
            raise TimedOut(f"the server took nothing in for {timeout_seconds:g} s") from error
        except OSError as error:
            raise Closed("the connection broke while writing") from error

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except _NOT_NOW:
            return 0

    def _write_rest(self, rest: memoryview, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        writable = select.poll()
        writable.register(self._socket.fileno(), select.POLLOUT)
        while rest:
            if not writable.poll(_milliseconds(deadline - time.monotonic())):
                raise TimeoutError
            rest = rest[self._send(rest) :]

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
        deadline = time.monotonic() + timeout_seconds
        line = self._read_line(deadline, timeout_seconds)
        if len(line) <= _USUAL_LINE_BYTES and line[3:4] != b"-":
            return _reply_of_line(line, command)
        return reply_of(*self._lines(line, deadline, timeout_seconds), command)

    def read_lines(self, *, timeout_seconds: float) -> tuple[int, list[bytes]]:
        """The next reply as its code and the text of every line."""
        deadline = time.monotonic() + timeout_seconds
        return self._lines(self._read_line(deadline, timeout_seconds), deadline, timeout_seconds)

    def _lines(self, first: bytes, deadline: float, timeout_seconds: float) -> tuple[int, list[bytes]]:
        code, more, text = _parsed(first)
        lines = [text]
        size = len(first)
        while more:
            line = self._read_line(deadline, timeout_seconds)
            size += len(line)
            if size > REPLY_LIMIT_BYTES:
                raise Surprise("the server's reply has no end")
            code, more, text = _parsed(line)
            lines.append(text)
        return code, lines

    def waiting(self) -> bool:
        """Whether something arrived that nobody asked for: bytes, or the end of the connection. Never blocks."""
        if self._buffer:
            return True
        pending = self._encrypted is not None and self._encrypted.pending() > 0
        if not pending and not self._readable.poll(0):
            return False
        try:
            piece = self._receive()
        except OSError:
            return True
        self._buffer += piece or b""
        return piece is not None

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
        self._socket = self._encrypted = context.wrap_socket(self._socket, server_hostname=host)
        self._socket.setblocking(False)

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
        try:
            piece = None
            while piece is None:
                self._await_bytes(deadline)
                piece = self._receive()
        except TimeoutError as error:
            raise TimedOut(f"no reply within {timeout_seconds:g} s") from error
        except OSError as error:
            raise Closed(_STOPPED if self._cut_off else "the connection broke") from error
        if not piece:
            raise Closed(_STOPPED if self._cut_off else "the server closed the connection")
        return piece

    def _await_bytes(self, deadline: float) -> None:
        if self._encrypted is not None and self._encrypted.pending():
            return
        if not self._readable.poll(_milliseconds(deadline - time.monotonic())):
            raise TimeoutError

    def _receive(self) -> bytes | None:
        """What has arrived; None: nothing yet. TLS has matters of its own, such as session tickets."""
        try:
            return self._socket.recv(_READ_BYTES)
        except _NOT_NOW:
            return None


def _milliseconds(seconds: float) -> int:
    return max(0, math.ceil(seconds * 1000))


def _parsed(line: bytes) -> tuple[int, bool, bytes]:
    """A line's code, whether the reply goes on after it, and its text."""
    code, separator = line[:3], line[3:4]
    if not (_CODE.fullmatch(code) and separator in (b" ", b"-", b"")):
        raise Surprise(f"the server does not speak SMTP here: {_shown(line)}")
    return int(code), separator == b"-", line[4:LINE_KEPT_BYTES]


@lru_cache(maxsize=256)  # a server says the same again and again
def _reply_of_line(line: bytes, command: str) -> Reply:
    code, _, text = _parsed(line)
    return reply_of(code, [text], command)


def _shown(line: bytes) -> str:
    """A line of garbage, made fit to be shown: it may well be a page of HTML or a TLS record."""
    text = line[:60].decode("ascii", "replace")
    return repr("".join(character if character.isprintable() else "." for character in text))
