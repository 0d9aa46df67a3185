"""Opens a session step by step: resolve, connect, TLS, greeting, EHLO, STARTTLS, AUTH. Each step is reported."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from postroom.config.states import Auth, Security
from postroom.worker.smtp import auth, hints, network
from postroom.worker.smtp.errors import Broken, OpenFailed, Surprise, TimedOut
from postroom.worker.smtp.replies import Reply, classify, reply_of
from postroom.worker.smtp.server import Client, Server
from postroom.worker.smtp.wire import Wire

_SUSPICIOUS_SILENCE_SECONDS: Final = 5.0
"""After so long without a greeting it is worth looking whether the port speaks TLS instead."""
_NO_EHLO: Final = (500, 502, 504)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of opening a session or sending a mail, as it ended.

    Attributes:
        name: resolve, connect, tls, greeting, ehlo, starttls, auth, mail_from, rcpt_to, data or message. With STARTTLS
            the order is greeting, ehlo, starttls, tls, ehlo.
        detail: for people, such as ``TLSv1.3, certificate of mail.example``. No secret.
    """

    name: str
    ok: bool
    detail: str
    duration_seconds: float


@dataclass(frozen=True, slots=True)
class Extensions:
    """What EHLO offered (RFC 5321 §4.1.1.1), as last told.

    Attributes:
        size_bytes: the largest letter taken (RFC 1870); None: not told.
        auth: SASL mechanisms, upper case.
    """

    size_bytes: int | None = None
    eight_bit_mime: bool = False
    pipelining: bool = False
    smtputf8: bool = False
    enhanced_status_codes: bool = False
    auth: frozenset[str] = frozenset()
    starttls: bool = False


def parse_extensions(lines: list[bytes]) -> Extensions:
    """Extensions from the lines of an EHLO reply, of which the first is the server's name."""
    keywords: dict[str, list[str]] = {}
    for line in lines[1:]:
        # "AUTH=PLAIN" is how some wrote it before RFC 2554, and some servers still do beside the right form.
        keyword, *parameters = line.decode("ascii", "replace").upper().replace("AUTH=", "AUTH ").split() or [""]
        keywords.setdefault(keyword, []).extend(parameters)
    size = next(iter(keywords.get("SIZE", ())), "")
    return Extensions(
        size_bytes=int(size) if size.isdigit() and int(size) > 0 else None,  # 0: no fixed limit (RFC 1870 §4)
        eight_bit_mime="8BITMIME" in keywords,
        pipelining="PIPELINING" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        enhanced_status_codes="ENHANCEDSTATUSCODES" in keywords,
        auth=frozenset(keywords.get("AUTH", ())),
        starttls="STARTTLS" in keywords,
    )


_NOT_SHOWN: Final = "(the server repeated the password; its words are not shown)"


