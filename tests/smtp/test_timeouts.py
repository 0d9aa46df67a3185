"""Each step has a time-out of its own: a server that hangs there is left after it, whatever the others are."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest

from postroom.config.settings import Settings
from postroom.config.states import Auth, Outcome, Security
from postroom.worker.process import smtp_client
from postroom.worker.smtp.server import Client, Timeouts
from postroom.worker.smtp.session import Envelope, OpenFailed, Session
from servers.certificates import Certificates
from servers.scripted_smtp import Hang, ScriptedSMTP
from servers.smtp_client import LETTER, At, account, permitted

Scripted = Callable[..., ScriptedSMTP]

SHORT_SECONDS, LONG_SECONDS = 0.3, 60.0


@pytest.fixture
def short_in(patient: Client) -> Callable[[str], Client]:
    """A client with one short time-out among long ones."""
    long = Timeouts(*[LONG_SECONDS] * len(fields(Timeouts)))
    return lambda name: replace(patient, timeouts=replace(long, **{f"{name}_seconds": SHORT_SECONDS}))


@contextmanager
def ends_in_time() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert SHORT_SECONDS * 0.9 < time.monotonic() - began < 5


@contextmanager
def nobody_accepts() -> Iterator[At]:
    """A port whose backlog is full: connects get no answer."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        yield At("127.0.0.1", full.getsockname()[1])


def test_connect(short_in: Callable[[str], Client]) -> None:
    with nobody_accepts() as server, ends_in_time(), pytest.raises(OpenFailed, match="no answer in time") as caught:
        Session.open(account(server), short_in("connect"))
    assert caught.value.step == "connect"


@pytest.mark.parametrize(
    ("verb", "name", "step", "security"),
    [
        ("handshake", "tls", "tls", Security.TLS),
        ("handshake", "tls", "tls", Security.STARTTLS),
        ("connect", "greeting", "greeting", Security.TLS),
        ("connect", "greeting", "greeting", Security.STARTTLS),
        ("EHLO", "command", "ehlo", Security.TLS),
        ("STARTTLS", "command", "starttls", Security.STARTTLS),
        ("AUTH", "command", "auth", Security.STARTTLS),
    ],
)
def test_opening(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted,
    short_in: Callable[[str], Client],
    certificates: Certificates,
    verb: str,
    name: str,
    step: str,
    security: Security,
) -> None:
    implicit = security is Security.TLS
    server = scripted(certificate=certificates.good, implicit_tls=implicit, login="u", password="p", on={verb: Hang()})
    with ends_in_time(), pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=security, auth=Auth.PLAIN, login="u", password="p"), short_in(name))
    assert caught.value.step == step
    assert "in time" in str(caught.value) or f"within {SHORT_SECONDS:g} s" in str(caught.value)


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelined", "lockstep"])
@pytest.mark.parametrize(
    ("verb", "name", "outcome"),
    [
        ("RSET", "command", Outcome.UNREACHED),
        ("MAIL", "mail", Outcome.UNREACHED),
        ("RCPT", "rcpt", Outcome.UNREACHED),
        ("DATA", "data", Outcome.UNREACHED),
        ("content", "block", Outcome.UNREACHED),
        (".", "dot", Outcome.UNCERTAIN),
    ],
)
def test_sending(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted,
    short_in: Callable[[str], Client],
    extensions: list[str],
    verb: str,
    name: str,
    outcome: Outcome,
) -> None:
    server = scripted(extensions=extensions, size_bytes=None)
    session = Session.open(account(server), short_in(name))
    refused = session.deliver(Envelope("a@x", ("rcpt-550-5.1.1@x",)), LETTER, permitted)  # makes RSET due
    assert refused.outcome is Outcome.FAILED
    server.script({verb: Hang()})
    letter = LETTER + b"x" * 78 + b"\r\n"
    with ends_in_time():
        delivery = session.deliver(
            Envelope("a@x", ("b@x",)), letter * 200_000 if verb == "content" else letter, permitted
        )
    assert delivery.outcome is outcome
    assert f"{SHORT_SECONDS:g} s" in (delivery.trouble or "")
    assert not session.reusable


@pytest.mark.parametrize(
    ("verb", "name", "outcome"),
    [
        ("MAIL", "mail", Outcome.UNREACHED),
        ("RCPT", "rcpt", Outcome.UNREACHED),
        ("DATA", "data", Outcome.UNREACHED),
        (".", "dot", Outcome.UNCERTAIN),
    ],
)
def test_sending_where_the_envelope_went_ahead(
    scripted: Scripted, short_in: Callable[[str], Client], verb: str, name: str, outcome: Outcome
) -> None:
    session = Session.open(account(scripted(on={verb: [None, Hang()]})), short_in(name))
    second = Envelope("a@x", ("b@x",)), LETTER
    assert session.deliver(*second, permitted, following=second).outcome is Outcome.ACCEPTED
    with ends_in_time():
        delivery = session.deliver(*second, permitted, following=second)
    assert delivery.outcome is outcome
    assert f"{SHORT_SECONDS:g} s" in (delivery.trouble or "")
    assert not session.reusable


def test_quit(scripted: Scripted, short_in: Callable[[str], Client]) -> None:
    session = Session.open(account(scripted(on={"QUIT": Hang()})), short_in("quit"))
    with ends_in_time():
        session.close()


def test_each_is_a_setting_and_its_default_is_the_rfcs() -> None:
    names = [field.name.removesuffix("_seconds") for field in fields(Timeouts)]
    said: dict[str, Any] = {f"smtp_{name}_timeout_seconds": 7 + number for number, name in enumerate(names)}
    told = smtp_client(Settings(_env_file=None, **said)).timeouts
    assert [getattr(told, f"{name}_seconds") for name in names] == list(said.values())
    assert smtp_client(Settings(_env_file=None)).timeouts == Timeouts()
    rfc = Timeouts()
    assert (rfc.greeting_seconds, rfc.mail_seconds, rfc.rcpt_seconds) == (300, 300, 300)
    assert (rfc.data_seconds, rfc.block_seconds, rfc.dot_seconds) == (120, 180, 600)
