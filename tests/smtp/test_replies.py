"""Replies and what they mean: design §8's table, the providers' own ways, waits, and replies pasted by people."""

import contextlib
import re
import time
import timeit
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.config.states import Effect, Outcome, Scope
from postroom.worker.smtp import replies
from postroom.worker.smtp.pasted import parse_pasted
from postroom.worker.smtp.replies import Reply, Verdict, classify, named_wait, reply_of


def verdict(text: str, command: str = "") -> Verdict:
    pasted = parse_pasted(text)
    return classify(Reply(pasted.code, pasted.enhanced_status_code, pasted.text, command))


@pytest.mark.parametrize(
    ("text", "command", "outcome", "scope", "effect"),
    [
        # design §8, line by line
        ("250 2.0.0 ok", "", "accepted", "mail", "none"),
        ("354 go on", "DATA", "accepted", "mail", "none"),
        ("451 4.3.0 later", ".", "deferred", "mail", "none"),
        ("450 4.2.0 later", "RCPT", "deferred", "recipient", "none"),
        ("554 5.0.0 no", ".", "failed", "mail", "none"),
        ("550 no", "RCPT", "failed", "recipient", "none"),
        ("535 5.7.8 bad credentials", "", "deferred", "account", "suspend"),
        ("534 5.7.9 too weak", "", "deferred", "account", "suspend"),
        ("530 5.7.0 Authentication required", "", "deferred", "account", "suspend"),
        ("538 5.7.11 Encryption required", "", "deferred", "account", "suspend"),
        ("550 5.7.30 Basic authentication is not supported", "", "deferred", "account", "suspend"),
        ("421 4.7.0 try later", "", "deferred", "account", "slow"),
        ("421 too many connections", "RCPT", "deferred", "account", "slow"),
        ("454 4.7.0 Temporary authentication failure", "", "deferred", "account", "slow"),
        ("432 4.3.2 Concurrent connections limit exceeded", "", "deferred", "account", "slow"),
        ("550 5.4.5 Daily user sending limit exceeded", "", "deferred", "account", "quota"),
        ("550 5.1.90 daily limit for message recipients", "", "deferred", "account", "quota"),
        ("550 5.7.233 tenant exceeded its daily limit", "", "deferred", "account", "quota"),
        ("550 5.1.8 Access denied, bad outbound sender AS(42004)", "", "deferred", "account", "block"),
        ("550 5.7.501 Access denied, spam abuse detected", "", "deferred", "account", "block"),
        ("550 5.7.502 Access denied, banned sender", "", "deferred", "account", "block"),
        ("550 5.7.503 Access denied, banned sender", "", "deferred", "account", "block"),
        ("550 5.7.705 Access denied, tenant has exceeded threshold", "", "deferred", "account", "block"),
        ("550 5.7.708 Access denied, traffic not accepted from this IP", "", "deferred", "account", "block"),
        ("554 5.7.1 [2] Message rejected under suspicion of SPAM; x", "", "deferred", "account", "block"),
        ("553 5.7.1 <a@x>: Sender address rejected: not owned by user b@x", "", "failed", "sender", "none"),
        ("550 5.7.60 SMTP; Client does not have permissions to send as this sender", "", "failed", "sender", "none"),
        ("554 5.2.252 SendAsDenied; a@x not allowed to send as b@x", "", "failed", "sender", "none"),
        ("501 5.1.7 Invalid address", "", "failed", "sender", "none"),
        ("550 5.1.1 User unknown", "", "failed", "recipient", "none"),
        ("553 5.1.2 We weren't able to find the recipient domain", "", "failed", "recipient", "none"),
        ("553 5.1.3 not a valid RFC-5321 address", "", "failed", "recipient", "none"),
        ("550 5.2.1 The email account that you tried to reach is disabled", "", "failed", "recipient", "none"),
        ("552 5.2.2 over quota", "", "deferred", "recipient", "none"),
        ("452 4.5.3 too many recipients", "", "deferred", "recipient", "none"),
        ("552 5.3.4 Message size exceeds fixed limit", "", "failed", "mail", "none"),
        # providers and servers
        ("535 5.7.139 SmtpClientAuthentication is disabled", "AUTH", "deferred", "account", "suspend"),
        ("530 5.7.57 Client not authenticated to send mail", "MAIL", "deferred", "account", "suspend"),
        ("530 5.7.0 Must issue a STARTTLS command first", "MAIL", "deferred", "account", "suspend"),
        ("454 4.7.0 Too many login attempts, please try again later", "AUTH", "deferred", "account", "slow"),
        ("504 5.7.4 Unrecognized authentication type", "AUTH", "deferred", "account", "suspend"),
        ("554 5.2.0 x:SubmissionQuotaExceededException; Failed", ".", "deferred", "account", "quota"),
        ("550 5.2.2 Submission quota exceeded", ".", "deferred", "account", "quota"),
        ("554 5.2.2 mailbox full; STOREDRV.Submission.Exception:x", ".", "deferred", "account", "quota"),
        ("554 5.2.0 x:SendAsDeniedException.MapiExceptionSendAsDenied", ".", "failed", "sender", "none"),
        ("550 5.7.1 Client does not have permissions to send as this sender", "MAIL", "failed", "sender", "none"),
        ("454 Throttling failure: Maximum sending rate exceeded.", ".", "deferred", "account", "slow"),
        ("454 Throttling failure: Daily message quota exceeded.", ".", "deferred", "account", "quota"),
        ("550 invalid mailbox. message sending for this account is disabled", "MAIL", "deferred", "account", "block"),
        ("550 not local sender over smtp", "MAIL", "failed", "sender", "none"),
        ("501 mail from address must be same as authorization user", "MAIL", "failed", "sender", "none"),
        ("550 spam message rejected. Please visit http://help.mail.ru", ".", "failed", "mail", "none"),
        ("550 5.1.8 <a@x>: Sender address rejected: Domain not found", "RCPT", "failed", "sender", "none"),
        ("554 5.7.1 <b@x>: Relay access denied", "RCPT", "failed", "recipient", "none"),
        ("550 5.7.26 This mail has been blocked because the sender is unauthenticated", ".", "failed", "mail", "none"),
        ("550 No such user here", "RCPT", "failed", "recipient", "none"),
        ("550 Unrouteable address", "RCPT", "failed", "recipient", "none"),
        ("550 5.5.0 Requested action not taken: mailbox unavailable", ".", "failed", "recipient", "none"),
        ("556 5.1.10 Recipient address has null MX", "RCPT", "failed", "recipient", "none"),
        ("552 too many recipients", "RCPT", "deferred", "recipient", "none"),
        ("450 4.7.1 Error: too much mail from 192.0.2.1", "MAIL", "deferred", "account", "slow"),
        ("554 No SMTP service here", "greeting", "deferred", "account", "slow"),
        ("553 sorry", "MAIL", "failed", "sender", "none"),
        ("553 sorry", "RCPT", "failed", "recipient", "none"),
    ],
)  # fmt: skip
def test_what_a_reply_means(text: str, command: str, outcome: str, scope: str, effect: str) -> None:
    found = verdict(text, command)
    assert (found.outcome, found.scope, found.effect) == (Outcome(outcome), Scope(scope), Effect(effect)), found.rule


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("try again in 300 seconds", 300),
        ("Too many messages. Try again in 92 seconds.", 92),
        ("Greylisted, please retry in 5 minutes", 300),
        ("Greylisted for 5 minutes", 300),
        ("greylisting in action, please come back in 00:04:59", 299),
        ("please wait 1 hour", 3600),
        ("Recipient deferred, wait 30s", 30),
        ("try again in 99999 hours", 86_400),
        ("try again later", None),
        ("try again later, limit is 100 per 60 seconds", None),
        ("limit of 30 messages per minute", None),
        ("see http://example.org/wait?id=5", None),
        ("", None),
    ],
)
def test_a_wait_named_in_the_reply_is_kept_to(text: str, seconds: float | None) -> None:
    assert named_wait(text) == seconds
    assert classify(Reply(451, None, text, "RCPT")).wait_seconds == seconds


