"""Limits: how many mails an account sends in any 60 s and to how many recipients in any 24 h, over all workers."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, func, select, update

from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.states import MailState, Outcome
from postroom.config.tables import accounts, attempts, counts, mails
from postroom.producer.identifiers import uuid7
from postroom.worker import claim, limits
from postroom.worker.chores.due import due
from postroom.worker.interventions import cancel
from postroom.worker.ledger import Mark
from postroom.worker.retry import Next
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House
from worker.test_fence import accepted, lose_leases, turn

DAY = timedelta(days=1, minutes=1)


def enter(house: House, account: Account, most: int = 100) -> tuple[UUID, list[UUID]]:
    """What a drain that comes now claims."""
    token = uuid4()
    lane = house.process.writer.do(claim.enter, claim.Enter(account.id, token, most, 60))
    return token, [mail.id for mail in lane.mails] if lane else []


def pass_time(house: House, passed: timedelta) -> None:
    """Everything that was counted lies so much further back."""
    seconds = int(passed.total_seconds())
    with house.process.database.write() as connection:
        rows = connection.execute(select(counts)).all()
        connection.execute(counts.delete())
        for row in rows:
            moved = row.bucket - seconds // {"second": 1, "minute": 60}[row.span]
            connection.execute(counts.insert().values((row.account_id, row.span, moved, row[3])))
        for table, columns in ((mails, ["claimed_at"]), (accounts, ["open_at"]), (attempts, ["started_at"])):
            for moment in columns:
                for row in connection.execute(select(table.c.id, table.c[moment]).where(table.c[moment].is_not(None))):
                    earlier = {moment: getattr(row, moment) - passed}
                    connection.execute(update(table).where(table.c.id == row.id).values(earlier))


def counted(house: House, account: Account) -> dict[str, int]:
    """Span → all that is counted in it."""
    query = select(counts.c.span, func.sum(counts.c["count"]).label("number")).where(counts.c.account_id == account.id)
    with house.process.database.read() as connection:
        found = connection.execute(query.group_by(counts.c.span)).all()
    return {row.span: row.number for row in found if row.number}


def people(count: int) -> list[str]:
    return [f"anna-{number}@client.example" for number in range(count)]


CLAIMING = """
import json, sys
from uuid import UUID, uuid4
from postroom.config.database import Database
from postroom.worker import claim
from postroom.worker.writer import Writer

writer = Writer(Database(sys.argv[1]))
lanes = [UUID(each) for each in sys.argv[2:]]
print("ready", flush=True)
input()
claimed = []
for _ in range(5):
    for lane_id in lanes:
        token = uuid4()
        lane = writer.do(claim.enter, claim.Enter(lane_id, token, 2, 60))
        if lane:
            more = writer.do(claim.more, claim.More(lane.account, token, 3))
            claimed += [(str(lane_id), str(mail.id)) for mail in (*lane.mails, *more)]
