"""Servers that do not keep to the protocol, at each step: a clear error that names it, and no mail misjudged by it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from postroom.config.states import Auth, Outcome, Security
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Delivery, Envelope, OpenFailed, Session
from servers.certificates import Certificates
from servers.scripted_smtp import Extra, Fault, Reply, ScriptedSMTP
from servers.smtp_client import LETTER, At, account, failure, permitted

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]

OPENING = [("connect", "greeting"), ("EHLO", "ehlo"), ("STARTTLS", "starttls"), ("AUTH", "auth")]
SENDING = ["RSET", "MAIL", "RCPT", "DATA", "."]
NONSENSE: dict[str, Fault] = {
    "page": Reply(b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\n\r\n<html></html>\r\n"),
    "binary": Reply(bytes(range(128, 256)) * 8 + b"\r\n"),
    "nul": Reply(b"\0" * 100 + b"\r\n"),
    "empty line": Reply(b"\r\n"),
    "short": Reply(b"25\r\n"),
    "class 1": Reply("150 soon"),
    "class 9": Reply("999 no such class"),
    "one line for ever": Reply(b"250-" + b"x" * 10_000_000),
    "lines for ever": Reply(b"250-again\r\n" * 900_000),
    "codes that differ and no end": Reply(b"250-a\r\n550-b\r\n" * 50_000),
}

nonsense = pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in NONSENSE.items()])


@pytest.mark.parametrize(("verb", "step"), OPENING)
@nonsense
def test_nonsense_in_opening(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted, patient: Client, certificates: Certificates, verb: str, step: str, fault: Fault
) -> None:
    server = scripted(certificate=certificates.good, login="u", password="s3cret-pass", on={verb: fault})
    error = failure(server, patient, security=Security.STARTTLS, auth=Auth.PLAIN, login="u", password="s3cret-pass")
    assert error.step == step
    assert str(error).startswith(f"{step}: ")
    assert len(str(error)) < 500
    assert str(error).isprintable()
    assert error.reply is None


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("verb", SENDING)
@nonsense
def test_nonsense_in_sending(
    scripted: Scripted, opened: Opened, extensions: list[str], verb: str, fault: Fault
) -> None:
    server = scripted(extensions=extensions)
    delivery = _second_mail(server, opened(server), {verb: fault})
    _comes_to_nothing(delivery, verb)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
@nonsense
def test_nonsense_where_the_envelope_went_ahead(scripted: Scripted, opened: Opened, verb: str, fault: Fault) -> None:
    session = opened(scripted(on={verb: [None, fault]}))
    second = Envelope("a@x", ("b@x",)), LETTER
    assert session.deliver(*second, permitted, following=second).outcome is Outcome.ACCEPTED
    _comes_to_nothing(session.deliver(*second, permitted, following=second), verb)
    assert not session.reusable
    assert session.out_of_step


def _comes_to_nothing(delivery: Delivery, verb: str) -> None:
    assert delivery.outcome is (Outcome.UNCERTAIN if verb == "." else Outcome.UNREACHED)
    assert delivery.trouble
    assert delivery.trouble.isprintable()
    assert len(delivery.trouble) < 500
    assert delivery.reply is None


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("code", [200, 250, 300, 334, 353, 355])
def test_no_other_code_than_354_lets_data_go_on_or_counts_as_success(
    scripted: Scripted, opened: Opened, extensions: list[str], code: int
) -> None:
    server = scripted(extensions=extensions, on={"DATA": Reply(f"{code} well")})
    delivery = opened(server).deliver(Envelope("a@x", ("b@x",)), LETTER, lambda: pytest.fail("asked"))
    assert delivery.outcome is Outcome.UNREACHED
    assert server.accepted == []


@pytest.mark.parametrize(("verb", "step"), OPENING)
@pytest.mark.parametrize("more", ["250 2.0.0 more", "550 5.1.1 no", "rubbish"])
def test_more_than_was_asked_in_opening(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted, patient: Client, certificates: Certificates, verb: str, step: str, more: str
) -> None:
    server = scripted(certificate=certificates.good, login="u", password="p", on={verb: Extra(more)})
    error = failure(server, patient, security=Security.STARTTLS, auth=Auth.PLAIN, login="u", password="p")
    assert error.step == step
    assert "not asked" in str(error) or "plain text after agreeing" in str(error)


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("verb", ["RSET", "MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("more", ["250 2.0.0 more", "354 more", "550 5.1.1 no such user", "450 4.2.0 not now"])
def test_more_than_was_asked_in_sending_judges_nobody(
    scripted: Scripted, opened: Opened, extensions: list[str], verb: str, more: str
) -> None:
    server = scripted(extensions=extensions)
    session = opened(server)
    delivery = _second_mail(server, session, {verb: [Extra(more)]}, "b@x", "c@x")
    assert delivery.outcome is not Outcome.ACCEPTED or len(server.accepted) == 1
    assert not session.reusable
    if not extensions:  # one reply at a time, the surplus is always seen in time
        assert delivery.outcome is Outcome.UNREACHED
        assert server.accepted == []


def test_more_than_was_asked_after_the_dot_ends_the_session_alone(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={".": Extra("550 5.1.1 and another thing")})
    session = opened(server)
    assert session.deliver(Envelope("a@x", ("b@x",)), LETTER, permitted).outcome is Outcome.ACCEPTED
    assert not session.reusable


def test_what_is_said_while_the_permit_is_awaited_is_no_answer_to_the_dot(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)

    def permit() -> bool:
        server.say("250 2.0.0 taken, though you have not finished")
        return True

    delivery = session.deliver(Envelope("a@x", ("b@x",)), LETTER, permit)
    assert delivery.outcome is not Outcome.ACCEPTED
    assert not delivery.permitted
    assert not session.reusable
    server.wait_connections_closed()
    assert server.accepted == []


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize("recipients", [2, 250])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_a_421_after_the_reply_takes_nothing_back(
    scripted: Scripted, opened: Opened, extensions: list[str], recipients: int, verb: str
) -> None:
    server = scripted(extensions=extensions, on={verb: [Extra("421 4.3.2 and now I close")]})
    session = opened(server)
    whom = ("rcpt-550-5.1.1@x", *(f"b{number}@x" for number in range(recipients - 1)))
    delivery = session.deliver(Envelope("a@x", whom), LETTER, permitted)
    assert delivery.outcome is not Outcome.FAILED
    assert not session.reusable
    if not extensions and verb != "DATA":
        assert delivery.outcome is Outcome.DEFERRED
        assert delivery.reply is not None
        assert delivery.reply.code == 421
        assert server.accepted == []


@pytest.mark.parametrize("line", [b"x" * 4096, b"220-again\r\n" * 400], ids=["one line", "many lines"])
def test_a_banner_without_end_is_not_read_to_its_end(patient: Client, line: bytes) -> None:
    with endless(line) as (server, sent), pytest.raises(OpenFailed, match="has no end") as caught:
        Session.open(account(server), patient)
    assert caught.value.step == "greeting"
    assert sum(sent) < 20_000_000, "sockets hold a few megabytes, we none"


def _second_mail(server: ScriptedSMTP, session: Session, on: dict[str, object], *recipients: str) -> Delivery:
    """How a mail ends that comes after one which made RSET due."""
    assert session.deliver(Envelope("a@x", ("rcpt-550-5.1.1@x",)), LETTER, permitted).outcome is Outcome.FAILED
    server.script(on)  # type: ignore[arg-type]
    return session.deliver(Envelope("a@x", recipients or ("b@x",)), LETTER, permitted)


@contextmanager
def endless(line: bytes) -> Iterator[tuple[At, list[int]]]:
    """A server whose greeting goes on until the other side hangs up; and how many bytes it wrote."""
    sent: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"220-")
                    while sum(sent) < 100_000_000:
                        sent.append(connection.send(line))
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        yield At("127.0.0.1", listener.getsockname()[1]), sent
        thread.join(10)
