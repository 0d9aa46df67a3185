"""One mail over one session: what goes over the wire, and what each recipient gets."""

import threading
from collections.abc import Callable

import pytest

from postroom.config.states import Effect, Outcome, Scope
from postroom.worker.smtp.content import stuffed, wire_content
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Delivery, Envelope, Session, Step
from servers.scripted_smtp import Extra, Fragments, Reply, ScriptedSMTP
from servers.smtp_client import LETTER, account, permitted

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]

SENDER = "a@shop.example"


@pytest.fixture(params=["pipelined", "not offered", "lockstep"])
def pace(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(scripted: Scripted, opened: Opened, pace: str) -> Callable[..., tuple[ScriptedSMTP, Session]]:
    """A server and a session on it, with one of the three ways to pace commands."""

    def start(**settings: object) -> tuple[ScriptedSMTP, Session]:
        if pace == "not offered":
            settings["extensions"] = ["8BITMIME"]
        server = scripted(**settings)
        session = opened(server)
        session.lockstep = pace == "lockstep"
        return server, session

    return start


Served = Callable[..., tuple[ScriptedSMTP, Session]]


def send(session: Session, *recipients: str, content: bytes = LETTER, sender: str = SENDER) -> Delivery:
    return session.deliver(Envelope(sender, recipients), content, permitted)


def outcomes(delivery: Delivery) -> list[Outcome]:
    return [recipient.outcome for recipient in delivery.recipients]


def test_a_mail_is_accepted(served: Served) -> None:
    server, session = served()
    delivery = send(session, "b@x.example", "c@x.example")
    assert delivery.outcome is Outcome.ACCEPTED
    assert outcomes(delivery) == [Outcome.ACCEPTED] * 2
    assert [recipient.address for recipient in delivery.recipients] == ["b@x.example", "c@x.example"]
    assert str(delivery.reply) == "250 2.0.0 taken"
    assert delivery.permitted
    assert delivery.trouble is None
    assert delivery.duration_seconds > 0
    (accepted,) = server.accepted
    assert (accepted.reverse_path, accepted.recipients) == (SENDER, ("b@x.example", "c@x.example"))
    assert accepted.content == LETTER
    assert accepted.parameters == f"SIZE={len(LETTER)}"
    assert session.reusable


def test_the_null_reverse_path(served: Served) -> None:
    server, session = served()
    assert send(session, "b@x.example", sender="").outcome is Outcome.ACCEPTED
    assert server.accepted[0].reverse_path == ""


def test_many_mails_over_one_session(served: Served) -> None:
    server, session = served()
    for number in range(20):
        assert send(session, f"b{number}@x.example").outcome is Outcome.ACCEPTED
    assert server.connections == 1
    assert [each.recipients for each in server.accepted] == [(f"b{number}@x.example",) for number in range(20)]
    assert "RSET" not in server.commands


def test_recipients_get_an_outcome_each(served: Served) -> None:
    server, session = served()
    delivery = send(session, "rcpt-550-5.1.1@x", "ok@x", "rcpt-450-4.2.0@x", "fine@x")
    assert delivery.outcome is Outcome.ACCEPTED
    assert outcomes(delivery) == [Outcome.FAILED, Outcome.ACCEPTED, Outcome.DEFERRED, Outcome.ACCEPTED]
    refused, accepted, deferred, _ = delivery.recipients
    assert refused.reply is not None
    assert (refused.reply.code, refused.reply.enhanced_status_code, refused.reply.command) == (550, "5.1.1", "RCPT")
    assert refused.verdict is not None
    assert refused.verdict.rule == "no_such_recipient"
    assert deferred.verdict is not None
    assert (deferred.verdict.rule, deferred.verdict.scope) == ("class_4", Scope.RECIPIENT)
    assert accepted.reply is delivery.reply
    assert server.accepted[0].recipients == ("ok@x", "fine@x")
    assert session.reusable


@pytest.mark.parametrize(
    ("recipients", "outcome", "rule"),
    [
        (("rcpt-550-5.1.1@x", "rcpt-550-5.1.1+b@x"), Outcome.FAILED, "no_such_recipient"),
        (("rcpt-550-5.1.1@x", "rcpt-450-4.2.0@x"), Outcome.DEFERRED, "class_4"),
    ],
)
def test_no_recipient_accepted(served: Served, recipients: tuple[str, ...], outcome: Outcome, rule: str) -> None:
    server, session = served()
    delivery = send(session, *recipients)
    assert delivery.outcome is outcome
    assert delivery.verdict is not None
    assert delivery.verdict.rule == rule
    assert not delivery.permitted
    assert server.accepted == []
    assert session.reusable
    assert send(session, "b@x").outcome is Outcome.ACCEPTED
    assert len(server.accepted) == 1
    assert "RSET" in server.commands


def test_354_without_recipients_is_ended_by_a_lone_dot_and_delivers_nothing(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={"DATA": [Reply("354 go on anyway")]})
    session = opened(server)
    delivery = send(session, "rcpt-550-5.1.1@x")
    assert delivery.outcome is Outcome.FAILED
    assert not delivery.permitted
    assert server.accepted == []
    assert session.reusable
    assert send(session, "b@x").outcome is Outcome.ACCEPTED
    assert [each.content for each in server.accepted] == [LETTER]


def test_354_and_250_without_recipients_is_no_acceptance(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={"DATA": [Reply("354 go on anyway")], ".": [Reply("250 taken, whatever it was")]})
    session = opened(server)
    delivery = send(session, "rcpt-550-5.1.1@x")
    assert outcomes(delivery) == [Outcome.FAILED]
    assert send(session, "b@x").outcome is Outcome.ACCEPTED


def test_no_dot_where_recipients_are_taken_after_mail_was_refused(scripted: Scripted, opened: Opened) -> None:
    server = scripted(
        on={"MAIL": Reply("550 5.7.1 no"), "RCPT": Reply("250 yes"), "DATA": Reply("354 go on"), ".": Reply("250 ok")}
    )
    session = opened(server)
    delivery = send(session, "b@x")
    assert delivery.outcome is Outcome.FAILED
    assert not session.reusable
    server.wait_connections_closed()
    assert server.accepted == []


@pytest.mark.parametrize(
    ("local_part", "outcome", "scope"),
    [
        ("mail-553-5.7.1", Outcome.FAILED, Scope.SENDER),
        ("mail-450-4.1.8", Outcome.DEFERRED, Scope.MAIL),
        ("mail-530-5.7.0", Outcome.DEFERRED, Scope.ACCOUNT),
        ("mail-552-5.3.4", Outcome.FAILED, Scope.MAIL),
    ],
)
def test_mail_refused_goes_for_every_recipient(served: Served, local_part: str, outcome: Outcome, scope: Scope) -> None:
    server, session = served()
    delivery = send(session, "b@x", "c@x", sender=f"{local_part}@shop.example")
    assert delivery.outcome is outcome
    assert outcomes(delivery) == [outcome] * 2
    assert delivery.reply is not None
    assert delivery.reply.command == "MAIL"
    assert all(recipient.reply is delivery.reply for recipient in delivery.recipients)
    assert delivery.verdict is not None
    assert delivery.verdict.scope is scope
    assert session.reusable
    assert send(session, "b@x").outcome is Outcome.ACCEPTED
    assert len(server.accepted) == 1


@pytest.mark.parametrize("verb", ["DATA", "."])
@pytest.mark.parametrize(
    ("reply", "outcome"), [("451 4.3.0 later", Outcome.DEFERRED), ("554 5.6.0 not like this", Outcome.FAILED)]
)
def test_data_or_the_dot_refused_goes_for_those_whom_rcpt_took(
    served: Served, verb: str, reply: str, outcome: Outcome
) -> None:
    server, session = served(on={verb: [Reply(reply)]})
    delivery = send(session, "rcpt-550-5.1.1@x", "b@x")
    assert outcomes(delivery) == [Outcome.FAILED, outcome]
    assert delivery.outcome is outcome
    assert delivery.recipients[1].reply is not None
    assert delivery.recipients[1].reply.command == verb
    assert delivery.permitted is (verb == ".")
    assert server.accepted == []
    assert session.reusable
    assert send(session, "b@x").outcome is Outcome.ACCEPTED
    assert ("RSET" in server.commands) is (verb == "DATA")


def test_too_many_recipients_leaves_the_rest_for_a_next_transaction_at_once(served: Served) -> None:
    _, session = served()
    delivery = send(session, "b@x", "rcpt-452-4.5.3@x")
    assert outcomes(delivery) == [Outcome.ACCEPTED, Outcome.DEFERRED]
    verdict = delivery.recipients[1].verdict
    assert verdict is not None
    assert (verdict.rule, verdict.wait_seconds) == ("too_many_recipients", 0)


def test_too_many_recipients_where_none_was_taken_is_no_reason_to_hurry(served: Served) -> None:
    _, session = served()
    delivery = send(session, "rcpt-452-4.5.3@x")
    assert delivery.outcome is Outcome.DEFERRED
    assert delivery.verdict is not None
    assert delivery.verdict.wait_seconds is None


def test_more_recipients_than_go_in_one_write(served: Served) -> None:
    server, session = served()
    recipients = [f"b{number}@x" for number in range(350)]
    recipients[200] = "rcpt-550-5.1.1@x"
    delivery = send(session, *recipients)
    assert delivery.recipients[200].outcome is Outcome.FAILED
    assert outcomes(delivery).count(Outcome.ACCEPTED) == 349
    assert len(server.accepted[0].recipients) == 349


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_421_ends_the_session_and_slows_the_account(served: Served, verb: str) -> None:
    server, session = served(on={verb: [Reply("421 4.3.2 shutting down, try again in 300 seconds")]})
    delivery = send(session, "b@x", "c@x")
    assert delivery.outcome is Outcome.DEFERRED
    assert outcomes(delivery) == [Outcome.DEFERRED] * 2
    assert delivery.reply is not None
    assert delivery.reply.command == verb
    assert delivery.verdict is not None
    assert (delivery.verdict.effect, delivery.verdict.wait_seconds) == (Effect.SLOW, 300)
    assert not session.reusable
    assert server.accepted == []
    with pytest.raises(RuntimeError):
        send(session, "b@x")


def test_421_to_a_lazy_rset(served: Served) -> None:
    server, session = served(on={"RSET": Reply("421 4.3.2 bye")})
    send(session, "rcpt-550-5.1.1@x")
    delivery = send(session, "b@x")
    assert delivery.outcome is Outcome.DEFERRED
    assert not session.reusable
    assert server.accepted == []


def test_a_refused_rset_ends_the_session(served: Served) -> None:
    server, session = served(on={"RSET": Reply("502 no")})
    send(session, "rcpt-550-5.1.1@x")
    delivery = send(session, "b@x")
    assert delivery.outcome is Outcome.UNREACHED
    assert not session.reusable
    assert server.accepted == []


def test_too_many_refusals_end_the_session(served: Served) -> None:
    server, session = served()
    sent = 0
    while session.reusable:
        send(session, "rcpt-550-5.1.1@x")
        sent += 1
    assert 3 <= sent <= 10
    assert server.connections == 1


def test_a_mail_that_is_taken_makes_up_for_refusals(served: Served) -> None:
    _, session = served()
    for _ in range(4):
        for recipient in ("rcpt-550-5.1.1@x", "rcpt-550-5.1.1@x", "b@x"):
            send(session, recipient)
    assert session.reusable


def test_a_closed_session_is_used_no_more(served: Served) -> None:
    server, session = served()
    session.close()
    with pytest.raises(RuntimeError, match="over"):
        send(session, "b@x")
    assert not session.alive()
    assert server.commands.count("QUIT") == 1


def test_a_mail_too_large_is_not_even_offered(served: Served) -> None:
    server, session = served(size_bytes=100)
    delivery = send(session, "b@x", "c@x", content=b"x" * 101)
    assert delivery.outcome is Outcome.FAILED
    assert outcomes(delivery) == [Outcome.FAILED] * 2
    assert delivery.verdict is not None
    assert (delivery.verdict.rule, delivery.verdict.scope) == ("size", Scope.MAIL)
    assert delivery.reply is None
    assert session.reusable
    assert server.commands == ["EHLO client.example"]
    assert send(session, "b@x", content=b"Subject: short\r\n\r\n").outcome is Outcome.ACCEPTED


def test_no_size_no_limit_and_no_parameter(served: Served) -> None:
    server, session = served(size_bytes=None)
    assert send(session, "b@x", content=b"x\r\n" * 100_000).outcome is Outcome.ACCEPTED
    assert server.accepted[0].parameters == ""


def test_size_0_means_no_fixed_limit(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={"EHLO": Reply("250-hello\n250 SIZE 0")}, size_bytes=None)
    assert send(opened(server), "b@x").outcome is Outcome.ACCEPTED


def test_eight_bit_content_says_so(served: Served) -> None:
    server, session = served()
    letter = "Subject: x\r\n\r\nЖизнь\r\n".encode()
    assert send(session, "b@x", content=letter).outcome is Outcome.ACCEPTED
    assert server.accepted[0].parameters == f"SIZE={len(letter)} BODY=8BITMIME"
    assert server.accepted[0].content == letter


@pytest.mark.parametrize("size", [1, 4_000, 262_144, 3_000_000])
def test_contents_of_every_size_arrive_as_they_are(served: Served, size: int) -> None:
    server, session = served()
    line = b"." + b"0123456789" * 7 + b"\r\n"
    letter = (line * (size // len(line) + 1))[:size].rstrip(b"\r\n") + b"\r\n"
    assert send(session, "b@x", content=letter).outcome is Outcome.ACCEPTED
    assert server.accepted[0].content == letter


@pytest.mark.parametrize(
    "letter",
    [b".\r\n", b"..\r\n", b".a\r\n.\r\n..b\r\n", b"a\r\n.\r\nMAIL FROM:<evil@x>\r\n", b"\r\n.\r\n\r\n"],
)
def test_dots_never_end_a_letter_early(served: Served, letter: bytes) -> None:
    server, session = served()
    assert send(session, "b@x", content=letter).outcome is Outcome.ACCEPTED
    assert [each.content for each in server.accepted] == [letter]
    assert len([line for line in server.commands if line.startswith("MAIL")]) == 1


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n"])
def test_bare_line_ends_cannot_smuggle_a_second_letter(served: Served, end: bytes) -> None:
    server, session = served()
    letter = b"a" + end + b"MAIL FROM:<evil@x>\r\n"
    assert send(session, "b@x", content=letter).outcome is Outcome.ACCEPTED
    assert [each.content for each in server.accepted] == [b"a\r\n.\r\nMAIL FROM:<evil@x>\r\n"]


def test_content_is_stuffed_and_ended_by_crlf() -> None:
    assert wire_content(b"a\nb\rc\r\nd") == b"a\r\nb\r\nc\r\nd\r\n"
    assert wire_content(b"a\r\n") == b"a\r\n"
    assert stuffed(b".a\r\n.b\r\nc.\r\n") == b"..a\r\n..b\r\nc.\r\n"


@pytest.mark.parametrize(
    "address",
    [
        *("a@x>\r\nRCPT TO:<evil@x", "a b@x", "a\0@x", "<a@x>", "a@x\n"),
        *('"a"> b@x', '"a"@x> b', '"a\nb"@x', '"a" b"@x', '"a\\"@x y'),
    ],
)
def test_an_address_cannot_break_out_of_its_command(address: str) -> None:
    with pytest.raises(ValueError, match="address in the envelope"):
        Envelope(SENDER, ("b@x", address))
    with pytest.raises(ValueError, match="address in the envelope"):
        Envelope(address, ("b@x",))


@pytest.mark.parametrize("address", ['"a b"@x.example', '"<a>"@x.example', '"a\\" <b>"@x.example'])
def test_what_is_quoted_in_an_address_stays_in_it(served: Served, address: str) -> None:
    server, session = served()
    assert send(session, address).outcome is Outcome.ACCEPTED
    assert f"RCPT TO:<{address}>" in server.commands


def test_an_envelope_needs_a_recipient() -> None:
    with pytest.raises(ValueError, match="recipient"):
        Envelope(SENDER, ())


@pytest.mark.parametrize(
    ("sender", "recipients", "in_headers", "expected"),
    [
        ("a@x", ("b@x", "ящик@x", "c@x"), False, [Outcome.ACCEPTED, Outcome.FAILED, Outcome.ACCEPTED]),
        ("a@x", ("ящик@x",), False, [Outcome.FAILED]),
        ("ящик@x", ("b@x", "c@x"), False, [Outcome.FAILED] * 2),
        ("a@x", ("b@x", "ящик@x"), True, [Outcome.FAILED] * 2),
    ],
)
def test_where_smtputf8_is_not_offered_whoever_needs_it_is_refused_without_asking(
    served: Served, sender: str, recipients: tuple[str, ...], in_headers: bool, expected: list[Outcome]
) -> None:
    server, session = served()
    delivery = session.deliver(Envelope(sender, recipients, smtputf8=in_headers), LETTER, permitted)
    assert outcomes(delivery) == expected
    refused = [each.verdict for each in delivery.recipients if each.outcome is Outcome.FAILED]
    assert all(verdict is not None and verdict.rule == "smtputf8" for verdict in refused)
    assert all("does not offer SMTPUTF8" in verdict.hint for verdict in refused if verdict)
    assert [each.recipients for each in server.accepted] == ([("b@x", "c@x")] if Outcome.ACCEPTED in expected else [])
    assert not any("SMTPUTF8" in command or "ящик" in command for command in server.commands)
    assert send(session, "b@x").outcome is Outcome.ACCEPTED


@pytest.mark.parametrize(
    ("sender", "recipients", "in_headers", "needed"),
    [
        ("a@x", ("b@x", "ящик@x"), False, True),
        ("ящик@x", ("b@x",), False, True),
        ("a@x", ("b@x",), True, True),
        ("a@x", ("b@xn--80aswg",), False, False),
    ],
)
def test_smtputf8_is_asked_for_where_it_is_offered_and_needed(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted, opened: Opened, sender: str, recipients: tuple[str, ...], in_headers: bool, needed: bool
) -> None:
    server = scripted(extensions=["PIPELINING", "8BITMIME", "SMTPUTF8"])
    delivery = opened(server).deliver(Envelope(sender, recipients, smtputf8=in_headers), LETTER, permitted)
    assert delivery.outcome is Outcome.ACCEPTED
    (accepted,) = server.accepted
    assert (accepted.reverse_path, accepted.recipients) == (sender, recipients)
    assert accepted.parameters == f"SIZE={len(LETTER)}" + (" BODY=8BITMIME SMTPUTF8" if needed else "")


def test_a_domain_in_the_envelope_is_written_as_a_labels() -> None:
    with pytest.raises(ValueError, match="A-labels"):
        Envelope(SENDER, ("b@почта.example",))
    with pytest.raises(ValueError, match="A-labels"):
        Envelope("a@почта.example", ("b@x",))


def test_replies_in_single_bytes(served: Served) -> None:
    _, session = served(on=dict.fromkeys(("MAIL", "RCPT", "DATA", "."), Fragments()))
    assert send(session, "b@x", "c@x").outcome is Outcome.ACCEPTED
    assert session.reusable


def test_a_multi_line_reply_is_kept_whole(served: Served) -> None:
    _, session = served(on={".": Reply("250-2.0.0 taken\n250-2.0.0 and filed\n250 2.0.0 as\x07 42")})
    delivery = send(session, "b@x")
    assert str(delivery.reply) == "250 2.0.0 taken and filed as  42"


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA", "."])
def test_an_answer_that_nobody_asked_for_ends_the_session(served: Served, verb: str) -> None:
    server, session = served(on={verb: Extra("250 2.0.0 and another thing")})
    delivery = send(session, "b@x")
    assert not session.reusable
    assert (delivery.outcome is Outcome.ACCEPTED) is (len(server.accepted) == 1)


def test_steps_of_a_delivery(scripted: Scripted, patient: Client) -> None:
    steps: list[Step] = []
    session = Session.open(account(scripted()), patient, on_step=steps.append)
    del steps[:]
    send(session, "b@x")
    session.close()
    assert [(step.name, step.ok) for step in steps] == [
        ("mail_from", True),
        ("rcpt_to", True),
        ("data", True),
        ("message", True),
    ]
    assert steps[-1].detail == "250 2.0.0 taken"


def test_permit_is_asked_once_when_all_but_the_dot_is_out(served: Served) -> None:
    server, session = served()
    asked = threading.Event()
    seen: list[int] = []

    def permit() -> bool:
        asked.set()
        seen.append(len(server.accepted))
        return True

    delivery = session.deliver(Envelope(SENDER, ("b@x",)), LETTER, permit)
    assert asked.is_set()
    assert seen == [0]
    assert delivery.permitted


def test_a_refused_permit_delivers_nothing(served: Served) -> None:
    server, session = served()
    delivery = session.deliver(Envelope(SENDER, ("b@x", "rcpt-550-5.1.1@x")), LETTER, lambda: False)
    assert delivery.outcome is Outcome.UNREACHED
    assert outcomes(delivery) == [Outcome.UNREACHED, Outcome.FAILED]
    assert not delivery.permitted
    assert delivery.trouble
    assert not session.reusable
    server.wait_connections_closed()
    assert server.accepted == []


def test_a_permit_that_raises_delivers_nothing(served: Served) -> None:
    server, session = served()

    def permit() -> bool:
        raise LookupError("the claim is lost")

    with pytest.raises(LookupError, match="the claim is lost"):
        session.deliver(Envelope(SENDER, ("b@x",)), LETTER, permit)
    assert not session.reusable
    server.wait_connections_closed()
    assert server.accepted == []


def test_permit_is_not_asked_where_nobody_would_get_the_mail(served: Served) -> None:
    _, session = served()

    def permit() -> bool:
        raise AssertionError("asked")

    session.deliver(Envelope(SENDER, ("rcpt-550-5.1.1@x",)), LETTER, permit)


def test_close_says_quit_and_may_be_called_twice(served: Served) -> None:
    server, session = served()
    session.close()
    session.close()
    assert not session.alive()
    server.wait_connections_closed()
    assert server.commands[-1] == "QUIT"
