"""One behaviour, whatever the server: Postfix, npm's smtp-server, aiosmtpd and the scripted one.

What each can do; what is not here is not tried:

    server     security       sign-in                        remarks
    postfix    starttls, tls  PLAIN LOGIN CRAM-MD5           no XOAUTH2; without sign-in 554 5.7.1 at RCPT,
                                                              which says no more than that it refuses the recipient
    npm        starttls, tls  PLAIN LOGIN CRAM-MD5 XOAUTH2   says 553 5.1.3 where Postfix says 553 5.7.1
    aiosmtpd   starttls, tls  PLAIN LOGIN                    no CRAM-MD5 and no XOAUTH2; no PIPELINING
    scripted   starttls, tls  PLAIN LOGIN CRAM-MD5 XOAUTH2
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest

from postroom.config.states import Auth, Effect, Outcome, Scope, Security
from postroom.worker.smtp.pool import Pool
from postroom.worker.smtp.server import Client, Server
from postroom.worker.smtp.session import Delivery, Envelope, OpenFailed, Session
from servers import peers
from servers.certificates import Certificates
from servers.peers import SIZE_BYTES, Peer
from servers.smtp_client import permitted

STARTTLS, TLS = Security.STARTTLS, Security.TLS
MECHANISMS = {
    peers.postfix: [Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5],
    peers.npm: [Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5, Auth.XOAUTH2],
    peers.aiosmtpd: [Auth.PLAIN, Auth.LOGIN],
    peers.scripted: [Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5, Auth.XOAUTH2],
}
WAYS_IN = [
    pytest.param((kind, security, auth), id=f"{kind.__name__}-{security}-{auth}")
    for kind, mechanisms in MECHANISMS.items()
    for security, auth in [*((STARTTLS, auth) for auth in mechanisms), (TLS, mechanisms[-1]), (TLS, Auth.AUTO)]
]
HEAD = (
    "Date: Wed, 25 Nov 2026 10:00:00 +0000\r\nFrom: info@shop.example\r\nTo: b@client.example\r\n"
    "Message-ID: <1@shop.example>\r\nSubject: hello\r\n\r\n"
)


@pytest.fixture(scope="session")
def running(certificates: Certificates) -> Iterator[Callable[..., Peer]]:
    """Starts each kind of server once."""
    with ExitStack() as stack:
        started: dict[Any, Peer] = {}

        def start(kind: Any) -> Peer:
            if kind not in started:
                started[kind] = stack.enter_context(kind(certificates))
            return started[kind]

        yield start


@pytest.fixture(params=WAYS_IN)
def way_in(request: pytest.FixtureRequest, running: Callable[..., Peer]) -> tuple[Peer, Security, Auth]:
    kind, security, auth = request.param
    return running(kind), security, auth


@pytest.fixture
def peer(way_in: tuple[Peer, Security, Auth]) -> Peer:
    return way_in[0]


@pytest.fixture
def account(way_in: tuple[Peer, Security, Auth]) -> Callable[..., Server]:
    """An account on the server, right unless said otherwise."""
    peer, security, auth = way_in
    return lambda **settings: peer.account(security, settings.pop("auth", auth), **settings)


@pytest.fixture
def session(account: Callable[..., Server], patient: Client) -> Iterator[Session]:
    session = Session.open(account(), patient)
    yield session
    session.close()


@pytest.fixture
def recipient() -> str:
    """An address that no other test writes to."""
    return f"{uuid4().hex}@client.example"


def letter(*lines: str) -> bytes:
    return (HEAD + "".join(f"{line}\r\n" for line in lines)).encode()


def send(session: Session, *recipients: str, content: bytes, sender: str = Peer.login) -> Delivery:
    return session.deliver(Envelope(sender, recipients), content, permitted)


@pytest.mark.parametrize(
    "content",
    [
        letter("Hello"),
        letter(".", "..", ".a", "", "..b", "."),
        letter("Привет, мир", "é" * 400, "日本語"),
        letter("x" * 998, "", ""),
        letter(*["." + "0123456789" * 7] * 10_000),
    ],
    ids=["plain", "dots", "8bit", "longest line", "730 kB"],
)
def test_a_letter_arrives_byte_for_byte(peer: Peer, session: Session, recipient: str, content: bytes) -> None:
    delivery = send(session, recipient, content=content)
    assert delivery.outcome is Outcome.ACCEPTED
    assert peer.letters_to(recipient) == [content]
    assert session.reusable


def test_many_mails_go_over_one_session_once_each(peer: Peer, session: Session, recipient: str) -> None:
    contents = [letter(f"number {number}") for number in range(20)]
    for content in contents:
        assert send(session, recipient, content=content).outcome is Outcome.ACCEPTED
    arrived = peer.letters_to(recipient, len(contents))
    assert sorted(arrived) == sorted(contents)  # what comes out of Postfix's queue is in no order


def test_envelopes_go_ahead_of_their_mails(peer: Peer, session: Session, recipient: str) -> None:
    row = [(Envelope(Peer.login, (recipient,)), letter(f"number {number}", "." * number)) for number in range(10)]
    row.insert(5, (Envelope(Peer.login, (peer.unknown,)), letter("to nobody")))
    row.insert(3, (Envelope(Peer.login, (peer.unknown, recipient)), letter("to one of two")))
    went_ahead = 0
    for this, following in zip(row, [*row[1:], None], strict=True):
        went_ahead += session.promised is not None
        refused = this[0].recipients == (peer.unknown,)
        delivery = session.deliver(*this, permitted, following=following)
        assert delivery.outcome is (Outcome.FAILED if refused else Outcome.ACCEPTED)
    assert went_ahead == (len(row) - 2 if session.extensions.pipelining else 0)  # none goes behind a refused one
    assert session.reusable
    assert session.alive()
    assert sorted(peer.letters_to(recipient, 11)) == sorted(content for _, content in row if b"nobody" not in content)


def test_one_of_several_recipients_is_refused(peer: Peer, session: Session, recipient: str) -> None:
    content = letter("Hello")
    other = f"other-{recipient}"
    delivery = send(session, recipient, peer.unknown, other, content=content)
    assert [each.outcome for each in delivery.recipients] == [Outcome.ACCEPTED, Outcome.FAILED, Outcome.ACCEPTED]
    refused = delivery.recipients[1]
    assert refused.reply is not None
    assert (refused.reply.code, refused.reply.enhanced_status_code, refused.reply.command) == (550, "5.1.1", "RCPT")
    assert peer.letters_to(recipient) == peer.letters_to(other) == [content]


def test_an_unknown_recipient_fails_and_the_session_goes_on(peer: Peer, session: Session, recipient: str) -> None:
    delivery = send(session, peer.unknown, content=letter("Hello"))
    assert delivery.outcome is Outcome.FAILED
    assert delivery.verdict is not None
    assert (delivery.verdict.scope, delivery.verdict.rule) == (Scope.RECIPIENT, "no_such_recipient")
    assert not delivery.permitted
    assert session.reusable
    assert session.alive()
    assert send(session, recipient, content=letter("after RSET")).outcome is Outcome.ACCEPTED
    assert peer.letters_to(recipient) == [letter("after RSET")]


def test_a_from_that_the_login_does_not_own(peer: Peer, session: Session, recipient: str) -> None:
    delivery = send(session, recipient, content=letter("Hello"), sender=peer.foreign_sender)
    assert delivery.outcome is Outcome.FAILED
    assert delivery.verdict is not None
    assert (delivery.verdict.scope, delivery.verdict.effect) == (Scope.SENDER, Effect.NONE)
    assert delivery.reply is not None
    assert delivery.reply.code == 553
    assert session.reusable
    assert send(session, recipient, content=letter("mine")).outcome is Outcome.ACCEPTED
    assert peer.letters_to(recipient) == [letter("mine")]


def test_a_letter_too_large_is_not_offered(peer: Peer, session: Session, recipient: str) -> None:
    assert session.extensions.size_bytes == SIZE_BYTES
    delivery = send(session, recipient, content=letter(*["x" * 78] * 20_000))
    assert delivery.outcome is Outcome.FAILED
    assert delivery.verdict is not None
    assert (delivery.verdict.scope, delivery.verdict.rule) == (Scope.MAIL, "size")
    assert send(session, recipient, content=letter("small")).outcome is Outcome.ACCEPTED
    assert peer.letters_to(recipient) == [letter("small")]


def test_the_server_itself_refuses_a_letter_too_large(session: Session, recipient: str) -> None:
    # As if it had not told its limit: then it must say so at MAIL or after the dot.
    object.__setattr__(session.extensions, "size_bytes", None)
    delivery = send(session, recipient, content=letter(*["x" * 78] * 20_000))
    assert delivery.outcome is Outcome.FAILED
    assert delivery.verdict is not None
    assert delivery.verdict.scope is Scope.MAIL
    assert delivery.reply is not None
    assert delivery.reply.code == 552


def test_an_address_outside_ascii(peer: Peer, session: Session, recipient: str) -> None:
    address = f"ящик-{recipient}"
    content = letter("Hello")
    assert session.extensions.smtputf8
    assert send(session, recipient, address, content=content).outcome is Outcome.ACCEPTED
    assert peer.letters_to(address) == peer.letters_to(recipient) == [content]


def test_a_wrong_password(account: Callable[..., Server], patient: Client) -> None:
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(password="wr0ng-password"), patient)
    error = caught.value
    assert error.step == "auth"
    assert error.reply is not None
    assert error.reply.code == 535
    assert error.verdict is not None
    assert (error.verdict.scope, error.verdict.effect) == (Scope.ACCOUNT, Effect.SUSPEND)
    assert error.hint
    assert "wr0ng" not in str(error)


def test_sign_in_is_required(peer: Peer, account: Callable[..., Server], patient: Client, recipient: str) -> None:
    session = Session.open(account(auth=Auth.NONE), patient)
    delivery = send(session, recipient, content=letter("Hello"))
    assert delivery.outcome is not Outcome.ACCEPTED
    assert not delivery.permitted
    assert delivery.verdict is not None
    says_why = delivery.reply is None or "Access denied" not in delivery.reply.text  # Postfix: see above
    expected = (Scope.ACCOUNT, Effect.SUSPEND) if says_why else (Scope.RECIPIENT, Effect.NONE)
    assert (delivery.verdict.scope, delivery.verdict.effect) == expected
    session.close()


def test_a_server_restarted_between_mails_is_noticed_before_the_next(
    peer: Peer, account: Callable[..., Server], patient: Client, recipient: str
) -> None:
    pool = Pool(patient, idle_seconds=60, age_seconds=60)
    for number in range(2):
        session = pool.take((1, 1), lambda: Session.open(account(), patient))
        assert send(session, recipient, content=letter(f"number {number}")).outcome is Outcome.ACCEPTED
        pool.give_back((1, 1), session)
        assert pool.idle_count == 1
        assert len(peer.letters_to(recipient, number + 1)) == number + 1
        if number == 0:
            peer.restart()
    pool.close_all()
    assert sorted(peer.letters_to(recipient)) == [letter("number 0"), letter("number 1")]
