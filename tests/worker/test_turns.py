"""Turns: owners who share a lane take turns; nobody's mail waits behind all that another one has put in."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, update

from postroom.config.accounts import Account
from postroom.config.database import now
from postroom.config.states import Health
from postroom.config.tables import mails, senders, turns
from postroom.worker import claim
from postroom.worker.chores.due import due
from postroom.worker.chores.release import release
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House

KEY = "shop@shop.example"


@pytest.fixture
def lane(house: House, smtp: ScriptedSMTP) -> Account:
    """A shared account that two owners may use."""
    with house.process.database.write() as connection:
        for owner in ("anna", "boris"):
            row = {"id": uuid4(), "owner": owner, "address": KEY, "address_key": KEY, "name": ""}
            connection.execute(insert(senders).values(**row, created_at=now(), confirmed_at=now()))
    return house.add_account(smtp)


def hand_over(house: House, owner: str | None, count: int, **fields: object) -> list[UUID]:
    ids = [house.enqueue(owner=owner, **fields) for _ in range(count)]
    house.accept(*ids)
    return ids


def claimed(house: House, account: Account, most: int = 100) -> list[UUID]:
    """The next mails, in the order in which they leave."""
    lane = house.process.writer.do(claim.enter, claim.Enter(account.id, uuid4(), most, 60))
    return [mail.id for mail in lane.mails] if lane else []


def owners(house: House, ids: list[UUID]) -> list[str | None]:
    with house.process.database.read() as connection:
        found = {row.id: row.owner for row in connection.execute(select(mails.c.id, mails.c.owner))}
    return [found[each] for each in ids]


def test_one_owners_many_keep_no_other_owners_mail_waiting(house: House, lane: Account) -> None:
    many = hand_over(house, "anna", 100, priority="bulk") + hand_over(house, "anna", 100, priority="bulk")
    assert claimed(house, lane, 5) == many[:5]
    few = hand_over(house, "boris", 3, priority="bulk")
    next_ones = claimed(house, lane, 8)
    assert [each for each in next_ones if each in few] == few
    assert len(set(next_ones) & set(many)) == 5


def test_nobody_gets_more_for_having_waited_or_for_coming_late(house: House, lane: Account) -> None:
    hand_over(house, "anna", 30)
    assert owners(house, claimed(house, lane, 20)) == ["anna"] * 20
    hand_over(house, "boris", 30)
    order = owners(house, claimed(house, lane, 20))
    assert order.count("anna") == order.count("boris") == 10
    hand_over(house, "anna", 30)
    hand_over(house, None, 30)
    order = owners(house, claimed(house, lane, 9))
    assert max(order.count(owner) for owner in ("anna", "boris", None)) <= 4
    assert set(order) == {"anna", "boris", None}


def test_one_owners_mail_leaves_in_the_order_it_came(house: House, lane: Account) -> None:
    ids = [house.enqueue() for _ in range(6)]
    house.accept(*reversed(ids))
    later = hand_over(house, None, 2)
    assert claimed(house, lane) == [*ids, *later]


def test_priorities_go_before_turns(house: House, lane: Account) -> None:
    hand_over(house, "anna", 3)
    urgent = hand_over(house, "anna", 2, priority="high")
    bulk = hand_over(house, "boris", 1, priority="bulk")
    order = claimed(house, lane)
    assert order[:2] == urgent
    assert order[-1:] == bulk


def test_what_was_scheduled_or_deferred_is_not_ahead_of_all_when_its_time_comes(house: House, lane: Account) -> None:
    scheduled = hand_over(house, "anna", 50, send_at=datetime.now(UTC) + timedelta(hours=1))
    hand_over(house, "boris", 30)
    assert len(claimed(house, lane, 30)) == 30
    with house.process.database.write() as connection:
        connection.execute(update(mails).where(mails.c.id.in_(scheduled)).values(due_at=now(-1), send_at=now(-1)))
    due(house.process)
    hand_over(house, "boris", 5)
    order = owners(house, claimed(house, lane, 12))
    assert order.count("boris") == 5


def test_released_mail_gets_turns_oldest_first(house: House, lane: Account) -> None:
    house.change("accounts", lane.id, health=Health.SUSPENDED)
    ids = hand_over(house, "anna", 20)
    for age, mail_id in enumerate(reversed(ids)):
        house.change("mails", mail_id, created_at=datetime.now(UTC) - timedelta(hours=20 - age))
    house.change("accounts", lane.id, health=Health.OK)
    release(house.process)
    few = hand_over(house, "boris", 2)
    order = claimed(house, lane)
    assert [each for each in order if each in ids] == ids[::-1]
    assert set(order[:5]) > set(few)


def test_a_site_with_one_lane_and_no_owners_pays_one_row(house: House, lane: Account) -> None:
    hand_over(house, None, 3)
    hand_over(house, None, 3)
    with house.process.database.read() as connection:
        [row] = connection.execute(select(turns)).all()
    assert (row.owner, row.turn) == ("", 6)
