"""`postroom send`: handed over as by any producer, and followed."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from postroom.config.vault import Ring
from postroom.producer import names
from servers.databases import on_sqlite
from servers.scripted_smtp import ScriptedSMTP

FROM_TO = ("--from", "Shop <shop@shop.example>", "--to", "anna@client.example")


def _job(house: Any) -> dict[str, Any]:
    """The one job in the inbox, opened."""
    [(mail_id, box)] = house.redis.hgetall(names.INBOX).items()
    ring = Ring.load(house.settings.ring_file)
    job: dict[str, Any] = json.loads(ring.open(box, names.inbox_identity(UUID(mail_id.decode()))))
    return job


def test_without_a_worker_it_lies_in_the_inbox(house: Any) -> None:
    result = house.run("send", *FROM_TO, "--subject", "Order 7", "--text", "Thank you", "--json")
    assert result.code == 0, result.err
    assert result.json.keys() == {"id", "state"}
    assert result.json["state"] == "inbox"
    job = _job(house)
    assert (job["id"], job["producer"]) == (result.json["id"], "cli")


def test_everything_that_can_be_given_arrives_in_the_job(house: Any, tmp_path: Path) -> None:
    file = tmp_path / "счёт.pdf"
    file.write_bytes(b"%PDF")
    words = [
        *FROM_TO,
        *("--to", "Bob <bob@client.example>", "--cc", "cc@client.example", "--bcc", "bcc@client.example"),
        *("--reply-to", "help@shop.example", "--subject", "Заказ", "--text", "текст", "--html", "<b>x</b>"),
        *("--owner", "crm-7", "--key", "order-7", "--producer", "shop"),
        *("--template", "order", "--locale", "ru", "--meta", "site=s1", "--meta", "event=PAID"),
        *("--priority", "high", "--tag", "vip", "--header", "X-Order: 7", "--attach", str(file)),
    ]
    result = house.run("send", *words, "--json")
    assert result.code == 0, result.err
    job = _job(house)
    assert job["from"] == {"address": "shop@shop.example", "name": "Shop"}
    assert [to["address"] for to in job["to"]] == ["anna@client.example", "bob@client.example"]
    assert [job[name][0]["address"] for name in ("cc", "bcc", "reply_to")] == [
        *("cc@client.example", "bcc@client.example", "help@shop.example")
    ]
    assert (job["subject"], job["text"], job["html"]) == ("Заказ", "текст", "<b>x</b>")
    assert (job["owner"], job["key"], job["producer"]) == ("crm-7", "order-7", "shop")
    assert job["template"] == {"name": "order", "locale": "ru", "meta": {"site": "s1", "event": "PAID"}}
    assert (job["priority"], job["tags"], job["headers"]) == ("high", ["vip"], {"X-Order": "7"})
    [attachment] = job["attachments"]
    assert (attachment["filename"], base64.b64decode(attachment["content"])) == ("счёт.pdf", b"%PDF")
    assert attachment["content_type"] == "application/pdf"


def test_a_template_is_filled_with_context(house: Any) -> None:
    words = ["--template", "order", "--context", "name=Анна", "--context", '{"items": [1, 2]}']
    assert house.run("send", "--to", "anna@client.example", *words, "--json").code == 0
    job = _job(house)
    assert job["context"] == {"name": "Анна", "items": [1, 2]}
    assert "text" not in job


def test_the_text_may_come_from_stdin_or_a_file(house: Any, tmp_path: Path) -> None:
    assert house.run("send", *FROM_TO, "--subject", "x", stdin="из трубы\n").code == 0
    assert _job(house)["text"] == "из трубы\n"
    house.redis.flushall()
    file = tmp_path / "text"
    file.write_text("из файла")
    assert (
        house.run("send", *FROM_TO, "--subject", "x", "--text-file", str(file), "--html-file", "-", stdin="<i>").code
        == 0
    )
    job = _job(house)
    assert (job["text"], job["html"]) == ("из файла", "<i>")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--to", "a@b.example", "--to", "nonsense"], "--to"),
        (["--to", "a@b.example", "--from", "nonsense"], "--from"),
        (["--to", "a@b.example", "--subject", "a\nb"], "--subject"),
        (["--to", "a@b.example", "--header", "From: x"], "--header"),
        (["--to", "a@b.example", "--header", "no colon"], "--header"),
        (["--to", "a@b.example", "--meta", "a=b"], "--meta"),
        (["--to", "a@b.example", "--owner", "a b"], "--owner"),
        (["--to", "a@b.example", "--producer", "a b"], "--producer"),
        (["--to", "a@b.example", "--attach", "nowhere"], "--attach"),
        (["--to", "a@b.example", "--text-file", "nowhere"], "--text-file"),
        (["--to", "a@b.example", "--template", "x", "--context", "{"], "--context"),
        (["--to", "a@b.example", "--priority", "urgent"], "--priority"),
        ([], "--to"),
    ],
)
def test_what_is_wrong_is_named_by_its_option_and_nothing_is_handed_over(
    house: Any, words: list[str], named: str
) -> None:
    usual = [] if "--text-file" in words else ["--text", "x"]
    usual += [] if "--subject" in words else ["--subject", "x"]
    usual += [] if "--from" in words else ["--from", "shop@shop.example"]
    result = house.run("send", *usual, *words)
    assert (result.code, result.out) == (2, "")
    assert named in result.err
    assert house.redis.hlen(names.INBOX) == 0


@pytest.mark.usefixtures("worker")
def test_with_a_worker_the_state_is_the_ledgers(house: Any) -> None:
    result = house.run("send", *FROM_TO, "--subject", "x", "--text", "x", "--json")
    assert (result.code, result.json["state"]) == (0, "held")
    assert house.mail(result.json["id"])["reason"] == "no_account"


@pytest.mark.usefixtures("worker")
def test_waiting_ends_when_it_was_sent(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    result = house.run("send", *FROM_TO, "--subject", "x", "--text", "x", "--wait", "--json")
    assert (result.code, result.json["state"]) == (0, "sent"), result.err
    assert len(smtp.accepted) == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("to", "state", "said"),
    [
        ("rcpt-550-5.1.1@client.example", "failed", "550 5.1.1"),
        ("rcpt-451-4.7.1@client.example", "deferred", "451 4.7.1"),
    ],
)
def test_waiting_ends_with_1_and_the_servers_words(
    house: Any, smtp: ScriptedSMTP, to: str, state: str, said: str
) -> None:
    house.add_account(smtp)
    words = ("--from", "shop@shop.example", "--to", to, "--subject", "x", "--text", "x")
    result = house.run("send", *words, "--wait", "--json")
    assert (result.code, result.json["state"]) == (1, state)
    assert said in result.err


@pytest.mark.usefixtures("worker")
def test_waiting_for_a_held_mail_says_why(house: Any) -> None:
    result = house.run("send", *FROM_TO, "--subject", "x", "--text", "x", "--wait", "--json")
    assert (result.code, result.json["state"]) == (1, "held")
    assert "no_account" in result.err
    assert f"postroom mail explain {result.json['id']}`" in result.err


@pytest.mark.usefixtures("worker")
def test_waiting_for_a_mail_that_went_to_some_says_who_was_refused(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    result = house.run(
        "send", *FROM_TO, "--to", "rcpt-550-5.1.1@client.example", "--subject", "x", "--text", "x", "--wait", "--json"
    )
    assert (result.code, result.json["state"]) == (0, "sent")
    assert "1 of 2 recipients was refused: 550 5.1.1" in result.err
    assert f"postroom mail show {result.json['id']}`" in result.err


def test_waiting_without_a_worker_says_so_in_the_end(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postroom.front.cli.send._WAIT_SECONDS", 0.2)
    result = house.run("send", *FROM_TO, "--subject", "x", "--text", "x", "--wait", "--json")
    assert (result.code, result.json["state"]) == (1, "inbox")


@pytest.mark.usefixtures("worker")
def test_a_key_used_with_another_body_is_rejected_and_said(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    keyed = (*FROM_TO, "--subject", "x", "--key", "order-7", "--wait", "--json")
    first = house.run("send", *keyed, "--text", "one")
    again = house.run("send", *keyed, "--text", "one")
    other = house.run("send", *keyed, "--text", "two")
    assert (first.code, first.json["state"]) == (0, "sent")
    assert (again.code, again.json) == (0, first.json)
    assert (other.code, other.json) == (1, {"id": first.json["id"], "state": "rejected"})
    assert "order-7" in other.err
    assert len(smtp.accepted) == 1


@on_sqlite
def test_a_site_without_a_database_can_send_but_not_wait(house: Any) -> None:
    for file in house.folder.glob("postroom.db*"):
        file.unlink()
    words = (*FROM_TO, "--subject", "x", "--text", "x", "--json")
    waiting = house.run("send", *words, "--wait")
    assert (waiting.code, waiting.out) == (1, "")
    assert "postroom migrate" in waiting.err
    assert house.redis.hlen(names.INBOX) == 0
    result = house.run("send", *words)
    assert (result.code, result.json["state"]) == (0, "inbox")


def test_with_redis_away_nothing_is_handed_over(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_BROKER_URL", "redis+socket:///tmp/postroom-no-such.sock")
    result = house.run("send", *FROM_TO, "--subject", "x", "--text", "x", "--json")
    assert (result.code, result.out) == (1, "")
    assert "POSTROOM_BROKER_URL" in result.err


def test_what_is_too_large_is_refused(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_JOB_LIMIT_BYTES", "2000")
    result = house.run("send", *FROM_TO, "--subject", "x", "--text", "x" * 3000)
    assert (result.code, result.out) == (1, "")
    assert house.redis.hlen(names.INBOX) == 0
