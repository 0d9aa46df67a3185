"""A kept session that its server ends costs no mail a try, and its account no rest."""

import threading
import time
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from postroom.config.states import Auth, Health, Security
from postroom.config.tables import mails
from servers.certificates import Certificates
from servers.command import wait_until
from servers.postfix import PostfixServer
from servers.scripted_smtp import Drop, Fault, Hang, Reply, ScriptedSMTP
from worker.conftest import House


@pytest.mark.parametrize("waiting_together", [True, False])
@pytest.mark.parametrize(
    "end",
    [
        Reply("421 4.4.2 timeout exceeded, closing"),
        Reply("421 4.7.0 one mail a connection, try again in 10 minutes"),
        Drop(),
        Drop(reset=True),
    ],
)
def test_a_session_ended_in_the_instant_of_its_next_mail_is_replaced_at_once(
    house: House, end: Fault, waiting_together: bool
) -> None:
    with ScriptedSMTP(on={"MAIL": [None, end]}) as server:
        account = house.add_account(server)
        first = house.take()
        if not waiting_together:
            house.drain(account)
        second = house.take()
        house.drain(account)
        assert house.nudges.drains[-1] == account.id, "the lane goes on"
        house.drain(account)
        assert [house.state(mail) for mail in (first, second)] == [("sent", None)] * 2
        assert [each.connection for each in server.accepted] == [1, 2]
        assert house.account(account).health is Health.OK
        assert [attempt["outcome"] for attempt in house.show(second)["attempts_log"]][-1] == "accepted"
        assert house.show(second)["copies_possible"] == 1


@pytest.mark.parametrize("end", [Reply("421 4.3.2 shutting down"), Drop()])
def test_a_new_session_that_ends_likewise_is_no_reason_to_hurry(house: House, end: Fault) -> None:
    with ScriptedSMTP(on={"MAIL": end}) as server:
        account = house.add_account(server)
        mail = house.take()
        house.drain(account)
        house.drain(account)
        assert server.connections == 1
        assert house.state(mail)[0] in {"queued", "deferred"}
        assert not server.accepted


def test_what_a_session_said_of_the_mail_itself_is_not_forgotten(house: House) -> None:
    with ScriptedSMTP(on={"DATA": [None, Drop()]}) as server:
        account = house.add_account(server)
        house.take()
        second = house.take()
        house.drain(account)
        house.drain(account)
        assert house.state(second) == ("deferred", None)


def test_postfix_closes_an_idle_session_and_the_next_mail_does_not_notice(
    house: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    certificates = Certificates(tmp_path_factory.mktemp("ca"))
    house.process.settings = house.process.settings.model_copy(update={"smtp_ca_file": certificates.ca_file})
    with PostfixServer(certificates, smtpd_timeout="1s") as server:
        account = house.add_account(
            server,
            server.login,
            security=Security.STARTTLS,
            auth=Auth.PLAIN,
            login=server.login,
            password=server.password,
        )
        mails = []
        for _ in range(2):
            mails.append(house.take(from_=server.login))
            house.drain(account)
            until = time.monotonic() + 30
            while len(mails) == 1 and "timeout after" not in server.log():
                assert time.monotonic() < until
                time.sleep(0.05)
        for mail in mails:
            shown = house.show(mail)
            assert shown["state"] == "sent"
            assert [attempt["outcome"] for attempt in shown["attempts_log"]] == ["accepted"]
        server.wait_delivered(2)
        assert house.account(account).health is Health.OK


def test_envelopes_go_ahead_of_replies_where_the_account_allows_it(house: House) -> None:
    turns = []
    for pipelining in (True, False):
        with ScriptedSMTP() as server:
            account = house.add_account(server, f"{pipelining}@shop.example", connections=1, pipelining=pipelining)
            for _ in range(12):
                house.take(from_=account.address)
            house.drain(account)
            assert len(server.accepted) == 12
            turns.append(server.turns)
    assert turns[0] <= turns[1] / 2, turns


def commits(house: House) -> Counter[str]:
    """What is written until the lane is left: operation → how often it was asked for."""
    asked: Counter[str] = Counter()
    submit = house.process.writer.submit

    def counting(operation: Any, item: Any) -> Any:
        asked[operation.__name__] += 1
        return submit(operation, item)

    house.process.writer.submit = counting  # type: ignore[method-assign]
    return asked


def test_a_mail_for_a_session_that_lies_idle_is_claimed_and_marked_in_one_commit(
    house: House, smtp: ScriptedSMTP
) -> None:
    account = house.add_account(smtp, connections=1)
    asked = commits(house)
    turns = []
    for _ in range(2):
        mail = house.take()
        before = asked["turn"]
        house.drain(account)
        turns.append(asked["turn"] - before)
        assert house.state(mail) == ("sent", None)
    assert turns == [2, 1]
    assert [each.connection for each in smtp.accepted] == [1, 1]


def test_a_mail_marked_for_a_session_that_was_dead_is_not_uncertain(house: House) -> None:
    with ScriptedSMTP() as server:
        account = house.add_account(server)
        house.take()
        house.drain(account)
        assert len(server.accepted) == 1
    mail = house.take()
    house.drain(account)
    assert house.state(mail) == ("queued", None)
    assert claimed(house, mail) == ("queued", False)


def test_a_mail_is_not_marked_while_a_new_session_is_opened_for_it(house: House) -> None:
    with ScriptedSMTP() as server:
        account = house.add_account(server)
        house.take()
        house.drain(account)
        server.script({"connect": Hang()})
        server.disconnect_all()
        mail = house.take()
        drain = threading.Thread(target=house.drain, args=(account,))
        drain.start()
        wait_until(lambda: server.connections == 2 and claimed(house, mail) == ("sending", False))
    drain.join(30)
    assert house.state(mail) == ("queued", None)


def claimed(house: House, mail_id: UUID) -> tuple[str, bool]:
    """A mail's state, and whether it is marked."""
    with house.process.database.read() as connection:
        row = connection.execute(select(mails.c.state, mails.c.marked_at).where(mails.c.id == mail_id)).one()
    return row.state, row.marked_at is not None


def test_a_mail_marked_for_a_session_that_was_dead_goes_over_a_new_one(house: House) -> None:
    with ScriptedSMTP() as server:
        account = house.add_account(server)
        house.take()
        house.drain(account)
        server.disconnect_all()
        second = house.take()
        house.drain(account)
        assert house.state(second) == ("sent", None)
        assert [each.connection for each in server.accepted] == [1, 2]