def test_a_failure_has_no_wait() -> None:
    assert classify(Reply(554, "5.6.0", "try again in 300 seconds", ".")).wait_seconds is None


def test_a_5yz_that_says_try_again_later_loses_nothing() -> None:
    found = classify(Reply(550, None, "Failure sending mail. Try again later, in 300 seconds", "RCPT"))
    assert (found.outcome, found.wait_seconds) == (Outcome.DEFERRED, 300)


@pytest.mark.parametrize(
    ("pasted", "code", "enhanced", "text"),
    [
        ("550 5.1.1 User unknown", 550, "5.1.1", "User unknown"),
        ("550-5.1.1 No such\n550 5.1.1 user here", 550, "5.1.1", "No such user here"),
        ("550-5.1.1 No such\\r\\n550 5.1.1 user here", 550, "5.1.1", "No such user here"),
        ("550-5.1.1 No such 550-5.1.1 user 550 5.1.1 here", 550, "5.1.1", "No such user here"),
        ("  421  ", 421, None, ""),
        ("250", 250, None, ""),
        ("550 User unknown", 550, None, "User unknown"),
        ("550 5.7.705 Access denied", 550, "5.7.705", "Access denied"),
        ("5.7.705 Access denied", 550, "5.7.705", "Access denied"),
        ("4.2.2 full", 450, "4.2.2", "full"),
        ("host mx.example[192.0.2.1] said: 550 5.1.1 nope (in reply)", 550, "5.1.1", "nope (in reply)"),
        ("Remote Server returned '554 5.2.252 SendAsDenied'", 554, "5.2.252", "SendAsDenied'"),
        ("smtplib.SMTPDataError: (550, b'5.7.1 no')", 550, "5.7.1", "no')"),
        ("Diagnostic-Code: smtp; 550 5.1.1 no", 550, "5.1.1", "no"),
        ("diagnostic-code:smtp;550-5.1.1 no\n    550 5.1.1 such user\nRemote-MTA: x", 550, "5.1.1", "no such user"),
        ("Date: 2 Dec 2019 12:15:24\nStatus: 5.0.0\nDiagnostic-Code: X-Postfix; host b[::1] said:\n 552 5.2.2 Full",
         552, "5.2.2", "Full"),
        ("Status: 5.1.1\nDiagnostic-Code: X-Notes; not listed", 550, "5.1.1", "Diagnostic-Code: X-Notes; not listed"),
        ("ssl 256 -> client: 535 5.7.8 no", 535, "5.7.8", "no"),
        ("TLSv1.2 with cipher (256/256 bits), port 465 said: 454 4.7.1 no", 454, "4.7.1", "no"),
        ("550 5.7.1 no, host b said: 450 4.2.0 later", 550, "5.7.1", "no, host b said: 450 4.2.0 later"),
        ("550-a\n550 b, 550 5.1.1 c", 550, None, "a b, 550 5.1.1 c"),
        ("452 #4.5.3 Too many recipients", 452, "4.5.3", "Too many recipients"),
        ("550 5.1.1 Нет такого пользователя", 550, "5.1.1", "Нет такого пользователя"),
        ("550-5.7.1 Письмо\r\n550 5.7.1 отклонено", 550, "5.7.1", "Письмо отклонено"),
    ],
)  # fmt: skip
def test_replies_as_people_paste_them(pasted: str, code: int, enhanced: str | None, text: str) -> None:
    assert parse_pasted(pasted) == Reply(code, enhanced, text, "")


