"""Limits of an account: given, changed, shown, and told where mail waits for them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select

from postroom.config.states import Security
from postroom.config.tables import counts
from postroom.worker import claim
from servers.aiosmtpd_server import AiosmtpdServer
from servers.scripted_smtp import ScriptedSMTP

LOGIN = "shop@shop.example"


def _limits(house: Any) -> tuple[int | None, int | None]:
    [account] = house.accounts()
    return account.mails_per_minute, account.recipients_per_day


@pytest.mark.usefixtures("worker")
def test_an_account_is_added_with_limits(house: Any, mailbox: AiosmtpdServer) -> None:
    where = ("--address", LOGIN, "--host", mailbox.host, "--port", str(mailbox.port), "--password-stdin")
    limits = ("--mails-per-minute", "30", "--recipients-per-day", "none")
    added = house.run("account", "add", *where, *limits, "--json", stdin="right horse")
    assert added.code == 0, added.err
    assert added.json["limits"] == {"connections": 4, "mails_per_minute": 30, "recipients_per_day": None}
    assert _limits(house) == (30, None)


def test_limits_are_changed_and_shown_without_a_proof(house: Any, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp, mails_per_minute=30)
    words = ("account", "edit", LOGIN, "--json")
    edited = house.run(*words, "--mails-per-minute", "none", "--recipients-per-day", "500").json
    assert edited["limits"] == {"connections": 4, "mails_per_minute": None, "recipients_per_day": 500}
    assert smtp.accepted == []
    for shown in (house.run("account", "show", LOGIN).out, house.run("account", "list").out):
        assert "500 recipients per day" in shown
        assert "minute" not in shown
    assert house.run(*words, "--name", "Shop").json["limits"]["recipients_per_day"] == 500


@pytest.mark.parametrize("limit", ["0", "-1", "1.5", "many", "", "10000000000"])
@pytest.mark.parametrize("option", ["--mails-per-minute", "--recipients-per-day"])
def test_what_is_no_limit_is_refused(house: Any, smtp: ScriptedSMTP, option: str, limit: str) -> None:
    house.add_account(smtp)
    result = house.run("account", "edit", LOGIN, option, limit)
    assert result.code == 2
    assert option in result.err
    assert _limits(house) == (None, None)


def _claim(house: Any, account: Any) -> int:
    lane = house.process.writer.do(claim.enter, claim.Enter(account.id, uuid4(), 10, 60))
    return len(lane.mails) if lane else 0


def test_explain_says_until_when_an_account_waits_for_its_limit(house: Any, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, mails_per_minute=1)
    for _ in range(2):
        house.take()
    assert [_claim(house, account) for _ in range(2)] == [1, 0]
    words = ("explain", "--from", LOGIN)
    told = house.run(*words, "--json").json
    assert told["chosen"] == str(account.id)
    assert told["verdicts"][0]["ok"]
    assert "limits let nothing through until" in told["verdicts"][0]["why"]
    assert "it has reached a limit" in house.run(*words).out
    [queued] = house.run("mail", "list", "--state", "queued", "--json").json
    shown = ("mail", "show", queued["id"])
    assert "the limits of its account, until" in house.run(*shown).out
    house.change("accounts", account.id, open_at=datetime.now(UTC) - timedelta(seconds=1))
    for told in (house.run(*words).out, house.run(*shown).out):
        assert "limit" not in told


def test_a_limit_set_anew_counts_what_went_out_and_a_raised_one_lets_mail_go_at_once(
    house: Any, smtp: ScriptedSMTP
) -> None:
    account = house.add_account(smtp, security=Security.NONE)
    for _ in range(4):
        house.take()
    assert _claim(house, account) == 4
    house.take()
    house.run("account", "edit", LOGIN, "--mails-per-minute", "4")
    assert _claim(house, account) == 0, "four are on their way"
    assert house.accounts()[0].open_at is not None
    house.run("account", "edit", LOGIN, "--mails-per-minute", "5")
    assert house.accounts()[0].open_at is None
    assert _claim(house, account) == 1
    house.run("account", "edit", LOGIN, "--mails-per-minute", "none")
    with house.process.database.read() as connection:
        assert connection.execute(select(counts)).all() == []