class Opening:
    """The way from a `Server` to a signed-in `Wire`. Use `run` once; on an error everything is closed again."""

    def __init__(
        self,
        server: Server,
        client: Client,
        on_step: Callable[[Step], None] | None = None,
        guard: network.Guard = network.allow_all,
    ) -> None:
        self._server = server
        self._client = client
        self._timeouts = client.timeouts
        self._on_step = on_step
        self._guard = guard
        self._wire: Wire | None = None
        self._extensions = Extensions()

    def run(self) -> tuple[Wire, Extensions]:
        """Goes through all steps.

        Raises:
            OpenFailed: at the first step that fails.
        """
        try:
            self._wire = wire = self._connect()
            if self._server.security is Security.TLS:
                self._start_tls(wire)
            self._greeting(wire)
            self._ehlo(wire)
            if self._server.security is Security.STARTTLS:
                self._starttls(wire)
                self._start_tls(wire)
                self._ehlo(wire)  # what was said before TLS counts for nothing (RFC 3207 §4.2)
            if self._server.auth is not Auth.NONE:
                self._sign_in(wire)
        except BaseException:
            if self._wire is not None:
                self._wire.close()
            raise
        return wire, self._extensions

    def _connect(self) -> Wire:
        server = self._server
        with self._step("resolve") as detail:
            try:
                addresses = network.resolve(server.host, server.port)
            except OSError as error:
                raise OpenFailed("resolve", str(error), hint=hints.UNKNOWN_HOST) from error
            detail.append(", ".join(address.ip for address in addresses))
        with self._step("connect") as detail:
            try:
                connection, self._address = network.connect(
                    addresses, timeout_seconds=self._timeouts.connect_seconds, guard=self._guard
                )
            except OSError as error:
                what = f"cannot connect to port {server.port} ({error})"
                raise OpenFailed("connect", what, hint=hints.UNREACHABLE) from error
            detail.append(f"{self._address.ip} port {server.port}")
        return Wire(connection)

    def _start_tls(self, wire: Wire) -> None:
        with self._step("tls") as detail:
            try:
                wire.start_tls(self._client.tls, self._server.host, timeout_seconds=self._timeouts.tls_seconds)
            except Surprise as error:
                raise OpenFailed("starttls", str(error), hint="Somebody may be tampering with the line.") from error
            except OSError as error:
                what, hint = hints.of_tls(error, self._server.security)
                raise OpenFailed("tls", what, hint=hint) from error
            detail.append(wire.tls_summary)

    def _greeting(self, wire: Wire) -> None:
        with self._step("greeting") as detail:
            reply = self._first_reply(wire)
            if reply.code != 220:  # noqa: PLR2004 - RFC 5321 §4.3.2
                raise self._refused("greeting", "the server does not serve us", reply)
            self._nothing_more(wire, "greeting")
            detail.append(str(reply))

    def _first_reply(self, wire: Wire) -> Reply:
        """The greeting. A long silence is used to find out whether the port waits for us to start TLS."""
        patience_seconds = self._timeouts.greeting_seconds
        try:
            if self._server.security is not Security.TLS and patience_seconds > _SUSPICIOUS_SILENCE_SECONDS:
                with contextlib.suppress(TimedOut):
                    return wire.read_reply("greeting", timeout_seconds=_SUSPICIOUS_SILENCE_SECONDS)
                if self._speaks_tls():
                    raise OpenFailed("greeting", "the server says nothing", hint=hints.SILENT_TLS)
                patience_seconds -= _SUSPICIOUS_SILENCE_SECONDS
            return wire.read_reply("greeting", timeout_seconds=patience_seconds)
        except Broken as error:
            raise OpenFailed("greeting", str(error), hint=hints.SILENT[self._server.security]) from error

    def _speaks_tls(self) -> bool:
        """Whether a second connection to the same port answers a TLS handshake."""
        with contextlib.suppress(OSError):
            connection, _ = network.connect(
                [self._address], timeout_seconds=_SUSPICIOUS_SILENCE_SECONDS, guard=self._guard
            )
            probe = Wire(connection)
            try:
                probe.start_tls(self._client.tls, self._server.host, timeout_seconds=_SUSPICIOUS_SILENCE_SECONDS)
            except ssl.SSLCertVerificationError:
                return True
            finally:
                probe.close()
            return True
        return False

    def _ehlo(self, wire: Wire) -> None:
        with self._step("ehlo") as detail:
            code, lines = self._talk(wire, "ehlo", f"EHLO {self._client.hello_name}")
            if code == 250:  # noqa: PLR2004 - RFC 5321 §4.1.1.1
                self._extensions = parse_extensions(lines)
                detail.append(", ".join(line.decode("ascii", "replace") for line in lines[1:]))
                return
            reply = reply_of(code, lines, "EHLO")
            if code in _NO_EHLO:  # a server from before 1995, or one that somebody muzzled
                code, lines = self._talk(wire, "ehlo", f"HELO {self._client.hello_name}")
                reply = reply_of(code, lines, "HELO")
            if code != 250:  # noqa: PLR2004 - as above
                raise self._refused("ehlo", "the server does not take our name", reply)
            self._extensions = Extensions()
            detail.append("no extensions")

    def _starttls(self, wire: Wire) -> None:
        with self._step("starttls") as detail:
            if not self._extensions.starttls:
                raise OpenFailed("starttls", "the server does not offer STARTTLS", hint=hints.NO_STARTTLS)
            reply = reply_of(*self._talk(wire, "starttls", "STARTTLS"), "STARTTLS")
            if reply.code != 220:  # noqa: PLR2004 - RFC 3207 §4
                raise self._refused("starttls", "the server refused STARTTLS", reply)
            detail.append(str(reply))

    def _sign_in(self, wire: Wire) -> None:
        server = self._server
        with self._step("auth") as detail:
            try:
                auth.check(server.login, server.password, cleartext_ok=wire.encrypted or server.allow_cleartext)
                mechanism = auth.choose(server.auth, self._extensions.auth, encrypted=wire.encrypted)
                reply = self._exchange(wire, mechanism)
            except auth.CannotSignIn as error:
                raise OpenFailed("auth", str(error), hint=error.hint) from error
            if reply.code != 235:  # noqa: PLR2004 - RFC 4954 §4
                raise self._refused("auth", f"the server refused the sign-in by {auth.MECHANISMS[mechanism]}", reply)
            detail.append(f"{auth.MECHANISMS[mechanism]} as {server.login}")

    def _exchange(self, wire: Wire, mechanism: Auth) -> Reply:
        login, password = self._server.login, self._server.password
        initial = auth.first_response(mechanism, login, password)
        secrets = [] if initial is None else [auth.encode(initial)]
        line = " ".join(["AUTH", auth.MECHANISMS[mechanism], *secrets])
        reply = reply_of(*self._talk(wire, "auth", line), "AUTH")
        turn = 0
        while reply.code == 334:  # noqa: PLR2004 - RFC 4954 §4: a challenge
            answer = auth.encode(auth.response(mechanism, login, password, auth.decode(reply.text), turn))
            secrets.append(answer)
            reply = reply_of(*self._talk(wire, "auth", answer), "AUTH")
            turn += 1
        if auth.repeats(reply.text, [password, *secrets]):
            reply = replace(reply, text=_NOT_SHOWN)
        return reply

    def _talk(self, wire: Wire, step: str, line: str) -> tuple[int, list[bytes]]:
        timeout_seconds = self._timeouts.command_seconds
        try:
            wire.write(line.encode() + b"\r\n", timeout_seconds=timeout_seconds)
            code, lines = wire.read_lines(timeout_seconds=timeout_seconds)
        except Broken as error:
            # What is not understood after AUTH may repeat what was sent, so it is not quoted.
            quoted = step == "auth" and isinstance(error, Surprise)
            raise OpenFailed(step, "the server does not speak SMTP here" if quoted else str(error)) from None
        if step != "starttls":  # there, what follows is taken for an attack
            self._nothing_more(wire, step)
        return code, lines

    def _nothing_more(self, wire: Wire, step: str) -> None:
        """Refuses a server that says more than was asked: its next reply would answer the wrong command."""
        if wire.has_unread:
            raise OpenFailed(step, "the server said something that it was not asked")

    def _refused(self, step: str, what: str, reply: Reply) -> OpenFailed:
        verdict = classify(reply)
        return OpenFailed(step, what, reply=reply, verdict=verdict, hint=verdict.hint)

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[list[str]]:
        """Times a step and reports it; the body puts its detail into the list that it gets."""
        detail: list[str] = []
        began = time.perf_counter()
        try:
            yield detail
        except OpenFailed as error:
            self._report(
                Step(error.step, False, f"{error.what}{f': {error.reply}' if error.reply else ''}", _since(began))
            )
            raise
        self._report(Step(name, True, " ".join(detail), _since(began)))

    def _report(self, step: Step) -> None:
        if self._on_step is not None:
            self._on_step(step)


def _since(began: float) -> float:
    return time.perf_counter() - began
