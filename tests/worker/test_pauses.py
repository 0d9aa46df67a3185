"""Pauses under work: nothing is claimed once one stands, whatever goes on, and nothing is lost or doubled by it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.states import Health
from postroom.config.tables import mails
from postroom.worker import claim
from postroom.worker.chores.due import due
from postroom.worker.chores.release import release
from postroom.worker.claim import Enter, Leave, More
from postroom.worker.drain import drain
from postroom.worker.process import Process
from servers.scripted_smtp import Hang, Reply, ScriptedSMTP, Wait
from worker.conftest import House, NotedNudges

BLOCK = "550 5.1.8 Access denied, bad outbound sender"

Set = Callable[[House, Account], None]


def pause(house: House, account: Account | None) -> None:
    with house.process.database.write() as connection:
        if account is None:
            pauses.pause_all(connection)
        else:
            pauses.pause(connection, account.id)


def resume(house: House, account: Account | None) -> None:
    with house.process.database.write() as connection:
        if account is None:
            pauses.resume_all(connection)
        else:
            pauses.resume(connection, account.id)


def states(house: House) -> Counter[tuple[str, str | None]]:
    with house.process.database.read() as connection:
        return Counter((row.state, row.reason) for row in connection.execute(select(mails.c.state, mails.c.reason)))


def take_many(house: House, count: int) -> list[UUID]:
    ids = [house.enqueue(to=f"anna+{number}@client.example") for number in range(count)]
    house.accept(*ids)
    return ids


@contextmanager
def draining(house: House, account: Account, drains: int) -> Iterator[None]:
    """Drains and releases that begin again and again, as nudges and chores make them."""
    stop = threading.Event()

    def again(work: Callable[[], object]) -> None:
        while not stop.is_set():
            work()
            time.sleep(0.01)

    work: list[Callable[[], object]] = [lambda: drain(house.process, account.id)] * drains
    work += [lambda: release(house.process), lambda: due(house.process)]
    threads = [threading.Thread(target=again, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one", "all"])
def test_nothing_is_claimed_once_a_pause_stands(house: House, smtp: ScriptedSMTP, all_of_them: bool) -> None:
    account = house.add_account(smtp)
    take_many(house, 3)
    token = uuid4()
    with house.process.database.write() as connection:
        [lane] = claim.enter(connection, [Enter(account.id, token, mails=1, lease_seconds=60)])
    assert lane is not None
    pause(house, None if all_of_them else account)
    with house.process.database.write() as connection:
        assert claim.more(connection, [More(account, token, 10)]) == [()]
        assert claim.enter(connection, [Enter(account.id, uuid4(), mails=1, lease_seconds=60)]) == [None]
        assert claim.has_work(connection, account.id) is False
        claim.leave(connection, [Leave(account.id, token)])
    assert release(house.process) == 3
    assert states(house) == {("held", "paused"): 3}
    resume(house, None if all_of_them else account)
    assert release(house.process) == 3
    house.drain(account)
    assert states(house) == {("sent", None): 3}
    assert len(smtp.accepted) == 3


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one", "all"])
def test_a_paused_account_in_trouble_is_still_probed(house: House, smtp: ScriptedSMTP, all_of_them: bool) -> None:
    account = house.add_account(smtp)
    house.take()
    pause(house, None if all_of_them else account)
    house.change("accounts", account.id, health=Health.FAILING, probe_at=account.created_at)
    house.drain(account)
    assert house.account(account).health is Health.OK
    assert (smtp.connections, smtp.accepted) == (1, [])


@pytest.mark.parametrize("all_of_them", [False, True], ids=["one", "all"])
def test_a_pause_in_the_midst_of_sending(house: House, all_of_them: bool) -> None:
    with ScriptedSMTP(on={".": Wait(0.005)}) as smtp:
        account = house.add_account(smtp)
        ids = take_many(house, 300)
        with draining(house, account, drains=3):
            until(lambda: len(smtp.accepted) >= 30)
            pause(house, None if all_of_them else account)
            until(lambda: set(states(house)) <= {("sent", None), ("held", "paused")})
            sent = len(smtp.accepted)
            assert states(house) == {("sent", None): sent, ("held", "paused"): 300 - sent}
            assert sent < 300
            time.sleep(0.1)
            assert len(smtp.accepted) == sent
            resume(house, None if all_of_them else account)
            until(lambda: states(house) == {("sent", None): 300})
        assert sorted(each.recipients[0] for each in smtp.accepted) == sorted(
            f"anna+{number}@client.example" for number in range(len(ids))
        )


def test_pauses_in_quick_turns_lose_and_double_nothing(house: House) -> None:
    with ScriptedSMTP(on={".": Wait(0.002)}) as smtp:
        account = house.add_account(smtp)
        with draining(house, account, drains=2):
            for number in range(30):
                take_many(house, 5)
                which = account if number % 2 else None
                pause(house, which)
                resume(house, which)
            until(lambda: states(house) == {("sent", None): 150})
        with house.process.database.read() as connection:
            assert set(connection.execute(select(mails.c.attempts)).scalars()) == {1}
        assert len(smtp.accepted) == 150


def test_a_pause_outlives_the_workers(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    pause(house, account)
    house.process.close()
    after = Process(house.process.settings, NotedNudges())
    drain(after, account.id)
    assert release(after) == 1
    drain(after, account.id)
    assert smtp.accepted == []
    with after.database.write() as connection:
        pauses.resume(connection, account.id)
    assert release(after) == 1
    drain(after, account.id)
    assert len(smtp.accepted) == 1
    after.close()


def test_a_blocked_account_is_paused_and_its_mail_held(house: House) -> None:
    with ScriptedSMTP(on={"MAIL": [Reply(BLOCK), Hang()]}) as smtp:
        account = house.add_account(smtp)
        ids = take_many(house, 3)
        with capture_logs() as logs:
            house.drain(account)
        blocked = house.account(account)
        assert blocked.paused_at is not None
        assert (blocked.paused_why, blocked.health) == (BLOCK, Health.OK)
        assert states(house) == {("held", "paused"): 3}
        assert {house.show(each)["copies_possible"] for each in ids} == {1}
        with house.process.database.read() as connection:
            assert set(connection.execute(select(mails.c.attempts)).scalars()) == {0}
        errors = [each for each in logs if each["log_level"] == "error"]
        assert [set(each) for each in errors] == [{"account", "event", "log_level"}]
        assert errors[0]["account"] == str(account.id)
        house.drain(account)
        release(house.process)
        assert smtp.connections == 1


def test_an_account_that_is_blocked_at_sign_in_is_paused(house: House) -> None:
    with ScriptedSMTP(on={"EHLO": Reply("550 5.7.501 Access denied, spam abuse detected")}) as smtp:
        account = house.add_account(smtp)
        house.take()
        house.drain(account)
        assert "5.7.501" in (house.account(account).paused_why or "")
        assert states(house) == {("held", "paused"): 1}
