"""What the chore `release` chooses for anew: all that it may help, the most urgent and oldest first, and no others."""
# ruff: noqa: S608 - names of our own tables and columns

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, insert, select, update

from long_form import LONG
from postroom.config import accounts as kept
from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.database import now
from postroom.config.states import Health
from postroom.config.tables import mails, senders
from postroom.worker import lanes, misplaced
from postroom.worker.chores.release import release
from postroom.worker.drain import drain
from postroom.worker.process import Process
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House, NotedNudges

MANY = 100_000 if LONG else 5_000
SHOP = "shop@shop.example"
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def confirm(house: House, owner: str, key: str = SHOP) -> None:
    with house.process.database.write() as connection:
        row = {"id": uuid4(), "owner": owner, "address": key, "address_key": key, "name": ""}
        connection.execute(insert(senders).values(**row, created_at=now(), confirmed_at=now()))


def pause(house: House, account: Account) -> None:
    with house.process.database.write() as connection:
        assert pauses.pause(connection, account.id)


def resume(house: House, account: Account) -> None:
    with house.process.database.write() as connection:
        assert pauses.resume(connection, account.id)


def copy_held(house: House, mail_id: UUID, count: int) -> None:
    """As many more held mails like this one, each a second older than the one before. Their letters are not copied."""
    with house.process.database.write() as connection:
        postgresql = connection.dialect.name == "postgresql"
        changed = {
            "id": "gen_random_uuid()" if postgresql else "lower(hex(randomblob(16)))",
            "created_at": "created_at - n * interval '1 second'"
            if postgresql
            else "strftime('%Y-%m-%d %H:%M:%f', created_at, -n || ' seconds') || '000'",
        }
        columns = [column.name for column in mails.c]
        one = f"'{mail_id}'" if postgresql else f"'{mail_id.hex}'"
        connection.exec_driver_sql(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < "
            f"{count}) INSERT INTO mails ({', '.join(columns)}) SELECT {', '.join(changed.get(c, c) for c in columns)}"
            f" FROM mails, numbers WHERE mails.id = {one}"
        )


def states(house: House) -> Counter[tuple[str, str | None]]:
    with house.process.database.read() as connection:
        found = select(mails.c.state, mails.c.reason, func.count()).group_by(mails.c.state, mails.c.reason)
        return Counter({(row[0], row[1]): row[2] for row in connection.execute(found)})


# -- whose cause is gone


Cause = tuple[Callable[[House, Account], None], Callable[[House, Account], None]]


def _deactivate(house: House, account: Account) -> None:
    house.change("accounts", account.id, active=False)


def _activate(house: House, account: Account) -> None:
    house.change("accounts", account.id, active=True)


def _suspend(house: House, account: Account) -> None:
    house.change("accounts", account.id, health=Health.SUSPENDED)


def _prove(house: House, account: Account) -> None:
    found = house.account(account)
    with house.process.database.write() as connection:
        kept.replace_proved(connection, found, replace(found, login="other"))


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ((_deactivate, _activate), "no_account"),
        ((_suspend, _prove), "account_suspended"),
        ((pause, resume), "paused"),
    ],
    ids=["activated", "proved anew", "resumed"],
)
def test_held_mail_leaves_once_its_cause_is_gone(house: House, smtp: ScriptedSMTP, cause: Cause, reason: str) -> None:
    account = house.add_account(smtp)
    waits = house.take()
    house.nudges.drains.clear()
    begin, end = cause
    begin(house, account)
    assert release(house.process) == 1
    comes = house.take()
    assert [house.state(each) for each in (waits, comes)] == [("held", reason)] * 2
    assert release(house.process) == 0
    end(house, account)
    assert release(house.process) == 2
    assert house.nudges.drains == [account.id]
    house.drain(account)
    assert [house.state(each) for each in (waits, comes)] == [("sent", None)] * 2
    assert len(smtp.accepted) == 2


