"""Which mails the chore `release` chooses for anew: those that it may help, and no others."""

from uuid import uuid4

from sqlalchemy import insert

from postroom.config.database import now
from postroom.config.states import Health
from postroom.config.tables import senders
from postroom.worker.chores.release import release
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House


def test_one_owners_confirmed_sender_releases_no_other_owners_mail(house: House, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    waits, may_go = (house.take(owner=owner) for owner in ("crm-1", "crm-2"))
    with house.process.database.write() as connection:
        key = "shop@shop.example"
        row = {"id": uuid4(), "owner": "crm-2", "address": key, "address_key": key, "name": ""}
        connection.execute(insert(senders).values(**row, created_at=now(), confirmed_at=now()))
    assert release(house.process) == 1
    assert house.state(may_go) == ("queued", None)
    assert house.state(waits) == ("held", "sender_not_confirmed")


def test_a_failing_lane_is_left_alone_while_only_other_addresses_are_well(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.add_account(smtp, "other@shop.example")
    house.take()
    house.take(from_="other@shop.example")
    house.change("accounts", account.id, health=Health.FAILING)
    assert release(house.process) == 0
    house.add_account(smtp, login="another")
    assert release(house.process) == 1