writer.close()
print(json.dumps(claimed))
"""


def claim_in_processes(house: House, lanes: list[Account]) -> list[tuple[str, str]]:
    """What four processes claim that all begin at once: account and mail."""
    words = [sys.executable, "-c", CLAIMING, house.process.settings.database, *(str(each.id) for each in lanes)]
    running = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for each in running:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n"
    for each in running:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    said = [each.communicate(timeout=60)[0] for each in running]
    return [tuple(claimed) for each in said for claimed in json.loads(each)]


def test_four_processes_claim_what_is_allowed_and_not_one_more(house: House, smtp: ScriptedSMTP) -> None:
    by_mails = house.add_account(smtp, connections=40, mails_per_minute=17, recipients_per_day=90)
    by_recipients = house.add_account(smtp, "info@shop.example", connections=40, recipients_per_day=23)
    house.accept(*(house.enqueue() for _ in range(40)))
    house.accept(*(house.enqueue(from_="info@shop.example", to=people(2)) for _ in range(20)))
    claimed = claim_in_processes(house, [by_mails, by_recipients])
    assert len({mail_id for _, mail_id in claimed}) == len(claimed)
    lanes = [lane for lane, _ in claimed]
    assert (lanes.count(str(by_mails.id)), lanes.count(str(by_recipients.id))) == (17, 11)
    assert counted(house, by_mails) == {"second": 17, "minute": 17}
    assert counted(house, by_recipients) == {"minute": 22}


@pytest.mark.parametrize("asks", ["enter", "more"])
def test_a_claim_waits_for_one_that_is_being_made(house: House, smtp: ScriptedSMTP, asks: str) -> None:
    account = house.add_account(smtp, mails_per_minute=4)
    house.accept(*(house.enqueue() for _ in range(8)))
    token, first = enter(house, account, most=1)
    ask: Callable[[], Any] = {
        "enter": lambda: enter(house, account, most=5)[1],
        "more": lambda: house.process.writer.do(claim.more, claim.More(account, token, 5)),
    }[asks]
    with ThreadPoolExecutor() as threads:
        with house.process.database.write() as connection:
            [lane] = claim.enter(connection, [claim.Enter(account.id, uuid4(), 2, 60)])
            asked = threads.submit(ask)
            with pytest.raises(TimeoutError):
                asked.result(0.5)
        assert lane is not None
        assert [len(first), len(lane.mails), len(asked.result(30))] == [1, 2, 1]


def test_mails_leave_again_when_their_whole_minute_has_passed(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, mails_per_minute=3)
    ids = [house.take() for _ in range(7)]
    assert enter(house, account)[1] == ids[:3]
    pass_time(house, timedelta(seconds=30))
    assert enter(house, account)[1] == []
    pass_time(house, timedelta(seconds=29))
    assert enter(house, account)[1] == []
    pass_time(house, timedelta(seconds=3))
    assert enter(house, account)[1] == ids[3:6]


def test_recipients_leave_again_when_their_whole_day_has_passed(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, recipients_per_day=5)
    first, second = house.take(to=people(3)), house.take(to=people(2))
    third = house.take()
    assert enter(house, account, most=1)[1] == [first]
    pass_time(house, timedelta(hours=12))
    assert enter(house, account)[1] == [second]
    pass_time(house, timedelta(hours=12) - timedelta(minutes=1))
    assert enter(house, account)[1] == []
    pass_time(house, timedelta(minutes=2))
    assert enter(house, account)[1] == [third]
    assert counted(house, account)["minute"] == 6


def test_a_lane_that_is_full_costs_nothing_and_goes_on_when_it_opens(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, mails_per_minute=2)
    ids = [house.take() for _ in range(3)]
    house.drain(account)
    assert [house.state(each)[0] for each in ids] == ["sent", "sent", "queued"]
    house.drain(account)
    open_at = house.account(account).open_at
    assert open_at is not None
    assert timedelta(seconds=50) < open_at - datetime.now(UTC) <= timedelta(seconds=61)
    house.nudges.drains.clear()
    due(house.process)
    assert house.nudges.drains == []
    with house.process.database.read() as connection:
        assert not claim.has_work(connection, account.id)
    pass_time(house, open_at - datetime.now(UTC) + timedelta(seconds=1))
    due(house.process)
    assert house.nudges.drains == [account.id]
    house.drain(account)
    assert house.state(ids[2]) == ("sent", None)


def test_a_full_lane_holds_up_no_other(house: House, smtp: ScriptedSMTP) -> None:
    full = house.add_account(smtp, mails_per_minute=1, recipients_per_day=1)
    other = house.add_account(smtp, "info@shop.example")
    for _ in range(2):
        house.take()
    mail_id = house.take(from_="info@shop.example")
    assert len(enter(house, full)[1]) == 1
    assert enter(house, full)[1] == []
    assert enter(house, other)[1] == [mail_id]


def test_the_most_urgent_goes_first_within_the_limit(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, recipients_per_day=3)
    house.take(priority="bulk")
    normal, high = house.take(), house.take(priority="high", to=people(2))
    assert enter(house, account)[1] == [high, normal]


def test_a_large_mail_is_not_passed_by_its_like_but_by_what_is_more_urgent(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, recipients_per_day=5)
    first = house.take(to=people(3))
    large = house.take(to=people(4))
    house.take()
    assert enter(house, account)[1] == [first]
    assert enter(house, account)[1] == []
    open_at = house.account(account).open_at
    assert open_at is not None
    assert open_at - datetime.now(UTC) < timedelta(seconds=10), "it is looked at again soon"
    high = house.take(priority="high")
    assert enter(house, account)[1] == [high]
    pass_time(house, DAY)
    assert enter(house, account)[1][0] == large


def test_a_mail_larger_than_the_limit_lets_others_pass_and_goes_alone(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, recipients_per_day=3)
    small = house.take()
    huge = house.take(to=people(8))
    another, last = house.take(), house.take()
    assert enter(house, account, most=1)[1] == [small]
    assert enter(house, account, most=1)[1] == [another]
    pass_time(house, DAY)
    assert enter(house, account)[1] == [huge]
    assert enter(house, account)[1] == []
    pass_time(house, DAY)
    assert enter(house, account)[1] == [last]


def leave(house: House, account: Account, token: UUID, _: UUID) -> None:
    house.process.writer.do(claim.leave, claim.Leave(account.id, token))


def cancel_it(house: House, _: Account, __: UUID, mail_id: UUID) -> None:
    with house.process.database.write() as connection:
        cancel(connection, mail_id)


def lose(house: House, _: Account, __: UUID, ___: UUID) -> None:
    lose_leases(house)


def unreached(house: House, account: Account, token: UUID, mail_id: UUID) -> None:
    record = replace(accepted(account, mail_id, token, uuid7()), outcome=Outcome.UNREACHED, recipients=())
    turn(house, record=replace(record, next=Next(MailState.DEFERRED, due_in_seconds=60, counts=False)))


@pytest.mark.parametrize("end", [leave, cancel_it, lose, unreached], ids=lambda end: end.__name__)
def test_what_was_surely_not_sent_is_given_back(
    house: House, smtp: ScriptedSMTP, end: Callable[[House, Account, UUID, UUID], None]
) -> None:
    account = house.add_account(smtp, mails_per_minute=9, recipients_per_day=2)
    mail_id = house.take(to=people(2))
    waits = house.take(to=people(1), priority="bulk")
    token, [claimed] = enter(house, account)
    assert claimed == mail_id
    assert counted(house, account) == {"second": 1, "minute": 2}
    pass_time(house, timedelta(hours=1))  # it is given back where it was counted
    assert enter(house, account)[1] == []
    end(house, account, token, mail_id)
    assert counted(house, account) == {}
    assert house.account(account).open_at is None
    house.change("mails", mail_id, ready=False)
    assert enter(house, account)[1] == [waits]
    assert counted(house, account) == {"second": 1, "minute": 1}


def test_what_may_have_been_sent_stays_counted(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, mails_per_minute=5)
    ids = [house.take() for _ in range(3)]
    token, _ = enter(house, account)
    turn(house, mark=Mark(ids[0], token, uuid7()))
    attempt_id = uuid7()
    turn(house, mark=Mark(ids[1], token, attempt_id))
    turn(house, record=accepted(account, ids[1], token, attempt_id))
    assert lose_leases(house) == 2
    assert house.state(ids[0])[0] == "uncertain"
    assert counted(house, account) == {"second": 2}
    with house.process.database.read() as connection:
        assert connection.execute(select(mails.c.id).where(mails.c.claimed_at.is_not(None))).all() == []


def test_an_account_without_limits_counts_nothing(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    said: list[str] = []
    with listening(house, said):
        token, claimed = enter(house, account)
        house.process.writer.do(claim.more, claim.More(account, token, 10))
        turn(house, mark=Mark(claimed[0], token, uuid7()))
        house.process.writer.do(claim.leave, claim.Leave(account.id, token))
    assert counted(house, account) == {}
    assert len([each for each in said if not each.startswith("BEGIN")]) == 11, "no more than without this part"


@contextmanager
def listening(house: House, said: list[str]) -> Iterator[None]:
    """Notes the statements that are executed."""

    def note(*words: Any) -> None:
        said.append(words[2])

    event.listen(house.process.database.engine, "before_cursor_execute", note)
    yield
    event.remove(house.process.database.engine, "before_cursor_execute", note)


def test_a_limit_set_anew_counts_what_was_tried_and_what_is_in_hand(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    ids = [house.take(to=people(2)) for _ in range(3)]
    token, _ = enter(house, account, most=2)
    house.drain(account)
    turn(house, record=accepted(account, ids[0], token, uuid7()))
    pass_time(house, timedelta(hours=2))
    limited = replace(account, mails_per_minute=9, recipients_per_day=9)
    with house.process.database.write() as connection:
        limits.changed(connection, account, kept.replace_unproved(connection, account, limited))
    assert counted(house, account) == {"minute": 6}
    pass_time(house, timedelta(hours=23))
    with house.process.database.read() as connection:
        assert limits.room(connection, limited).recipients == 9