def test_one_owners_confirmed_sender_releases_no_other_owners_mail(house: House, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    waits, may_go = (house.take(owner=owner) for owner in ("crm-1", "crm-2"))
    confirm(house, "crm-2")
    assert release(house.process) == 1
    assert house.state(may_go) == ("queued", None)
    assert house.state(waits) == ("held", "sender_not_confirmed")


def test_the_reason_follows_what_is_so_now(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    pause(house, account)
    mail_id = house.take()
    house.change("accounts", account.id, health=Health.SUSPENDED)
    assert release(house.process) == 1
    assert house.state(mail_id) == ("held", "account_suspended")
    with house.process.database.write() as connection:
        kept.remove(connection, account.id)
    assert release(house.process) == 1
    assert house.state(mail_id) == ("held", "no_account")


def test_what_waits_for_a_person_is_not_looked_at(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = house.take()
    for reason in ("poison", "sender_refused", "uncertain"):
        house.change("mails", mail_id, reason=reason)
        with house.process.database.read() as connection:
            assert misplaced.find(connection) == []
        house.add_account(smtp, login=reason)


def test_urgent_and_old_mail_leaves_first(house: House, smtp: ScriptedSMTP) -> None:
    order = [("high", 1), ("high", 3), ("normal", 0), ("normal", 2), ("bulk", 4)]
    for priority, age in [order[at] for at in (4, 3, 0, 2, 1)]:
        mail_id = house.take(to=f"{priority}-{age}@client.example", priority=priority)
        house.change("mails", mail_id, created_at=LONG_AGO + timedelta(days=age))
    account = house.add_account(smtp, connections=1)
    with house.process.database.read() as connection:
        [found] = misplaced.find(connection)
        group: misplaced.Part | None = found
        while group is not None:  # one a transaction, and another one ends here
            ids, group = group.take(connection, 1)
            with house.process.database.write() as writing:
                lanes.place(writing, ids)
            house.drain(account)
    assert [each.recipients[0].partition("@")[0] for each in smtp.accepted] == [
        f"{each[0]}-{each[1]}" for each in order
    ]


def test_mails_that_cannot_go_keep_no_others_waiting(
    house: House, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their From was refused by the one account, and the other one is suspended."""
    monkeypatch.setattr(lanes, "MOST_AT_ONCE", 20)
    refusing = house.add_account(smtp)
    refused = [house.take(to=f"dot-553-5.7.1+{number}@client.example") for number in range(21)]
    house.drain(refusing)
    suspended = house.add_account(smtp, login="other", health=Health.SUSPENDED)
    for each in refused:
        house.change("mails", each, reason="account_suspended")
    pause(house, refusing)
    behind = house.take()
    house.change("mails", behind, reason="account_suspended")
    resume(house, refusing)
    assert release(house.process) == 1
    assert house.state(behind) == ("queued", None)
    assert house.nudges.releases == 0
    house.change("accounts", suspended.id, health=Health.OK)
    assert release(house.process) == 21


# -- lanes that cannot send


def test_a_failing_lane_is_left_alone_while_only_other_addresses_are_well(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.add_account(smtp, "other@shop.example")
    house.take()
    house.take(from_="other@shop.example")
    house.change("accounts", account.id, health=Health.FAILING)
    assert release(house.process) == 0
    house.add_account(smtp, login="another")
    assert release(house.process) == 1


def test_a_failing_lane_gives_only_what_another_account_may_send(house: House, smtp: ScriptedSMTP) -> None:
    failing = house.add_account(smtp)
    confirm(house, "crm-1")
    confirm(house, "crm-2")
    of_nobody, of_one, of_two = house.take(), house.take(owner="crm-1"), house.take(owner="crm-2")
    house.change("accounts", failing.id, health=Health.FAILING)
    own = house.add_account(smtp, owner="crm-1", login="own")
    with house.process.database.read() as connection:
        [part] = misplaced.find(connection)
        assert part.take(connection, 10) == ([of_one], None)
    assert release(house.process) == 1
    lanes_now = {each: house.show(each)["account_id"] for each in (of_nobody, of_one, of_two)}
    assert lanes_now == {of_nobody: str(failing.id), of_one: str(own.id), of_two: str(failing.id)}


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "deferred"])
def test_what_waits_for_an_account_that_is_gone_is_chosen_anew(house: House, smtp: ScriptedSMTP, ready: bool) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    if not ready:
        house.change("mails", mail_id, state="deferred", ready=False)
    with house.process.database.write() as connection:
        kept.remove(connection, account.id)
    assert release(house.process) == 1
    assert house.state(mail_id) == ("held", "no_account")


def test_mail_that_its_lane_may_not_send_goes_when_its_turn_comes(house: House, smtp: ScriptedSMTP) -> None:
    """As one that was deferred over an account whose address was changed meanwhile."""
    account = house.add_account(smtp)
    strange, own = house.take(), house.take()
    house.change("mails", strange, from_key="old@shop.example")
    assert release(house.process) == 1
    assert house.state(strange) == ("held", "no_account")
    house.drain(account)
    assert house.state(own) == ("sent", None)


# -- very many


@contextmanager
def another_lane(house: House, smtp: ScriptedSMTP) -> Iterator[list[float]]:
    """A process of its own that takes and sends a mail after the other; gives how long each took, in seconds."""
    process = Process(house.process.settings, NotedNudges())
    took: list[float] = []
    stop = threading.Event()
    account = house.add_account(smtp, "busy@shop.example")

    def send() -> None:
        while not stop.is_set():
            mail_id = house.enqueue(from_="busy@shop.example")
            began_at = time.monotonic()
            house.accept(mail_id)
            drain(process, account.id)
            took.append(time.monotonic() - began_at)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join(60)
        process.close()


@pytest.mark.timeout(1200 if LONG else 120)
def test_very_many_leave_in_parts_while_other_lanes_go_on(
    house: House, smtp: ScriptedSMTP, record_property: Callable[[str, object], None]
) -> None:
    copy_held(house, house.take(), MANY - 1)
    small = house.take(from_="small@shop.example", priority="bulk")
    with another_lane(house, smtp) as took:
        while len(took) < 20:
            time.sleep(0.01)
        quiet_seconds = max(took[5:])
        took.clear()
        account = house.add_account(smtp)
        house.add_account(smtp, "small@shop.example")
        began_at = time.monotonic()
        moved = [release(house.process)]
        assert house.state(small) == ("queued", None)  # it waited for its share alone
        while sum(moved) <= MANY:
            assert house.nudges.releases == len(moved), "it asks for itself while more is left"
            moved.append(release(house.process))
        seconds = time.monotonic() - began_at
        worst_seconds = max(took)
    assert sum(moved) == MANY + 1
    assert release(house.process) == 0
    with house.process.database.read() as connection:
        waiting = select(func.count()).where(mails.c.account_id == account.id, mails.c.state == "queued", mails.c.ready)
        assert connection.execute(waiting).scalar_one() == MANY
    for name, value in (("seconds", seconds), ("worst_seconds", worst_seconds), ("quiet_seconds", quiet_seconds)):
        record_property(name, round(value, 3))
    print(f"{MANY} in {seconds:.1f} s; another lane's worst mail {worst_seconds:.3f} s, before {quiet_seconds:.3f} s")
    assert worst_seconds < 5


def test_finding_what_to_move_costs_the_same_however_much_is_held(house: House) -> None:
    copy_held(house, house.take(), 20)
    few_seconds = _seconds_of_finding(house)
    copy_held(house, house.take(), MANY)
    assert _seconds_of_finding(house) < max(10 * few_seconds, 0.05)


def _seconds_of_finding(house: House) -> float:
    def once() -> float:
        began_at = time.monotonic()
        with house.process.database.read() as connection:
            assert misplaced.find(connection) == []
        return time.monotonic() - began_at

    return min(once() for _ in range(5))


def test_two_releases_at_once_move_each_mail_once(house: House, smtp: ScriptedSMTP) -> None:
    copy_held(house, house.take(), 1999)
    house.add_account(smtp)
    other = Process(house.process.settings, NotedNudges())
    moved: list[int] = []

    def work(process: Process) -> None:
        while more := release(process):
            moved.append(more)

    threads = [threading.Thread(target=work, args=(each,)) for each in (house.process, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    assert sum(moved) == 2000
    assert states(house) == {("queued", None): 2000}
    with house.process.database.write() as connection:  # what is claimed meanwhile is left alone
        ids = list(connection.execute(select(mails.c.id)).scalars())
        connection.execute(update(mails).values(claim=uuid4()))
        assert lanes.place(connection, ids[:10]).moved == 0