@pytest.mark.parametrize(
    ("pasted", "command", "code"),
    [
        ("relay=mx.example[192.0.2.1]:465, said: 550 5.7.1 no (in reply to MAIL FROM command)", "MAIL", 550),
        ("said: 554 5.7.1 no (in reply to end of DATA command)", ".", 554),
        ("2018-12-26 X=TLS1.2:256 SMTP error from remote mail server after RCPT TO:<a@b>: host b [::1]: 550 no",
         "RCPT", 550),
        ("SMTP error from remote mail server after pipelined MAIL FROM:<a@b> SIZE=1726:\n 550 5.7.1 no", "MAIL", 550),
        ("remote mail server after initial connection: host mx.example [192.0.2.1]: 554 no", "greeting", 554),
        ("error from remote server for TEXT command, host: b.example (192.0.2.1) reason: 552 5.2.2 full", ".", 552),
        ("response: '535 5.7.8 no', command: 'AUTH PLAIN'", "AUTH", 535),
        ("550 no", "", 550),
    ],
)  # fmt: skip
def test_a_log_tells_what_the_reply_answered(pasted: str, command: str, code: int) -> None:
    found = parse_pasted(pasted)
    assert (found.command, found.code) == (command, code)


@pytest.mark.parametrize("pasted", ["", "hello", "1234 5678", "192.0.2.250", "5.7", "12:34:56"])
def test_text_without_a_reply_is_refused(pasted: str) -> None:
    with pytest.raises(ValueError, match="no reply code"):
        parse_pasted(pasted)


@given(st.text(max_size=300))
def test_no_text_breaks_the_parser_or_the_rules(text: str) -> None:
    try:
        reply = parse_pasted(text)
    except ValueError:
        return
    assert 200 <= reply.code < 600
    assert classify(reply).rule


