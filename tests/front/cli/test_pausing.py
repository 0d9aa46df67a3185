"""Pausing and resuming by the command line: what is said, what becomes of the mail, and who sees it."""

from typing import Any

import pytest

from postroom.config import pauses
from postroom.config.states import Auth, Security
from postroom.worker.chores.release import release
from servers.aiosmtpd_server import AiosmtpdServer
from servers.scripted_smtp import ScriptedSMTP

SHOP = "shop@shop.example"
BLOCK = "550 5.1.8 Access denied, bad outbound sender"


@pytest.mark.parametrize("which", ["all", "by address", "by id"])
def test_what_was_done_is_said_and_doing_it_twice_changes_nothing(house: Any, smtp: ScriptedSMTP, which: str) -> None:
    account = house.add_account(smtp)
    words = {"all": [], "by address": ["Shop@SHOP.example"], "by id": [str(account.id)]}[which]
    whose = "all accounts" if which == "all" else SHOP
    assert house.run("resume", *words).out.startswith(f"was not paused: {whose}")
    first = house.run("pause", *words)
    assert (first.code, first.out[: len(whose) + 8]) == (0, f"paused: {whose}")
    since = house.run("pause", *words, "--json").json["paused_at"]
    again = house.run("pause", *words)
    assert (again.code, again.out.startswith("was paused already since 20")) == (0, True)
    assert house.run("pause", *words, "--json").json["paused_at"] == since
    resumed = house.run("resume", *words)
    assert (resumed.code, resumed.out[: len(whose) + 9]) == (0, f"resumed: {whose}")
    assert house.run("resume", *words, "--json").json["paused_at"] is None


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_account_is_refused(house: Any, smtp: ScriptedSMTP, command: str) -> None:
    account = house.add_account(smtp)
    result = house.run(command, "nobody@shop.example")
    assert (result.code, result.out) == (1, "")
    assert "there is no account 'nobody@shop.example'" in result.err
    assert house.accounts() == [account]


def test_waiting_and_new_mail_of_a_paused_account_is_held(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    waits = house.take()
    later = house.take(send_at="2040-01-01T00:00:00Z")
    assert house.run("pause", SHOP).code == 0
    comes = house.take()
    for mail_id in (waits, later, comes):
        mail = house.mail(mail_id)
        assert (mail["state"], mail["reason"], mail["account_id"]) == ("held", "paused", None)
    house.run("resume", SHOP)
    release(house.process)
    assert [house.mail(each)["state"] for each in (waits, later, comes)] == ["queued"] * 3
    assert house.mail(later)["due_at"] == "2040-01-01T00:00:00.000Z"


def test_another_account_with_that_address_takes_its_mail(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    other = house.add_account(smtp, login="other", priority=5)
    waits = house.take()
    assert house.mail(waits)["account_id"] == str(account.id)
    house.run("pause", str(account.id))
    assert [house.mail(each)["account_id"] for each in (waits, house.take())] == [str(other.id)] * 2


def test_all_are_paused_with_what_waits_and_what_comes(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    house.add_account(smtp, login="other", priority=5)
    waits = house.take()
    house.run("pause")
    release(house.process)
    nobody = house.take(from_="nobody@shop.example")
    assert [house.mail(each)["reason"] for each in (waits, house.take(), nobody)] == ["paused", "paused", "no_account"]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("words", [[], [SHOP]], ids=["all", "one"])
def test_resumed_its_mail_leaves_by_itself(house: Any, smtp: ScriptedSMTP, words: list[str]) -> None:
    house.add_account(smtp)
    house.run("pause", *words)
    sent = house.run("send", "--from", SHOP, "--to", "anna@client.example", "--subject", "x", "--text", "y", "--json")
    house.run("resume", *words)
    shown = house.run("mail", "show", sent.json["id"], "--json")
    for _ in range(100):
        if shown.code == 0 and shown.json["state"] == "sent":
            break
        house.run("resume", *words)
        shown = house.run("mail", "show", sent.json["id"], "--json")
    assert shown.json["state"] == "sent"
    assert len(smtp.accepted) == 1


@pytest.mark.usefixtures("worker")
def test_a_paused_house_still_proves_accounts(house: Any, mailbox: AiosmtpdServer) -> None:
    house.run("pause")
    account = house.add_account(
        mailbox, security=Security.STARTTLS, auth=Auth.PLAIN, login=SHOP, password="right horse"
    )
    assert house.run("account", "verify", str(account.id)).code == 0


def test_every_place_that_tells_of_accounts_tells_of_pauses(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.run("pause", SHOP)
    assert "paused" in house.run("account", "list").out
    assert "paused at" in house.run("account", "show", SHOP).out
    explained = house.run("explain", "--from", SHOP, "--json").json
    assert (explained["chosen"], explained["held"]) == (None, "paused")
    assert "is paused since 20" in explained["verdicts"][0]["why"]
    assert "`postroom resume shop@shop.example`" in explained["verdicts"][0]["why"]
    house.run("pause")
    lifted = house.run("resume", SHOP)
    assert "All accounts are paused since 20" in lifted.err
    assert "All accounts are paused since 20" in house.run("account", "list").err
    assert "as all are" in house.run("explain", "--from", SHOP).out
    house.run("pause", SHOP)
    assert f"shop@shop.example stays paused by itself; `postroom resume {account.id}`" in house.run("resume").err


def test_a_block_is_told_with_the_providers_words(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    with house.process.database.write() as connection:
        pauses.pause(connection, account.id, BLOCK)
    assert f"blocked: {BLOCK}" in house.run("account", "list").out
    assert house.run("account", "show", SHOP, "--json").json["paused_why"] == BLOCK
    assert BLOCK in house.run("explain", "--from", SHOP).out
    checks = {check["name"]: check for check in house.run("doctor", "--json").json["checks"]}
    assert checks["pauses"]["ok"] is True
    assert BLOCK in checks["pauses"]["message"]
    assert "postroom resume" in checks["pauses"]["action"]


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("why", "words", "stays_paused"),
    [
        (BLOCK, ("edit", SHOP, "--password-stdin"), False),
        (None, ("edit", SHOP, "--password-stdin"), True),
        (BLOCK, ("edit", SHOP, "--name", "Shop"), True),
        (BLOCK, ("verify", SHOP), True),
    ],
    ids=["a proved change", "of what a person paused", "a change without proof", "a proof alone"],
)
def test_a_proved_change_lifts_a_block_and_nothing_else(
    house: Any, mailbox: AiosmtpdServer, why: str | None, words: tuple[str, ...], stays_paused: bool
) -> None:
    account = house.add_account(
        mailbox, security=Security.STARTTLS, auth=Auth.PLAIN, login=SHOP, password="right horse"
    )
    with house.process.database.write() as connection:
        pauses.pause(connection, account.id, why)
    assert house.run("account", *words, stdin="right horse").code == 0
    [now] = house.accounts()
    assert (now.paused_at is not None, now.paused_why) == (stays_paused, why if stays_paused else None)
