"""A scripted SMTP server on loopback: polite by default, with every fault a far side can have.

A fault is chosen for a verb (`on={"RCPT": Drop()}`) or by an address, so that one server serves a whole campaign:

    local part         what happens                                            verbs
    rcpt-550-5.1.1     that reply instead of the usual one                     mail (by sender), rcpt, data, dot
    dot-drop           the connection is closed, nothing recorded              mail, rcpt, data, content, dot
    dot-lost           recorded, then closed without a reply                   dot
    dot-hang           recorded (at the dot), then silence                     mail, rcpt, data, content, dot
    dot-wait-200       the usual reply, 200 ms later                           mail, rcpt, data, dot

`-once` at the end makes it happen the first time only for that address; `+tag` makes addresses differ. Anything else is
accepted. What the server took stands in `accepted`, so that a test counts on both sides.
"""

import base64
import contextlib
import email.parser
import hmac
import json
import os
import secrets
import select
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class Reply:
    """Says `text` instead of the usual reply; lines are separated by LF. Bytes are sent exactly as they are."""

    text: str | bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Closes the connection, by FIN or by RST, without a word. Nothing is recorded.

    `half`: closes its own side alone, and reads on until the other side goes away.
    """

    reset: bool = False
    half: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """At the final dot: records the transaction, then closes without a reply, in the ways of `Drop`."""

    reset: bool = False
    half: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Says nothing more until the other side goes away; as for `content`, reads nothing more until it is cut off.

    At the final dot the transaction is recorded.
    """