@given(st.integers(200, 599), st.lists(st.binary(max_size=80), min_size=1, max_size=5))
def test_no_bytes_break_the_reply(code: int, lines: list[bytes]) -> None:
    reply = reply_of(code, lines, "RCPT")
    assert reply.text.isprintable() or not any(ord(character) < 32 for character in reply.text)
    assert (classify(reply).outcome is Outcome.ACCEPTED) is (code < 400)


def test_an_enhanced_code_of_another_class_is_text() -> None:
    reply = reply_of(550, [b"4.2.2 odd"], "RCPT")
    assert (reply.enhanced_status_code, reply.text) == (None, "4.2.2 odd")


def test_a_reply_reads_as_the_server_said_it() -> None:
    assert str(reply_of(550, [b"5.1.1 no such", b"5.1.1 user"], "RCPT")) == "550 5.1.1 no such user"
    assert str(reply_of(250, [b""], ".")) == "250"


def rule_table() -> list[dict[str, object]]:
    return list(tomllib.loads(Path(replies.__file__).with_name("replies.toml").read_text())["rule"])


@pytest.mark.parametrize("rule", rule_table(), ids=lambda rule: str(rule["name"]))
def test_every_rule_has_a_source_and_means_something(rule: dict[str, object]) -> None:
    assert rule["source"]
    assert rule["date"]
    assert rule.keys() & {"codes", "enhanced", "text", "commands"}
    known = {"name", "class", "codes", "enhanced", "commands", "text", "outcome", "scope", "effect", "wait_seconds"}
    assert rule.keys() <= known | {"hint", "provider", "source", "date"}
    if rule["scope"] == "account":
        assert rule["outcome"] == "deferred"
        assert rule["effect"] != "none"
    else:
        assert rule["effect"] == "none"


@pytest.mark.parametrize(
    ("text", "command", "outcome", "scope"),
    [
        ("Ящик переполнен", "RCPT", Outcome.FAILED, Scope.RECIPIENT),
        ("Письмо не принято", ".", Outcome.FAILED, Scope.MAIL),
        ("メールボックスが見つかりません", "RCPT", Outcome.FAILED, Scope.RECIPIENT),
        ("\N{REPLACEMENT CHARACTER}" * 40, "", Outcome.FAILED, Scope.MAIL),
    ],
)
def test_words_that_no_rule_knows_go_by_class(text: str, command: str, outcome: Outcome, scope: Scope) -> None:
    found = classify(reply_of(550, [text.encode()], command))
    assert (found.outcome, found.scope, found.rule) == (outcome, scope, "class_5")
    assert classify(reply_of(450, [text.encode()], command)).rule == "class_4"
    assert classify(reply_of(550, [b"5.1.1 " + text.encode()], command)).rule == "no_such_recipient"
    assert classify(reply_of(535, [text.encode("cp1251", "replace")], "AUTH")).effect is Effect.SUSPEND


@pytest.mark.parametrize("rule", rule_table(), ids=lambda rule: str(rule["name"]))
def test_no_pattern_repeats_without_a_bound(rule: dict[str, object]) -> None:
    assert not re.search(r"(?<!\\)[*+]|,\}", str(rule.get("text", "")))


def nasty_texts() -> list[str]:
    """Half a megabyte each: what makes patterns start again and again."""
    words = " ".join(str(rule.get("text", "")) for rule in rule_table())
    starts = (
        *("a", " ", "\t\n", "550 ", "550-5.1.1 ", "5.1.1 ", "try again 9 ", "retry", "greylist "),
        *("recipient ", "client host ", "relaying to ", "mailbox ", "said: ", "exceeded ", words),
        *("Diagnostic-Code: smtp;\n ", "remote mail server after "),
    )
    return [(start * (500_000 // len(start) + 1))[:500_000] for start in starts]


@pytest.mark.parametrize("text", nasty_texts(), ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("code", [450, 550])
def test_half_a_megabyte_of_malice_costs_little(text: str, code: int) -> None:
    began = time.process_time()
    classify(reply_of(code, [text.encode()], "RCPT"))
    classify(reply_of(code, text.encode().split(b"\n"), ""))
    classify(parse_pasted(f"{code} {text}"))
    with contextlib.suppress(ValueError):
        parse_pasted(text)
    assert time.process_time() - began < 2


def test_rule_names_are_unique() -> None:
    names = [rule["name"] for rule in rule_table()]
    assert len(names) == len(set(names))


def test_classifying_a_250_is_cheap() -> None:
    reply = Reply(250, "2.0.0", "ok", ".")
    classify(reply)
    assert min(timeit.repeat(lambda: classify(reply), number=1000, repeat=5)) / 1000 < 20e-6
