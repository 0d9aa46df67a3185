"""A mail whose account cannot be reached says what it waits for."""

from faults.conftest import Postroom
from postroom.config.states import Health
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House


def test_a_mail_behind_a_failing_account_says_so(house: House, smtp: ScriptedSMTP, postroom: Postroom) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    assert "waits for" not in postroom("mail", "show", str(mail_id)).out
    house.change("accounts", account.id, health=Health.FAILING, health_detail="connect: refused")
    told = postroom("mail", "show", str(mail_id))
    assert told.code == 0, told.err
    assert "waits for" in told.out
    assert "its account, which is failing: connect: refused" in told.out
