"""An account that cannot be reached, is refused or has to wait: no mail pays for it, and none holds up the others."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import update

from postroom.config.states import Auth, Health
from postroom.config.tables import mails
from postroom.worker import claim, health
from postroom.worker.chores.due import due
from postroom.worker.chores.probe import probe
from postroom.worker.claim import Enter, More
from postroom.worker.health import Trouble
from servers.scripted_smtp import Reply, ScriptedSMTP
from worker.conftest import House

PAST = datetime.now(UTC) - timedelta(hours=1)


def from_now_seconds(moment: datetime | None) -> float:
    assert moment is not None
    return (moment - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("code", "wait_seconds"), [("421-4.7.0", 60), ("550-5.4.5", 3600)], ids=["slow down", "quota is used up"]
)
def test_a_mail_whose_reply_makes_the_account_wait_lets_the_others_go_first(
    house: House, smtp: ScriptedSMTP, code: str, wait_seconds: int
) -> None:
    account = house.add_account(smtp, connections=1)
    its = house.take(to=f"dot-{code}@client.example", priority="high")
    others = [house.take() for _ in range(3)]
    for time, attempts, further_minutes in ((1, 0, 1), (2, 1, 5), (3, 2, 15)):
        house.drain(account)
        noted = house.account(account)
        assert noted.health is Health.FAILING
        assert from_now_seconds(noted.probe_at) == pytest.approx(wait_seconds, abs=20)
        waiting = house.show(its)
        assert waiting["state"] == "deferred"
        with house.process.database.read() as connection:
            row = connection.execute(mails.select().where(mails.c.id == its)).one()
        assert row.attempts == attempts, "the first time it is the account's; after that it counts as the mail's"
        further_seconds = from_now_seconds(row.due_at) - wait_seconds
        assert further_minutes * 60 * 0.8 - 20 <= further_seconds <= further_minutes * 60 * 1.2 + 20
        assert probe(house.process) == 0
        house.change("accounts", account.id, probe_at=PAST)
        for _ in others:  # on a busy machine a drain ends after each
            house.drain(account)
        assert house.account(account).health is Health.OK
        assert [house.state(each)[0] for each in others] == ["sent"] * 3, f"they passed it at its {time}. try"
        with house.process.database.write() as connection:
            connection.execute(update(mails).where(mails.c.id == its).values(due_at=PAST))
        due(house.process)


def test_a_quota_is_waited_for_without_a_try(house: House) -> None:
    with ScriptedSMTP(on={".": Reply("550 5.4.5 Daily user sending limit exceeded")}) as server:
        account = house.add_account(server, connections=4)
        for _ in range(8):
            house.take()
        house.drain(account)
        tried = list(server.commands)
        for _ in range(3):
            due(house.process)
            assert probe(house.process) == 0
            house.drain(account)
        assert [each for each in server.commands if each != "QUIT"] == [each for each in tried if each != "QUIT"]
        assert sum(each.startswith("MAIL") for each in tried) == 1


def test_a_refused_sign_in_is_tried_after_5_30_and_120_minutes_and_then_no_more(house: House) -> None:
    with ScriptedSMTP(login="shop", password="new") as server:
        account = house.add_account(server, auth=Auth.PLAIN, login="shop", password="old", allow_cleartext=True)
        house.take()
        gaps: list[int | None] = []
        for _ in range(4):
            house.drain(account)
            probe_at = house.account(account).probe_at
            gaps.append(None if probe_at is None else round(from_now_seconds(probe_at) / 60))
            if probe_at is not None:
                house.change("accounts", account.id, probe_at=PAST)
        assert gaps == [5, 30, 120, None]
        tries = server.connections
        house.drain(account)
        assert server.connections == tries == 4
        assert not any(command.startswith("MAIL") for command in server.commands)


def test_lanes_of_one_account_that_fail_at_once_are_one_failure(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    for _ in range(4):
        house.process.writer.do(health.note, Trouble(account, Health.FAILING, "no route to host", 5))
    assert house.account(account).probes == 1


def test_a_lane_claims_no_more_once_another_found_that_the_account_has_to_wait(
    house: House, smtp: ScriptedSMTP
) -> None:
    account = house.add_account(smtp)
    for _ in range(3):
        house.take()
    token = uuid4()
    assert house.process.writer.do(claim.enter, Enter(account.id, token, mails=1, lease_seconds=60))
    assert len(house.process.writer.do(claim.more, More(account, token, 1))) == 1
    house.process.writer.do(health.note, Trouble(account, Health.FAILING, "450 too much mail", 60))
    assert house.process.writer.do(claim.more, More(account, token, 1)) == ()
