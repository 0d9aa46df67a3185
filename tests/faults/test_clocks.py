"""Clocks ten minutes off, a worker's or a producer's: nothing is late or doubled, and dates are the ledger's."""

import email.utils
import time
from datetime import UTC, datetime

import pytest

from postroom.producer import names
from postroom.worker.chores.due import due
from postroom.worker.chores.leases import leases
from postroom.worker.chores.strays import strays
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House

TEN_MINUTES = 600


@pytest.fixture(params=[TEN_MINUTES, -TEN_MINUTES], ids=["ahead", "behind"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """What this process takes for the time; Redis and database know better."""
    true_time, true_time_ns = time.time, time.time_ns
    monkeypatch.setattr("time.time", lambda: true_time() + request.param)
    monkeypatch.setattr("time.time_ns", lambda: true_time_ns() + request.param * 10**9)
    return int(request.param)


@pytest.mark.usefixtures("wrong_clock")
def test_a_mail_goes_once_and_is_dated_by_the_ledger(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    house.drain(account)
    for _ in range(2):
        assert leases(house.process) == 0
        assert due(house.process) == 0
        house.drain(account)
    assert house.state(mail_id) == ("sent", None)
    (arrived,) = smtp.accepted
    dated = email.utils.parsedate_to_datetime(
        next(line for line in arrived.content.decode().splitlines() if line.startswith("Date: ")).removeprefix("Date: ")
    )
    assert abs((datetime.now(UTC) - dated).total_seconds()) < 60


@pytest.mark.usefixtures("wrong_clock")
def test_a_job_whose_nudge_was_lost_is_found(house: House) -> None:
    mail_id = house.enqueue()
    assert strays(house.process) == 1, "its time is far from that of Redis: it is not waited for"
    house.accept(*house.nudges.accepts)
    assert house.state(mail_id) == ("held", "no_account")
    assert not house.process.redis.exists(names.INBOX, names.INBOX_AT)
