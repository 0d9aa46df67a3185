"""The next mail's envelope right behind a final dot: a mail costs a round trip, and nobody's outcome changes by it."""

import threading
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from postroom.config.states import Outcome
from postroom.worker.smtp.pool import Pool
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Delivery, Envelope, Session
from servers.scripted_smtp import Closing, Drop, Extra, Fault, Hang, Lost, Reply, ScriptedSMTP
from servers.smtp_client import LETTER, account, permitted

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]
Mail: TypeAlias = tuple[Envelope, bytes]


def mail(*recipients: str, content: bytes = LETTER, sender: str = "a@shop.example") -> Mail:
    return Envelope(sender, recipients), content


def send(session: Session, this: Mail, following: Mail | None = None) -> Delivery:
    return session.deliver(*this, permitted, following=following)


FIRST, SECOND, THIRD = mail("first@x"), mail("second@x", content=LETTER + b"again\r\n"), mail("third@x")


def recipients(server: ScriptedSMTP) -> list[tuple[str, ...]]:
    return [each.recipients for each in server.accepted]


def test_mails_in_a_row_arrive_as_they_are(scripted: Scripted, opened: Opened) -> None:
    server = scripted(extensions=["PIPELINING", "8BITMIME", "SMTPUTF8"])
    session = opened(server)
    contents = [LETTER, LETTER + b".\r\n" * 3, "Subject: Ж\r\n\r\nЖ\r\n".encode(), LETTER + b".x\r\n" * 50_000]
    row = [mail(f"b{number}@x", content=contents[number % 4]) for number in range(16)]
    row[6] = mail("ящик@x", "b6@x")
    for number, this in enumerate(row):
        following = row[number + 1] if number < 15 else None
        assert send(session, this, following).outcome is Outcome.ACCEPTED
        assert session.promised is (following[0] if following else None)
    assert [(each.reverse_path, each.recipients, each.content) for each in server.accepted] == [
        (envelope.reverse_path, envelope.recipients, content) for envelope, content in row
    ]
    assert [each.parameters for each in server.accepted] == [
        f"SIZE={len(content)}"
        + ("" if content.isascii() and "ящик@x" not in envelope.recipients else " BODY=8BITMIME")
        + (" SMTPUTF8" if "ящик@x" in envelope.recipients else "")
        for envelope, content in row
    ]
    assert server.connections == 1
    assert "RSET" not in server.commands
    assert session.reusable
    assert session.alive()


def test_the_envelope_is_there_before_its_mail_is_sent_and_no_permit_is_asked_for_it(
    scripted: Scripted, opened: Opened
) -> None:
    server = scripted()
    session = opened(server)
    asked: list[str] = []

    def permit(whose: str) -> Callable[[], bool]:
        def ask() -> bool:
            asked.append(whose)
            return True

        return ask

    session.deliver(*FIRST, permit("first"), following=SECOND)
    server.wait_commands("RCPT TO:<second@x>", "DATA")
    assert asked == ["first"]
    assert recipients(server) == [("first@x",)]
    assert session.deliver(*SECOND, permit("second")).outcome is Outcome.ACCEPTED
    assert asked == ["first", "second"]
    assert server.commands.count("DATA") == 2


