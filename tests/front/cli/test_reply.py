"""`postroom reply`: what a server's reply means, by which rule, in words and for programs."""

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("words", "outcome", "scope", "effect"),
    [
        (["550", "5.1.1", "User", "unknown"], "failed", "recipient", "none"),
        (["535 5.7.8 Username and Password not accepted"], "deferred", "account", "suspend"),
        (["451 4.3.0 Try again later"], "deferred", "mail", "none"),
        (["250", "2.0.0", "OK"], "accepted", "mail", "none"),
        (["550-5.1.1 No such user\n550 5.1.1 --really"], "failed", "recipient", "none"),
        (["Diagnostic-Code: smtp; 550 5.4.5 Daily user sending limit exceeded"], "deferred", "account", "quota"),
        (["554 5.7.1 [2] Message rejected under suspicion of SPAM; https://ya.cc/x"], "deferred", "account", "block"),
        (["421 4.7.0 try later"], "deferred", "account", "slow"),
        (["553 5.7.1 Sender address rejected: not owned by auth user."], "failed", "sender", "none"),
        (["550 Ящик не найден (in reply to RCPT TO command)"], "failed", "recipient", "none"),
        (["550 Ящик не найден (in reply to end of DATA command)"], "failed", "mail", "none"),
    ],
)
def test_a_reply_has_its_meaning(house: Any, words: list[str], outcome: str, scope: str, effect: str) -> None:
    meaning = house.run("reply", *words, "--json").json
    assert meaning.keys() == {"outcome", "scope", "effect", "rule"}
    assert (meaning["outcome"], meaning["scope"], meaning["effect"]) == (outcome, scope, effect)
    shown = house.run("reply", *words).out
    assert all(word in shown for word in (meaning["rule"], "means", "source"))
    assert house.run("reply", "--json", stdin=" ".join(words)).json == meaning


def test_people_are_told_the_rule_its_source_and_what_to_do(house: Any) -> None:
    shown = house.run("reply", "535 5.7.0 NEOBHODIM parol prilozheniya / Application password is REQUIRED").out
    for word in ("app_password_needed", "help.mail.ru", "2026-11-24", "application password", "its mail is held"):
        assert word in shown
    assert "at once, in a next transaction" in house.run("reply", "452 4.5.3 too many recipients").out
    assert "300 s" in house.run("reply", "451 4.7.1 Greylisted, try again in 300 seconds").out
    assert "no rule fits" in house.run("reply", "554 5.9.9 Что-то не так").out


def test_what_it_answered_can_be_said(house: Any) -> None:
    assert house.run("reply", "550 no", "--command", "rcpt", "--json").json["scope"] == "recipient"
    assert house.run("reply", "550 no", "--command", "AUTH", "--json").json["effect"] == "suspend"
    assert house.run("reply", "550 no", "--json").json["scope"] == "mail"
    assert house.run("reply", "550 no", "--command", "HELP").code == 2


def test_a_bounce_is_read_from_stdin(house: Any) -> None:
    bounce = """Reporting-MTA: dns; mail.example
Arrival-Date: Thu, 24 Dec 2015 12:30:07 +0100 (CET)

Final-Recipient: rfc822; anna@client.example
Status: 5.7.1
Remote-MTA: dns; mx.client.example
Diagnostic-Code: smtp; 554 5.7.1 Service unavailable; Client host
    [192.0.2.62] blocked using zen.spamhaus.org
"""
    meaning = house.run("reply", "--json", stdin=bounce).json
    assert meaning == {"outcome": "deferred", "scope": "account", "effect": "slow", "rule": "address_refused"}
    assert "zen.spamhaus.org" in house.run("reply", stdin=bounce).out


def test_what_is_no_reply_is_a_usage_error(house: Any) -> None:
    result = house.run("reply", "hello", "--json")
    assert (result.code, result.out) == (2, "")
    assert house.run("reply", stdin="").code == 2
