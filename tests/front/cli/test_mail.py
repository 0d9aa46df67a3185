"""`postroom mail …` and `postroom explain`: what became of each mail, in the shapes of design §10."""

from datetime import UTC, datetime
from typing import Any

import pytest

from postroom.producer import names
from postroom.producer.identifiers import uuid7
from postroom.worker.drain import drain
from servers.scripted_smtp import Lost, ScriptedSMTP

SHAPE = {
    *("id", "state", "reason", "from", "to", "subject", "owner", "account_id", "template", "priority", "tags"),
    *("created_at", "due_at", "ended_at", "erased_at", "copies_possible", "producer", "expires_at"),
}
NOBODY = str(uuid7())


def _listed(house: Any, *words: str) -> list[str]:
    return [mail["id"] for mail in house.run("mail", "list", *words, "--json").json]


def test_mails_are_listed_newest_first_in_their_shape(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    template = {"name": "order", "locale": "ru", "version": "3", "meta": {"site": "s1"}}
    first = house.take(template=template, tags=["vip"], owner=None, priority="high")
    second = house.take(subject="Заказ 8")
    mails = house.run("mail", "list", "--json").json
    assert [mail["id"] for mail in mails] == [str(second), str(first)]
    mail = mails[1]
    assert mail.keys() == SHAPE
    assert mail["template"] == template
    assert (mail["state"], mail["reason"], mail["account_id"]) == ("queued", None, str(account.id))
    assert (mail["from"], mail["to"], mail["subject"]) == ("shop@shop.example", ["anna@client.example"], "Order 7")
    assert (mail["priority"], mail["tags"], mail["copies_possible"]) == ("high", ["vip"], 1)
    assert mail["created_at"].endswith("Z")
    assert mails[0]["subject"] == "Заказ 8"


def test_every_filter_narrows(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    plain = str(house.take())
    other = str(
        house.take(
            from_="Other@Other.example",
            to=["bob@client.example", "eve@client.example"],
            owner="crm-7",
            template={"name": "digest"},
        )
    )
    house.change("mails", house.take(), created_at=datetime(2019, 5, 1, tzinfo=UTC))
    for words in (
        ["--state", "held"],
        ["--reason", "no_account"],
        ["--from", "other@OTHER.example"],
        ["--to", "EVE@client.example"],
        ["--owner", "crm-7"],
        ["--template", "digest"],
        ["--state", "held", "--owner", "crm-7"],
    ):
        assert _listed(house, *words) == [other], words
    assert _listed(house, "--account", "shop@shop.example", "--since", "1h") == [plain]
    assert _listed(house, "--account", str(account.id), "--since", "2026-01-01T00:00Z") == [plain]
    assert _listed(house, "--account", NOBODY) == []
    assert len(_listed(house, "--until", "1d")) == len(_listed(house, "--until", "2020-01-01")) == 1
    assert _listed(house, "--since", "1h") == [other, plain]
    assert _listed(house, "--limit", "1") == [other]


@pytest.mark.parametrize(
    "words",
    [
        ["--limit", "0"],
        ["--limit", "10001"],
        ["--state", "lost"],
        ["--reason", "mood"],
        ["--since", "yesterday"],
    ],
)
def test_what_cannot_be_filtered_by_is_a_usage_error(house: Any, words: list[str]) -> None:
    result = house.run("mail", "list", *words, "--json")
    assert (result.code, result.out) == (2, "")
    assert words[0] in result.err


def test_show_has_the_recipients_and_the_attempts(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take(to=["anna@client.example", "rcpt-550-5.1.1@client.example"], bcc=["boss@shop.example"])
    drain(house.process, account.id)
    mail = house.mail(mail_id)
    assert mail.keys() == SHAPE | {"recipients", "attempts_log"}
    assert mail["state"] == "sent"
    assert [(each["address"], each["kind"], each["state"]) for each in mail["recipients"]] == [
        ("anna@client.example", "to", "accepted"),
        ("rcpt-550-5.1.1@client.example", "to", "refused"),
        ("boss@shop.example", "bcc", "accepted"),
    ]
    assert mail["recipients"][1]["enhanced_status_code"] == "5.1.1"
    [attempt] = mail["attempts_log"]
    assert attempt.keys() >= {"started_at", "account_id", "outcome", "scope", "reply", "duration_seconds"}
    assert (attempt["account_id"], attempt["outcome"]) == (str(account.id), "accepted")
    text = house.run("mail", "show", str(mail_id)).out
    assert "boss@shop.example" in text
    assert "Thank you" not in text


def test_cancel_takes_a_mail_back_once(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    mail_id = str(house.take())
    assert house.run("mail", "cancel", mail_id, "--json").json["state"] == "cancelled"
    again = house.run("mail", "cancel", mail_id)
    assert again.code == 1
    assert "is cancelled" in again.err


def test_resend_queues_a_failed_mail_and_nudges(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = str(house.take(to="rcpt-550-5.1.1-once@client.example"))
    drain(house.process, account.id)
    assert house.mail(mail_id)["state"] == "failed"
    house.redis.delete(names.QUEUE_DRAIN)
    mail = house.run("mail", "resend", mail_id, "--json").json
    assert (mail["state"], mail["account_id"]) == ("queued", str(account.id))
    assert house.nudged(names.QUEUE_DRAIN) == [(names.TASK_DRAIN, [str(account.id)])]
    drain(house.process, account.id)
    assert house.mail(mail_id)["state"] == "sent"
    assert house.run("mail", "resend", mail_id).code == 1


@pytest.mark.parametrize(
    ("word", "state", "copies"), [("delivered", "sent", 1), ("drop", "cancelled", 1), ("resend", "queued", 2)]
)
def test_resolve_says_what_became_of_an_uncertain_mail(house: Any, word: str, state: str, copies: int) -> None:
    with ScriptedSMTP(on={".": Lost()}) as server:
        account = house.add_account(server)
        mail_id = str(house.take(on_uncertain="hold"))
        drain(house.process, account.id)
    assert house.mail(mail_id)["reason"] == "uncertain"
    mail = house.run("mail", "resolve", mail_id, word, "--json").json
    assert (mail["state"], mail["copies_possible"]) == (state, copies)
    assert house.run("mail", "resolve", mail_id, word).code == 1


def test_resolve_takes_three_words(house: Any) -> None:
    assert house.run("mail", "resolve", NOBODY, "forget").code == 2


@pytest.mark.parametrize("command", ["show", "cancel", "resend", "explain", "resolve"])
def test_an_id_that_is_none_and_one_that_is_nobodys(house: Any, command: str) -> None:
    more = ["drop"] if command == "resolve" else []
    assert house.run("mail", command, "42", *more).code == 2
    result = house.run("mail", command, NOBODY, *more)
    assert (result.code, result.out) == (1, "")
    assert NOBODY in result.err


def test_a_strangers_control_characters_reach_no_terminal(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    mail_id = str(house.take(subject="a\x1b]0;owned\x07b\x9bc [red]d[/red]"))
    for words in (
        ["mail", "list"],
        ["mail", "show", mail_id],
        ["mail", "explain", mail_id],
        ["mail", "list", "--json"],
    ):
        out = house.run(*words).out
        assert not {"\x1b", "\x07", "\x9b"} & set(out)
        assert "[red]d[/red]" in out
    assert house.mail(mail_id)["subject"] == "a\x1b]0;owned\x07b\x9bc [red]d[/red]"


# -- explain


def test_explain_gives_a_verdict_on_every_account(house: Any, smtp: ScriptedSMTP) -> None:
    chosen = house.add_account(smtp, priority=1)
    spare = house.add_account(smtp, priority=2, login="spare")
    other = house.add_account(smtp, "other@shop.example")
    asleep = house.add_account(smtp, active=False, login="asleep")
    owned = house.add_account(smtp, owner="crm-7", login="owned")
    result = house.run("explain", "--from", "Shop@shop.example", "--json").json
    assert result.keys() >= {"chosen", "verdicts"}
    assert result["chosen"] == str(chosen.id)
    assert {each["account_id"]: each["ok"] for each in result["verdicts"]} == {
        str(chosen.id): True,
        str(spare.id): True,
        str(other.id): False,
        str(asleep.id): False,
        str(owned.id): False,
    }
    for verdict in result["verdicts"]:
        assert verdict.keys() == {"account_id", "address", "ok", "why"}
        assert verdict["why"]
    own = house.run("explain", "--from", "shop@shop.example", "--owner", "crm-7", "--json").json
    assert own["chosen"] == str(owned.id)


def test_explain_tells_why_a_mail_is_held(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    mail_id = str(house.take(owner="crm-9"))
    result = house.run("mail", "explain", mail_id, "--json").json
    assert (result["chosen"], result["held"]) == (None, "sender_not_confirmed")
    story = house.run("mail", "explain", mail_id).out
    assert "held (sender_not_confirmed)" in story
    assert "crm-9" in story


def test_explain_knows_who_refused_this_mails_from(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, "mail-553-5.7.1@shop.example")
    mail_id = str(house.take(from_="mail-553-5.7.1@shop.example"))
    drain(house.process, account.id)
    assert house.mail(mail_id)["reason"] == "sender_refused"
    [verdict] = house.run("mail", "explain", mail_id, "--json").json["verdicts"]
    assert verdict["ok"] is False
    assert "refused" in verdict["why"]


def test_explain_wants_an_address(house: Any) -> None:
    assert house.run("explain", "--from", "the shop").code == 2


def test_explain_without_accounts_says_what_to_do(house: Any) -> None:
    result = house.run("explain", "--from", "shop@shop.example")
    assert result.code == 0
    assert "account add" in result.out + result.err