def test_no_server_waits_for_a_second_round_trip(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    server.wait_commands("RCPT TO:<second@x>", "DATA")
    server.turns = 0
    send(session, SECOND, THIRD)
    server.wait_commands("RCPT TO:<third@x>", "DATA")
    assert server.turns == 1, "content, dot and envelope come in one write"


@pytest.mark.parametrize(
    ("server_settings", "account_settings", "lockstep"),
    [({"extensions": []}, {}, False), ({}, {"pipelining": False}, False), ({}, {}, True)],
    ids=["not offered", "switched off", "lockstep"],
)
def test_nothing_goes_ahead_where_it_may_not(
    scripted: Scripted,
    opened: Opened,
    server_settings: dict[str, object],
    account_settings: dict[str, object],
    lockstep: bool,
) -> None:
    server = scripted(**server_settings)
    session = opened(server, **account_settings)
    session.lockstep = session.lockstep or lockstep
    assert send(session, FIRST, SECOND).outcome is Outcome.ACCEPTED
    assert session.promised is None
    assert send(session, THIRD, SECOND).outcome is Outcome.ACCEPTED
    assert recipients(server) == [("first@x",), ("third@x",)]
    assert not any("second" in command for command in server.commands)


@pytest.mark.parametrize(
    "following",
    [mail("b@x", content=b"x" * 2000), mail("ящик@x"), mail(*(f"b{number}@x" for number in range(99)))],
    ids=["too large", "needs SMTPUTF8", "more than one write"],
)
def test_a_mail_whose_envelope_cannot_go_ahead(scripted: Scripted, opened: Opened, following: Mail) -> None:
    server = scripted(size_bytes=1000)
    session = opened(server)
    assert send(session, FIRST, following).outcome is Outcome.ACCEPTED
    assert session.promised is None
    assert session.alive()
    delivery = send(session, following)
    assert delivery.outcome is (Outcome.ACCEPTED if len(following[0].recipients) > 1 else Outcome.FAILED)
    assert session.reusable


def test_as_many_recipients_as_go_in_one_write_go_ahead(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    following = mail(*(f"b{number}@x" for number in range(98)))
    send(session, FIRST, following)
    assert session.promised is following[0]
    assert send(session, following).outcome is Outcome.ACCEPTED
    assert recipients(server) == [("first@x",), following[0].recipients]


@pytest.mark.parametrize(
    ("reply", "outcome"), [("451 4.3.0 later", Outcome.DEFERRED), ("554 5.6.0 not like this", Outcome.FAILED)]
)
def test_a_dot_that_is_refused_leaves_the_next_mail_alone(
    scripted: Scripted, opened: Opened, reply: str, outcome: Outcome
) -> None:
    server = scripted(on={".": [Reply(reply)]})
    session = opened(server)
    assert send(session, FIRST, SECOND).outcome is outcome
    assert session.reusable
    assert send(session, SECOND).outcome is Outcome.ACCEPTED
    assert recipients(server) == [("second@x",)]


def test_a_mail_that_gets_no_dot_takes_no_envelope_along(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    assert send(session, mail("rcpt-550-5.1.1@x"), SECOND).outcome is Outcome.FAILED
    assert session.promised is None
    assert send(session, SECOND).outcome is Outcome.ACCEPTED
    assert "RSET" in server.commands


def test_recipients_refused_in_an_envelope_that_went_ahead(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    some, none = mail("rcpt-550-5.1.1@x", "b@x", "rcpt-450-4.2.0@x"), mail("rcpt-550-5.1.1@x", "rcpt-450-4.2.0@x")
    assert send(session, FIRST, some).outcome is Outcome.ACCEPTED
    delivery = send(session, some, none)
    assert [each.outcome for each in delivery.recipients] == [Outcome.FAILED, Outcome.ACCEPTED, Outcome.DEFERRED]
    delivery = session.deliver(*none, lambda: pytest.fail("asked"), following=THIRD)
    assert [each.outcome for each in delivery.recipients] == [Outcome.FAILED, Outcome.DEFERRED]
    assert session.promised is None
    assert send(session, THIRD).outcome is Outcome.ACCEPTED
    assert recipients(server) == [("first@x",), ("b@x",), ("third@x",)]
    assert server.connections == 1


def test_354_without_recipients_is_ended_by_a_lone_dot(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={"DATA": [None, Reply("354 go on anyway")]})
    session = opened(server)
    none = mail("rcpt-550-5.1.1@x")
    send(session, FIRST, none)
    assert send(session, none, THIRD).outcome is Outcome.FAILED
    assert send(session, THIRD).outcome is Outcome.ACCEPTED
    assert [each.content for each in server.accepted] == [LETTER, LETTER]


def test_mail_refused_ahead_goes_for_every_recipient(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    refused = mail("b@x", "c@x", sender="mail-553-5.7.1@shop.example")
    send(session, FIRST, refused)
    delivery = send(session, refused)
    assert [each.outcome for each in delivery.recipients] == [Outcome.FAILED] * 2
    assert delivery.reply is not None
    assert delivery.reply.command == "MAIL"
    assert send(session, THIRD).outcome is Outcome.ACCEPTED


def test_421_to_the_dot_ends_the_session_and_nobody_has_the_next(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={".": [Reply("421 4.3.2 shutting down")]})
    session = opened(server)
    assert send(session, FIRST, SECOND).outcome is Outcome.DEFERRED
    assert not session.reusable
    assert server.accepted == []


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_421_in_an_envelope_that_went_ahead(scripted: Scripted, opened: Opened, verb: str) -> None:
    server = scripted(on={verb: [None, Reply("421 4.3.2 shutting down")]})
    session = opened(server)
    assert send(session, FIRST, SECOND).outcome is Outcome.ACCEPTED
    delivery = send(session, SECOND)
    assert delivery.outcome is Outcome.DEFERRED
    assert delivery.stale is (verb == "MAIL")
    assert not session.reusable
    assert recipients(server) == [("first@x",)]


@pytest.mark.parametrize("last_words", ["", "421 4.7.0 that was enough"])
def test_a_server_that_closes_after_a_mail(scripted: Scripted, opened: Opened, last_words: str) -> None:
    server = scripted(on={".": [Closing(last_words)]})
    session = opened(server)
    first = send(session, FIRST, SECOND)
    assert first.outcome in {Outcome.ACCEPTED, Outcome.UNCERTAIN}  # its words may be lost to the reset
    if first.outcome is Outcome.ACCEPTED:
        delivery = send(session, SECOND)
        assert delivery.stale
        assert delivery.outcome in {Outcome.UNREACHED, Outcome.DEFERRED}
    assert not session.reusable
    assert recipients(server) == [("first@x",)]


@pytest.mark.parametrize("fault", [Drop(), Drop(reset=True), Lost(), Hang(), Reply(b"what?\r\n")])
def test_a_break_at_the_dot_makes_this_mail_uncertain_and_leaves_the_next_to_another_session(
    scripted: Scripted, opened: Opened, hasty: Client, fault: Fault
) -> None:
    server = scripted(on={".": [fault]})
    session = opened(server, hasty)
    delivery = send(session, FIRST, SECOND)
    assert delivery.outcome is Outcome.UNCERTAIN
    assert not session.reusable
    assert session.promised is None
    assert send(opened(server), SECOND).outcome is Outcome.ACCEPTED
    assert recipients(server).count(("second@x",)) == 1


def test_another_mail_than_promised_is_left_to_another_session(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    delivery = session.deliver(*THIRD, lambda: pytest.fail("asked"))
    assert delivery.outcome is Outcome.UNREACHED
    assert delivery.stale
    assert not session.reusable
    server.wait_connections_closed()
    assert recipients(server) == [("first@x",)]


def test_the_same_mail_composed_anew_is_the_one_promised(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    assert send(session, mail("second@x", content=bytes(bytearray(SECOND[1])))).outcome is Outcome.ACCEPTED


def test_the_same_envelope_with_another_letter_is_another_mail(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    assert send(session, (SECOND[0], LETTER)).outcome is Outcome.UNREACHED
    server.wait_connections_closed()
    assert recipients(server) == [("first@x",)]


def test_a_refused_permit_for_a_mail_whose_envelope_went_ahead(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    delivery = session.deliver(*SECOND, lambda: False, following=THIRD)
    assert delivery.outcome is Outcome.UNREACHED
    assert not delivery.permitted
    assert not session.reusable
    assert session.promised is None
    server.wait_connections_closed()
    assert recipients(server) == [("first@x",)]


def test_closing_a_session_that_awaits_a_mail_sends_no_empty_letter(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    server.wait_commands("RCPT TO:<second@x>", "DATA")
    assert not session.alive()
    session.close()
    server.wait_connections_closed()
    assert recipients(server) == [("first@x",)]
    assert "QUIT" not in server.commands


def test_what_is_said_while_the_permit_is_awaited_is_no_answer_to_the_dot(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)

    def permit() -> bool:
        server.say("250 2.0.0 taken, though you have not finished")
        return True

    delivery = session.deliver(*SECOND, permit, following=THIRD)
    assert delivery.outcome is not Outcome.ACCEPTED
    assert not delivery.permitted
    server.wait_connections_closed()
    assert recipients(server) == [("first@x",)]


@pytest.mark.parametrize("more", ["250 2.0.0 more", "354 more", "550 5.1.1 no such user", "450 4.2.0 not now"])
@pytest.mark.parametrize("verb", [".", "MAIL", "RCPT", "DATA"])
def test_more_than_was_asked_judges_nobody(scripted: Scripted, opened: Opened, verb: str, more: str) -> None:
    server = scripted(on={verb: [Extra(more)] if verb == "." else [None, Extra(more)]})
    session = opened(server)
    both = mail("second@x", "too@x")
    assert send(session, FIRST, both).outcome is Outcome.ACCEPTED
    delivery = send(session, both)
    assert not session.reusable
    assert delivery.outcome is not Outcome.FAILED
    assert delivery.outcome is not Outcome.ACCEPTED or len(server.accepted) == 2


@pytest.fixture
def pool(patient: Client) -> Iterator[Pool]:
    kept = Pool(patient, 60, 60)
    yield kept
    kept.close_all()


def test_the_pool_keeps_no_session_that_awaits_a_mail(scripted: Scripted, opened: Opened, pool: Pool) -> None:
    server = scripted()
    session = opened(server)
    send(session, FIRST, SECOND)
    assert session.reusable
    pool.give_back("key", session)
    assert pool.idle_count == 0
    server.wait_connections_closed()
    assert recipients(server) == [("first@x",)]


FIRST_TIME: dict[str, dict[str, list[Fault | None]]] = {
    "silence": {"MAIL": [None, Hang()]},
    "silence after the dot": {".": [Hang()]},
    "nonsense": {"RCPT": [None, Reply(b"what?\r\n")]},
    "an answer that fits no command": {"DATA": [None, Reply("250 fine")]},
    "an end": {"MAIL": [None, Drop()]},
}


@pytest.mark.parametrize("script", FIRST_TIME.values(), ids=FIRST_TIME.keys())
def test_an_account_whose_server_may_not_bear_it_goes_on_in_lockstep(
    scripted: Scripted, hasty: Client, pool: Pool, script: dict[str, Fault]
) -> None:
    server = scripted(on=script)
    session = pool.take("key", lambda: Session.open(account(server), hasty))
    other = pool.take("key", lambda: Session.open(account(server), hasty))
    send(session, FIRST, SECOND)
    if session.reusable:
        assert send(session, SECOND).outcome is Outcome.UNREACHED
    pool.give_back("key", session)
    pool.give_back("key", other)
    again = pool.take("key", lambda: Session.open(account(server), hasty))
    assert again is other
    send(again, SECOND, THIRD)
    assert again.promised is None
    pool.give_back("key", again)
    elsewhere = pool.take("another key", lambda: Session.open(account(server), hasty))
    assert not elsewhere.lockstep
    pool.give_back("another key", elsewhere)


@pytest.mark.parametrize("verb", ["MAIL", "."])
def test_an_end_after_many_mails_is_no_reason_for_lockstep(
    scripted: Scripted, opened: Opened, pool: Pool, verb: str
) -> None:
    server = scripted(on={verb: [None, None, None, Drop()]})
    session = opened(server)
    for _ in range(4):
        if not session.reusable:
            break
        send(session, FIRST, FIRST)
    assert not session.reusable
    pool.give_back("key", session)
    taken = pool.take("key", lambda: opened(server))
    assert not taken.lockstep


def test_many_threads_each_with_a_row(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    failures: list[str] = []

    def row(name: str) -> None:
        session = opened(server)
        mails = [mail(f"{name}-{number}@x", content=LETTER + f"{name} {number}\r\n".encode()) for number in range(30)]
        for this, following in zip(mails, [*mails[1:], None], strict=True):
            if send(session, this, following).outcome is not Outcome.ACCEPTED:
                failures.append(name)

    threads = [threading.Thread(target=row, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({each.content for each in server.accepted}) == len(server.accepted) == 120
    assert all(
        each.content.endswith(f"{each.recipients[0].removesuffix('@x').replace('-', ' ')}\r\n".encode())
        for each in server.accepted
    )