@dataclass(frozen=True, slots=True)
class Wait:
    """The usual reply, later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Fragments:
    """The usual reply, a byte at a time."""


@dataclass(frozen=True, slots=True)
class Extra:
    """The usual reply and, in the same write, `text` that nobody asked for."""

    text: str


@dataclass(frozen=True, slots=True)
class Closing:
    """The usual reply, then the connection is closed, as by a server whose patience with idlers has ended."""

    last_words: str = ""


Fault: TypeAlias = Reply | Drop | Lost | Hang | Wait | Fragments | Extra | Closing


@dataclass(frozen=True, slots=True)
class Accepted:
    """One transaction that the server took.

    Attributes:
        content: the letter as sent, dots unstuffed, without the final dot's line.
        parameters: what followed the address in MAIL FROM, such as ``SIZE=312 BODY=8BITMIME``.
        login: who signed in, or None.
        connection: number of the connection it came over, from 1.
        hello: the name the client gave itself in EHLO.
    """

    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    parameters: str
    encrypted: bool
    login: str | None
    connection: int
    hello: str = ""


class ScriptedSMTP:
    """The server, as a context manager. It listens on 127.0.0.1 (or `host`) and a free port.

    Args:
        on: faults by verb: ``connect`` (the greeting), ``handshake``, EHLO, HELO, STARTTLS, AUTH, MAIL, RCPT, DATA,
            ``content`` (its first bytes came), ``.``, RSET, NOOP, QUIT. One fault happens every time; a list is used up
            one at a time, None in it meaning the usual reply, and then the usual reply follows.
        certificate: server-side TLS context. With `implicit_tls` the connection starts with TLS, else it offers
            STARTTLS.
        login: the only login that may sign in; with it MAIL needs AUTH. An XOAUTH2 token is its `password`.
        mechanisms: what AUTH offers when `login` is given.
        auth_before_tls: AUTH is offered on an unencrypted connection although STARTTLS is.
        size_bytes: the limit in SIZE; None: SIZE is not offered.
        extensions: further EHLO keywords.
        journal: a file that gets a line of JSON for each transaction taken, its Message-ID and recipients, on the disk
            before the reply goes out. So what was promised is known whatever becomes of this process.

    Attributes:
        accepted: the transactions taken, in order.
        commands: every command line received, by all connections, in order; continuations of AUTH left out.
        connections: how many connections came.
        turns: how often a conversation had to wait for the client. Set it to 0 to count from there.
    """

    def __init__(
        self,
        *,
        on: Mapping[str, Fault | Sequence[Fault | None]] | None = None,
        host: str = "127.0.0.1",
        certificate: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: str | None = None,
        password: str = "",
        mechanisms: Sequence[str] = ("PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"),
        auth_before_tls: bool = False,
        size_bytes: int | None = 10_000_000,
        extensions: Sequence[str] = ("PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES"),
        journal: Path | None = None,
    ) -> None:
        self.host = host
        self.port = 0
        self.certificate = certificate
        self.implicit_tls = implicit_tls
        self.login = login
        self.password = password
        self.mechanisms = tuple(mechanisms)
        self.auth_before_tls = auth_before_tls
        self.size_bytes = size_bytes
        self.extensions = tuple(extensions)
        self.journal = journal
        self.accepted: list[Accepted] = []
        self.commands: list[str] = []
        self.connections = 0
        self.turns = 0
        self.stopping = threading.Event()
        self._on: dict[str, Fault | list[Fault | None]] = {}
        self._fired: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._journal_turn = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: dict[_Conversation, threading.Thread] = {}
        self.script(on or {})

    def script(self, on: Mapping[str, Fault | Sequence[Fault | None]]) -> None:
        """Replaces the faults by verb from now on."""
        with self._lock:
            self._on = {verb: list(fault) if isinstance(fault, Sequence) else fault for verb, fault in on.items()}

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family, backlog=512)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="scripted-smtp", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops listening, cuts every connection and waits for their threads."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        with contextlib.suppress(OSError):  # wakes accept() on every platform
            socket.create_connection((self.host, self.port), timeout=1).close()
        self._thread.join(5)
        self._listener.close()
        self.disconnect_all()

    def disconnect_all(self) -> None:
        """Cuts every open connection, as a restart of the server does."""
        with self._lock:
            connections = list(self._open.items())
        for conversation, thread in connections:
            conversation.cut()
            thread.join(5)

    def say(self, text: str) -> None:
        """Says `text` over every open connection, though nobody asked."""
        with self._lock:
            connections = list(self._open)
        for conversation in connections:
            conversation.say(text)

    @property
    def faults_left(self) -> int:
        """How many faults of the script's lists have not happened yet."""
        with self._lock:
            return sum(fault is not None for due in self._on.values() if isinstance(due, list) for fault in due)

    def wait_accepted(self, count: int, timeout_seconds: float = 5) -> list[Accepted]:
        """Waits until at least `count` transactions were taken, and returns them all."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.accepted) >= count, timeout_seconds):
                raise AssertionError(f"{len(self.accepted)} of {count} transactions came in {timeout_seconds} s")
            return list(self.accepted)

    def wait_commands(self, *last: str, timeout_seconds: float = 5) -> None:
        """Waits until these are the last commands that came."""
        with self._changed:
            if not self._changed.wait_for(lambda: tuple(self.commands[-len(last) :]) == last, timeout_seconds):
                raise AssertionError(f"{self.commands[-len(last) :]} came last, not {last}")

    def wait_connections_closed(self, timeout_seconds: float = 5) -> None:
        """Waits until no connection is open."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._open, timeout_seconds):
                raise AssertionError(f"{len(self._open)} connections are still open")

    def record(self, transaction: Accepted) -> None:
        if self.journal is not None:
            self._write_down(transaction, self.journal)
        with self._changed:
            self.accepted.append(transaction)
            self._changed.notify_all()

    def _write_down(self, transaction: Accepted, journal: Path) -> None:
        head = email.parser.BytesHeaderParser().parsebytes(transaction.content)
        line = {"message_id": str(head["Message-ID"]), "recipients": transaction.recipients}
        with self._journal_turn, journal.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def note(self, line: str) -> None:
        with self._changed:
            self.commands.append(line)
            self._changed.notify_all()

    def fault(self, verb: str, addresses: Sequence[str] = ()) -> Fault | None:
        """The fault due now for a verb: by the script first, then by the first address that asks for one."""
        with self._lock:
            scripted = self._on.get(verb)
            if isinstance(scripted, list):
                if scripted:
                    return scripted.pop(0)
            elif scripted is not None:
                return scripted
            prefix = {"MAIL": "mail", "RCPT": "rcpt", "DATA": "data", "content": "content", ".": "dot"}.get(verb)
            for address in addresses:
                words = address.partition("@")[0].partition("+")[0].split("-")
                if prefix is None or words[0] != prefix:
                    continue
                if words[-1] == "once":
                    words = words[:-1]
                    self._fired[address] += 1
                    if self._fired[address] > 1:
                        continue
                return _asked_for(words[1:])
        return None

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            if self.stopping.is_set():
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._changed:
                self.connections += 1
                conversation = _Conversation(self, connection, self.connections)
                thread = threading.Thread(target=self._serve, args=(conversation,), daemon=True)
                self._open[conversation] = thread
                self._changed.notify_all()
            thread.start()

    def _serve(self, conversation: "_Conversation") -> None:
        try:
            with contextlib.suppress(OSError, _GoneError):
                conversation.run()
        finally:
            conversation.close()
            with self._changed:
                self._open.pop(conversation, None)
                self._changed.notify_all()


