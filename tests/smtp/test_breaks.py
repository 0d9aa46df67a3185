"""Connections that break: before the final dot nobody has the mail, after it nobody knows. Counted on both sides."""

import time
from collections.abc import Callable

import pytest

from postroom.config.states import Outcome, Security
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Delivery, Envelope, Session
from servers.certificates import Certificates
from servers.scripted_smtp import Drop, Fault, Hang, Lost, Reply, ScriptedSMTP
from servers.smtp_client import LETTER, permitted

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]

BOTH = Envelope("a@shop.example", ("rcpt-550-5.1.1@x", "b@x"))


@pytest.fixture(params=["plain", "starttls"])
def settings(request: pytest.FixtureRequest, certificates: Certificates) -> tuple[dict[str, object], dict[str, object]]:
    """Of the server and of the account: with TLS, breaks look different to a socket."""
    if request.param == "plain":
        return {}, {}
    return {"certificate": certificates.good}, {"security": Security.STARTTLS}


Settings = tuple[dict[str, object], dict[str, object]]


@pytest.fixture(params=["pipelined", "lockstep", "following"])
def attempt(
    request: pytest.FixtureRequest, scripted: Scripted, opened: Opened, hasty: Client, settings: Settings
) -> Callable[..., tuple[ScriptedSMTP, Session, Delivery]]:
    """One mail through a server with that fault; following: its envelope went behind another mail's final dot."""

    def run(verb: str, fault: Fault, content: bytes = LETTER) -> tuple[ScriptedSMTP, Session, Delivery]:
        following = request.param == "following"
        server = scripted(on={verb: [None, fault] if following else fault}, size_bytes=None, **settings[0])
        session = opened(server, hasty, **settings[1])
        session.lockstep = request.param == "lockstep"
        if following:
            first = session.deliver(Envelope("a@x", ("first@x",)), LETTER, permitted, following=(BOTH, content))
            assert first.outcome is Outcome.ACCEPTED
            server.accepted.clear()
        began = time.monotonic()
        delivery = session.deliver(BOTH, content, permitted)
        assert time.monotonic() - began < 20, "not the minutes that are usual"
        assert not session.reusable
        return server, session, delivery

    return run


Attempt = Callable[..., tuple[ScriptedSMTP, Session, Delivery]]


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize("fault", [Drop(), Drop(reset=True), Hang(), Reply(b"garbage\r\n"), Reply("354 out of turn")])
def test_a_break_in_the_envelope_reaches_nobody(attempt: Attempt, verb: str, fault: Fault) -> None:
    if verb == "DATA" and isinstance(fault, Reply) and isinstance(fault.text, str):
        fault = Reply("250 out of turn")
    server, _, delivery = attempt(verb, fault)
    assert delivery.outcome is Outcome.UNREACHED
    assert delivery.recipients[1].outcome is Outcome.UNREACHED
    assert delivery.recipients[1].reply is None
    assert delivery.recipients[0].outcome is (Outcome.FAILED if verb == "DATA" else Outcome.UNREACHED)
    assert delivery.stale is (verb == "MAIL")
    assert delivery.trouble
    assert "@" not in delivery.trouble
    assert not delivery.permitted
    assert server.accepted == []


LARGE = b"0123456789\r\n" * 1_000_000


@pytest.mark.parametrize("fault", [Drop(), Drop(reset=True), Hang()])
def test_a_break_in_the_content_reaches_nobody(attempt: Attempt, fault: Fault) -> None:
    server, _, delivery = attempt("content", fault, LARGE)
    assert delivery.outcome is Outcome.UNREACHED
    assert delivery.recipients[0].outcome is Outcome.FAILED
    assert not delivery.permitted
    assert delivery.trouble
    assert server.accepted == []


def test_last_words_in_the_content_are_heard(attempt: Attempt) -> None:
    _, _, delivery = attempt("content", Reply("421 4.3.2 out of time"), LARGE)
    # The words may be lost with the reset that follows them; either way nobody has the mail.
    assert delivery.outcome in {Outcome.DEFERRED, Outcome.UNREACHED}
    assert not delivery.permitted


@pytest.mark.parametrize(
    ("fault", "arrived"),
    [
        (Drop(), 0),
        (Drop(reset=True), 0),
        (Lost(), 1),
        (Hang(), 1),
        (Reply(b"what?\r\n"), 0),
        (Reply(b"25"), 1),
        (Reply("354 still going on"), 0),
        (Reply(b"250-" + b"x" * 100_000), 1),
    ],
)
def test_a_break_after_the_dot_is_uncertain(attempt: Attempt, fault: Fault, arrived: int) -> None:
    server, _, delivery = attempt(".", fault)
    assert delivery.outcome is Outcome.UNCERTAIN
    assert delivery.recipients[0].outcome is Outcome.FAILED
    assert delivery.recipients[1].outcome is Outcome.UNCERTAIN
    assert delivery.recipients[1].reply is None
    assert delivery.permitted
    assert delivery.trouble
    assert len(server.accepted) == arrived


def test_a_server_that_goes_away_while_the_permit_is_asked_gets_no_dot(
    scripted: Scripted, opened: Opened, hasty: Client
) -> None:
    server = scripted()
    session = opened(server, hasty)

    def permit() -> bool:
        server.disconnect_all()
        return True

    delivery = session.deliver(Envelope("a@x", ("b@x",)), LETTER, permit)
    assert delivery.outcome is Outcome.UNREACHED
    assert not delivery.permitted
    assert server.accepted == []


def test_a_server_that_went_away_before_the_permit_is_asked(scripted: Scripted, opened: Opened, hasty: Client) -> None:
    server = scripted(on={"content": Drop()}, size_bytes=None)
    session = opened(server, hasty)
    # More than one socket buffer, so that writing it outlasts the server.
    delivery = session.deliver(Envelope("a@x", ("b@x",)), LARGE, lambda: pytest.fail("asked"))
    assert delivery.outcome is Outcome.UNREACHED


def test_a_server_that_does_not_read_is_given_up(scripted: Scripted, opened: Opened, hasty: Client) -> None:
    server = scripted(on={"content": Hang()}, size_bytes=None)
    delivery = opened(server, hasty).deliver(Envelope("a@x", ("b@x",)), LARGE, lambda: pytest.fail("asked"))
    assert delivery.outcome is Outcome.UNREACHED
    assert "took nothing in" in str(delivery.trouble)


def test_idle_close_is_seen_before_use(scripted: Scripted, opened: Opened, settings: Settings) -> None:
    server = scripted(**settings[0])
    session = opened(server, **settings[1])
    assert session.alive()
    server.disconnect_all()
    assert not session.alive()
    assert not session.reusable


@pytest.mark.parametrize("words", ["421 4.4.2 idle too long", "250 hello?"])
def test_words_while_idle_are_seen_before_use(
    scripted: Scripted, opened: Opened, settings: Settings, words: str
) -> None:
    server = scripted(**settings[0])
    session = opened(server, **settings[1])
    session.deliver(Envelope("a@x", ("b@x",)), LETTER, permitted)
    assert session.alive()
    server.say(words)
    deadline = time.monotonic() + 2
    while session.alive():
        assert time.monotonic() < deadline
    assert not session.reusable
    session.close()
    assert "QUIT" not in server.commands