def _asked_for(words: Sequence[str]) -> Fault:
    match words:
        case ["drop"]:
            return Drop()
        case ["lost"]:
            return Lost()
        case ["hang"]:
            return Hang()
        case ["wait", milliseconds]:
            return Wait(int(milliseconds) / 1000)
        case [code, enhanced]:
            return Reply(f"{code} {enhanced} as the address asked for")
        case [code]:
            return Reply(f"{code} as the address asked for")
    raise AssertionError(f"no such fault: {words}")


class _GoneError(Exception):
    """The connection is over."""


def _wire(text: str | bytes) -> bytes:
    if isinstance(text, bytes):
        return text
    return b"".join(line.encode() + b"\r\n" for line in text.split("\n"))


_CONTENT_PIECE_BYTES: Final = 65536


class _Conversation:
    """One connection, on a thread of its own."""

    def __init__(self, server: ScriptedSMTP, connection: socket.socket, number: int) -> None:
        self._server = server
        self._socket = connection
        self._number = number
        self._buffer = bytearray()
        self._hello = ""
        self._login: str | None = None
        self._encrypted = False
        self._cut = threading.Event()
        self._turn = threading.Lock()  # TLS in two threads at once breaks: `say` comes from a test's
        self._forget()

    def _forget(self) -> None:
        self._sender: str | None = None
        self._parameters = ""
        self._recipients: list[str] = []

    def close(self) -> None:
        self._socket.close()

    def cut(self) -> None:
        self._cut.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def say(self, text: str) -> None:
        self._send(_wire(text))

    def run(self) -> None:
        if self._server.implicit_tls:
            self._handshake()
        self._answer("connect", "220 scripted.example ESMTP")
        while True:
            line = self._line()
            self._server.note(line)
            verb, _, argument = line.partition(" ")
            handler = getattr(self, f"_{verb.lower()}", None) if verb.isalpha() else None
            if handler is None or verb.lower() in {"run", "close", "line", "read"}:
                self._answer(verb.upper(), "500 5.5.2 no such command")
            else:
                handler(argument)

    # -- commands

    def _ehlo(self, argument: str) -> None:
        self._hello = argument
        server = self._server
        keywords = list(server.extensions)
        if server.size_bytes is not None:
            keywords.append(f"SIZE {server.size_bytes}")
        if self._starttls_possible():
            keywords.append("STARTTLS")
        if server.login and (self._encrypted or server.auth_before_tls or not self._starttls_possible()):
            keywords.append("AUTH " + " ".join(server.mechanisms))
        lines = [f"scripted.example greets {argument}", *keywords]
        self._forget()
        usual = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
        self._answer("EHLO", "\n".join(usual))

    def _helo(self, _argument: str) -> None:
        self._forget()
        self._answer("HELO", "250 scripted.example")

    def _starttls(self, _argument: str) -> None:
        if not self._starttls_possible():
            self._answer("STARTTLS", "502 5.5.1 not offered")
        elif self._answer("STARTTLS", "220 2.0.0 go ahead").startswith("220"):
            self._buffer.clear()
            self._handshake()

    def _auth(self, argument: str) -> None:
        server = self._server
        mechanism, _, initial = argument.partition(" ")
        if not server.login:
            self._answer("AUTH", "503 5.5.1 AUTH is not offered")
            return
        expected_login, expected_password = server.login, server.password
        match mechanism.upper():
            case "PLAIN":
                _, login, password = _unbase64(initial or self._ask("334 ")).split("\0")
            case "LOGIN":
                login = _unbase64(initial or self._ask("334 VXNlcm5hbWU6"))
                password = _unbase64(self._ask("334 UGFzc3dvcmQ6"))
            case "CRAM-MD5":
                challenge = f"<{secrets.token_hex(8)}@scripted.example>".encode()
                answer = _unbase64(self._ask("334 " + base64.b64encode(challenge).decode()))
                login, _, digest = answer.rpartition(" ")
                right = hmac.new(expected_password.encode(), challenge, "md5").hexdigest()
                password = expected_password if digest == right else ""
            case "XOAUTH2":
                user, bearer, *_ = _unbase64(initial).split("\1")
                login, password = user.removeprefix("user="), bearer.removeprefix("auth=Bearer ")
                if (login, password) != (expected_login, expected_password):
                    self._ask("334 " + base64.b64encode(b'{"status":"401","schemes":"bearer"}').decode())
            case _:
                self._answer("AUTH", "504 5.5.4 no such mechanism")
                return
        right_answer = (login, password) == (expected_login, expected_password)
        usual = "235 2.7.0 signed in" if right_answer else "535 5.7.8 wrong login or password"
        if self._answer("AUTH", usual).startswith("235"):
            self._login = login

    def _mail(self, argument: str) -> None:
        address, _, parameters = argument.partition(":")[2].partition(">")
        sender = address.strip().removeprefix("<")
        if self._server.login and not self._login:
            usual = "530 5.7.0 sign in first"
        elif self._sender is not None:
            usual = "503 5.5.1 nested MAIL"
        else:
            usual = "250 2.1.0 sender ok"
        if self._answer("MAIL", usual, [sender]).startswith("2"):
            self._sender, self._parameters = sender, parameters.strip()

    def _rcpt(self, argument: str) -> None:
        recipient = argument.partition(":")[2].partition(">")[0].strip().removeprefix("<")
        usual = "250 2.1.5 recipient ok" if self._sender is not None else "503 5.5.1 MAIL first"
        if self._answer("RCPT", usual, [recipient]).startswith("2"):
            self._recipients.append(recipient)

    def _data(self, _argument: str) -> None:
        usual = "354 go on" if self._recipients else "554 5.5.1 no valid recipients"
        if not self._answer("DATA", usual, self._recipients).startswith("354"):
            return
        content = self._content()
        assert self._sender is not None
        transaction = Accepted(
            reverse_path=self._sender,
            recipients=tuple(self._recipients),
            content=content,
            parameters=self._parameters,
            encrypted=self._encrypted,
            login=self._login,
            connection=self._number,
            hello=self._hello,
        )
        limit = self._server.size_bytes
        if not self._recipients:
            usual = "554 5.5.1 no valid recipients"
        elif limit is not None and len(content) > limit:
            usual = "552 5.3.4 too large"
        else:
            usual = "250 2.0.0 taken"
        self._answer(".", usual, self._recipients, transaction)
        self._forget()

    def _rset(self, _argument: str) -> None:
        self._forget()
        self._answer("RSET", "250 2.0.0 reset")

    def _noop(self, _argument: str) -> None:
        self._answer("NOOP", "250 2.0.0 fine")

    def _quit(self, _argument: str) -> None:
        self._answer("QUIT", "221 2.0.0 bye")
        raise _GoneError

    # -- the wire

    def _answer(  # noqa: C901 - one arm a fault
        self, verb: str, usual: str, addresses: Sequence[str] = (), transaction: Accepted | None = None
    ) -> str:
        """Does what the fault due says, else the usual. Returns the text of the reply that went out."""
        fault = self._server.fault(verb, addresses)
        said = usual
        if isinstance(fault, Reply):
            said = fault.text if isinstance(fault.text, str) else fault.text.decode("latin-1")
        if transaction is not None and not isinstance(fault, Drop) and said.startswith("2"):
            self._server.record(transaction)
        match fault:
            case None:
                self._send(_wire(usual))
            case Reply(text):
                self._send(_wire(text))
                if said.startswith("421"):
                    raise _GoneError
            case Drop() | Lost():
                self._drop(fault)
            case Hang():
                self._hang()
            case Wait(seconds):
                self._cut.wait(seconds)
                self._send(_wire(usual))
            case Fragments():
                for byte in _wire(usual):
                    self._send(bytes([byte]))
            case Extra(text):
                self._send(_wire(usual) + _wire(text))
            case Closing(last_words):
                self._send(_wire(usual) + (_wire(last_words) if last_words else b""))
                raise _GoneError
        return said

    def _ask(self, challenge: str) -> str:
        self._send(_wire(challenge))
        return self._line()

    def _drop(self, way: Drop | Lost) -> None:
        if way.half:
            self._socket.shutdown(socket.SHUT_WR)
            self._hang()
        if way.reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _GoneError

    def _hang(self) -> None:
        while self._socket.recv(_CONTENT_PIECE_BYTES):
            pass
        raise _GoneError

    def _line(self) -> str:
        while (end := self._buffer.find(b"\n")) < 0:
            self._read()
        line = self._buffer[: end + 1]
        del self._buffer[: end + 1]
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _content(self) -> bytes:
        if not self._buffer:
            self._read()
        match self._server.fault("content", self._recipients):
            case Drop() as way:
                self._drop(way)
            case Hang():  # reads no more either, so that the other side's buffers fill up
                self._cut.wait()
                raise _GoneError
            case Reply(text):  # the server gives up in the middle and says so
                self._send(_wire(text))
                raise _GoneError
        searched = 0
        while True:
            if self._buffer.startswith(b".\r\n"):
                end, rest = 0, 3
                break
            found = self._buffer.find(b"\r\n.\r\n", max(0, searched - 4))
            if found >= 0:
                end, rest = found + 2, found + 5
                break
            searched = len(self._buffer)
            self._read()
        content = bytes(self._buffer[:end])
        del self._buffer[:rest]
        return (b"\r\n" + content).replace(b"\r\n.", b"\r\n")[2:]

    def _send(self, data: bytes) -> None:
        with self._turn:
            self._socket.sendall(data)

    def _read(self) -> None:
        if not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            readable = select.poll()
            readable.register(self._socket, select.POLLIN)
            readable.poll()
        with self._turn:
            piece = self._socket.recv(_CONTENT_PIECE_BYTES)
        if not piece:
            raise _GoneError
        self._server.turns += 1
        self._buffer += piece

    def _starttls_possible(self) -> bool:
        return self._server.certificate is not None and not self._server.implicit_tls and not self._encrypted

    def _handshake(self) -> None:
        match self._server.fault("handshake"):
            case Hang():
                self._hang()
            case Drop() as way:
                self._drop(way)
            case Reply(text):
                self._send(_wire(text))
                raise _GoneError
        assert self._server.certificate is not None
        self._socket.getpeername()  # as in the client: wrap_socket leaves a socket unclosed after a reset
        self._socket = encrypted = self._server.certificate.wrap_socket(
            self._socket, server_side=True, do_handshake_on_connect=False
        )
        encrypted.do_handshake()
        self._encrypted = True


def _unbase64(text: str) -> str:
    return base64.b64decode(text).decode()
