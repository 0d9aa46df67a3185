"""The fence: a worker whose claim was taken away sends nothing more, and a late reply still settles its mail."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import OperationalError

from postroom.config.accounts import Account, replace_unproved
from postroom.config.states import MailState, Outcome, RecipientState, Scope
from postroom.config.tables import mails, slots
from postroom.producer.errors import Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import claim, ledger
from postroom.worker import drain as drain_module
from postroom.worker.chores.due import due
from postroom.worker.chores.leases import MOST_CRASHES, leases
from postroom.worker.heartbeat import Heartbeat
from postroom.worker.interventions import Resolution, cancel, resolve
from postroom.worker.ledger import Mark, RecipientRecord, Record, Turn, TurnDone
from postroom.worker.retry import Next
from servers.scripted_smtp import ScriptedSMTP, Wait
from worker.conftest import House

PAST = datetime.now(UTC) - timedelta(hours=1)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.005)


def enter(house: House, account: Account, most: int = 10) -> tuple[UUID, tuple[claim.ClaimedMail, ...]]:
    token = uuid4()
    lane = house.process.writer.do(claim.enter, claim.Enter(account.id, token, most, 60))
    return token, lane.mails if lane else ()


@pytest.mark.parametrize("marked", [False, True])
def test_a_slot_whose_commit_had_no_answer_is_given_when_it_is_asked_for_again(
    house: House, smtp: ScriptedSMTP, marked: bool
) -> None:
    account = house.add_account(smtp, connections=1)
    mail_id = house.take()
    asked = claim.Enter(account.id, uuid4(), 10, 60, marked)
    for _ in range(2):
        lane = house.process.writer.do(claim.enter, asked)
        assert lane is not None
        assert [mail.id for mail in lane.mails] == [mail_id]
        assert (lane.attempt_id is not None) == marked


def test_a_claim_asked_for_again_after_its_lease_is_another_attempt(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    asked = claim.Enter(account.id, uuid4(), 1, 60, marked=True)
    first = house.process.writer.do(claim.enter, asked)
    assert lose_leases(house) == 1
    house.take()
    second = house.process.writer.do(claim.enter, asked)
    assert first is not None
    assert second is not None
    assert first.mails[0].id != second.mails[0].id
    assert first.attempt_id != second.attempt_id
    assert lose_leases(house) == 1


def test_a_claim_asked_for_again_whose_account_was_deactivated_leaves_nothing(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    asked = claim.Enter(account.id, uuid4(), 1, 60, marked=True)
    assert house.process.writer.do(claim.enter, asked) is not None
    house.change("accounts", account.id, active=False)
    assert house.process.writer.do(claim.enter, asked) is None
    assert house.state(mail_id) == ("queued", None)
    with house.process.database.read() as connection:
        assert not connection.execute(select(slots)).all()


def turn(house: House, record: Record | None = None, mark: Mark | None = None) -> TurnDone:
    return house.process.writer.do(ledger.turn, Turn(record, mark))


def accepted(account: Account, mail_id: UUID, token: UUID, attempt_id: UUID) -> Record:
    return Record(
        mail_id=mail_id,
        claim=token,
        attempt_id=attempt_id,
        account_id=account.id,
        duration_seconds=0.1,
        outcome=Outcome.ACCEPTED,
        scope=Scope.MAIL,
        rule="accepted",
        reply="250 2.0.0 taken",
        enhanced_status_code="2.0.0",
        recipients=(RecipientRecord(0, RecipientState.ACCEPTED, "250 2.0.0 taken", "2.0.0"),),
        next=Next(MailState.SENT),
    )


def lose_leases(house: House) -> int:
    """What a worker lost for more than a lease leaves behind."""
    with house.process.database.write() as connection:
        connection.execute(update(slots).values(lease_until=PAST))
    return leases(house.process)


def test_a_mail_cancelled_while_its_worker_connects_is_not_sent(house: House) -> None:
    with ScriptedSMTP(on={"EHLO": Wait(0.5)}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        drained = threading.Thread(target=house.drain, args=[account])
        drained.start()
        until(lambda: any(command.startswith("EHLO") for command in server.commands))
        with house.process.database.write() as connection:
            cancel(connection, mail_id)
        drained.join(10)
        assert house.state(mail_id) == ("cancelled", None)
        assert server.accepted == []


def test_a_lost_lease_keeps_the_dot_from_going(house: House) -> None:
    with ScriptedSMTP(on={"EHLO": [Wait(0.5)]}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        drained = threading.Thread(target=house.drain, args=[account])
        drained.start()
        until(lambda: any(command.startswith("EHLO") for command in server.commands))
        assert lose_leases(house) == 1
        drained.join(10)
        assert server.accepted == []
        assert house.state(mail_id) == ("queued", None)
        house.drain(account)
        assert house.state(mail_id) == ("sent", None)
        assert len(server.accepted) == 1


def test_a_marked_mail_of_a_lost_worker_is_uncertain(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    token, _ = enter(house, account)
    assert turn(house, mark=Mark(mail_id, token, uuid7())).marked
    assert lose_leases(house) == 1
    shown = house.show(mail_id)
    assert shown["state"] == "uncertain"
    assert [attempt["outcome"] for attempt in shown["attempts_log"]] == ["uncertain"]
    assert lose_leases(house) == 0, "harmless when run twice"


def test_a_late_reply_settles_an_uncertain_mail(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id, attempt_id = house.take(), uuid7()
    token, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, token, attempt_id))
    lose_leases(house)
    assert turn(house, record=accepted(account, mail_id, token, attempt_id)).settled
    shown = house.show(mail_id)
    assert (shown["state"], shown["copies_possible"]) == ("sent", 1)
    assert [(each["outcome"], each["doubled"]) for each in shown["attempts_log"]] == [("accepted", False)]


def test_a_late_reply_after_the_resend_is_noted_as_doubled(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id, first, second = house.take(), uuid7(), uuid7()
    lost, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, lost, first))
    lose_leases(house)
    house.change("mails", mail_id, state="queued", ready=True, copies_possible=2)
    token, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, token, second))
    turn(house, record=accepted(account, mail_id, token, second))
    assert not turn(house, record=accepted(account, mail_id, lost, first)).settled
    shown = house.show(mail_id)
    assert (shown["state"], shown["copies_possible"]) == ("sent", 2)
    assert sorted(each["doubled"] for each in shown["attempts_log"]) == [False, True]


def test_a_claim_that_was_taken_away_gets_no_mark(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    lost, _ = enter(house, account)
    lose_leases(house)
    assert not turn(house, mark=Mark(mail_id, lost, uuid7())).marked
    token, claimed = enter(house, account)
    assert [mail.id for mail in claimed] == [mail_id]
    assert not turn(house, mark=Mark(mail_id, lost, uuid7())).marked
    assert turn(house, mark=Mark(mail_id, token, uuid7())).marked


def test_the_mail_in_hand_at_five_crashes_waits_for_a_person_and_its_neighbours_go(
    house: House, smtp: ScriptedSMTP
) -> None:
    account = house.add_account(smtp)
    poison, neighbour = house.take(priority="high"), house.take()
    for _ in range(MOST_CRASHES):
        _, claimed = enter(house, account)
        assert [mail.id for mail in claimed] == [poison, neighbour]
        lose_leases(house)
    assert house.state(poison) == ("held", "poison")
    house.drain(account)
    assert house.state(neighbour) == ("sent", None)


def test_a_renewed_lease_is_not_lost(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    token, _ = enter(house, account)
    with house.process.database.write() as connection:
        connection.execute(update(slots).values(lease_until=PAST))
        (standing,) = claim.renew(connection, [claim.Renew(frozenset({token}), 60)])
    assert standing == {token}
    assert leases(house.process) == 0
    assert house.state(mail_id) == ("sending", None)


def test_no_more_drains_than_connections(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, connections=2)
    for _ in range(4):
        house.take()
    first, _ = enter(house, account, most=1)
    enter(house, account, most=1)
    assert enter(house, account, most=1)[1] == ()
    house.process.writer.do(claim.leave, claim.Leave(account.id, first))
    assert len(enter(house, account, most=1)[1]) == 1


def test_a_deactivated_account_is_in_no_claim(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    house.take()
    token, _ = enter(house, account, most=1)
    with house.process.database.write() as connection:
        replace_unproved(connection, account, replace(account, active=False))
    more = house.process.writer.do(claim.more, claim.More(account, token, 10))
    assert more == ()
    assert enter(house, account)[1] == ()


def test_leaving_gives_unsent_mail_back(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    ids = [house.take() for _ in range(3)]
    token, _ = enter(house, account)
    turn(house, mark=Mark(ids[0], token, uuid7()))
    house.process.writer.do(claim.leave, claim.Leave(account.id, token))
    assert [house.state(each)[0] for each in ids] == ["sending", "queued", "queued"]
    with house.process.database.read() as connection:
        assert connection.execute(select(slots)).all() == []
        ready = connection.execute(select(mails.c.id).where(mails.c.ready)).scalars().all()
        assert set(ready) == set(ids[1:])


def test_a_marked_mail_cannot_be_cancelled(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    token, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, token, uuid7()))
    with house.process.database.write() as connection, pytest.raises(Refused, match="sending"):
        cancel(connection, mail_id)


def test_a_record_written_twice_counts_once(house: House, smtp: ScriptedSMTP) -> None:
    """A commit whose answer was lost is tried again by the writer."""
    account = house.add_account(smtp)
    mail_id, attempt_id = house.take(), uuid7()
    token, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, token, attempt_id))
    record = accepted(account, mail_id, token, attempt_id)
    assert turn(house, record=record).settled
    assert not turn(house, record=record).settled
    assert [each["doubled"] for each in house.show(mail_id)["attempts_log"]] == [False]


def test_a_late_reply_leaves_the_resend_that_is_on_its_way_alone(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id, first, second = house.take(), uuid7(), uuid7()
    lost, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, lost, first))
    lose_leases(house)
    house.change("mails", mail_id, state="queued", ready=True, copies_possible=2)
    token, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, token, second))
    assert not turn(house, record=accepted(account, mail_id, lost, first)).settled
    assert house.state(mail_id) == ("sending", None)
    assert turn(house, record=accepted(account, mail_id, token, second)).settled
    assert sorted(each["doubled"] for each in house.show(mail_id)["attempts_log"]) == [False, True]


def test_no_dot_goes_while_its_mark_cannot_be_written(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "_MARK_WAIT_SECONDS", 0.2)
    with ScriptedSMTP(on={"EHLO": [Wait(0.3)]}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        drained = threading.Thread(target=house.drain, args=[account])
        drained.start()
        until(lambda: any(command.startswith("EHLO") for command in server.commands))
        with house.process.database.write() as connection:
            connection.execute(update(mails).where(mails.c.id == mail_id).values(tags=[]))  # its row is held
            until(lambda: any(command.startswith("DATA") for command in server.commands))
            time.sleep(0.5)  # longer than the mark is waited for
        drained.join(10)
        assert server.accepted == []
        assert house.state(mail_id)[0] in {"deferred", "queued"}


def test_the_heartbeat_renews_and_tells_what_was_lost(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    token, _ = enter(house, account)
    beats = Heartbeat(house.process.writer, lease_seconds=0.4)
    lost = beats.hold(token)
    with house.process.database.write() as connection:
        connection.execute(update(slots).values(lease_until=PAST))

    def renewed() -> bool:
        with house.process.database.read() as connection:
            return bool(connection.execute(select(slots.c.lease_until)).scalar_one() > PAST)

    until(renewed)
    assert not lost.is_set()
    house.process.writer.do(claim.leave, claim.Leave(account.id, token))
    until(lost.is_set)
    beats.close()


def test_a_drain_claims_no_more_once_its_account_was_edited(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.take()
    house.take()
    token, _ = enter(house, account, most=1)
    house.change("accounts", account.id, version=account.version + 1)
    assert house.process.writer.do(claim.more, claim.More(account, token, 10)) == ()


def test_a_mail_marked_when_its_drain_breaks_off_before_the_dot_is_not_uncertain(
    house: House, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is away when the letter of the mail after it is to be read."""
    account = house.add_account(smtp)
    ids = [house.take() for _ in range(10)]
    monkeypatch.setattr(claim, "_LETTERS_AT_ONCE_BYTES", 0)
    usual = claim.sealed_letter
    read: list[UUID] = []

    def breaks_off(connection: Connection, mail_id: UUID) -> bytes | None:
        if len(read) > len(smtp.accepted):  # the one before is in hand, and its mark is asked for
            raise OperationalError("SELECT", {}, Exception("the database is away"))
        read.append(mail_id)
        return usual(connection, mail_id)

    monkeypatch.setattr(claim, "sealed_letter", breaks_off)
    with pytest.raises(OperationalError):
        house.drain(account)
    assert len(smtp.accepted) == len(read) - 1
    assert house.state(read[-1]) == ("queued", None)
    monkeypatch.undo()
    house.drain(account)
    for each in ids:
        shown = house.show(each)
        assert (shown["state"], shown["copies_possible"]) == ("sent", 1)
        assert [attempt["outcome"] for attempt in shown["attempts_log"]] == ["accepted"]
    assert len(smtp.accepted) == len(ids)


@pytest.mark.parametrize(("resolution", "state"), [("delivered", "sent"), ("drop", "cancelled")])
def test_a_late_reply_moves_no_mail_that_has_ended(
    house: House, smtp: ScriptedSMTP, resolution: Resolution, state: str
) -> None:
    account = house.add_account(smtp)
    mail_id, attempt_id = house.take(), uuid7()
    token, _ = enter(house, account)
    turn(house, mark=Mark(mail_id, token, attempt_id))
    lose_leases(house)
    with house.process.database.write() as connection:
        resolve(connection, mail_id, resolution)
    refused = replace(
        accepted(account, mail_id, token, attempt_id), outcome=Outcome.FAILED, next=Next(MailState.FAILED)
    )
    assert not turn(house, record=refused).settled
    shown = house.show(mail_id)
    assert shown["state"] == state
    assert [each["outcome"] for each in shown["attempts_log"]] == ["failed"], "the reply is noted all the same"


def test_what_is_lost_a_second_time_waits_for_a_person(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    for state in (("uncertain", None), ("held", "uncertain")):
        token, _ = enter(house, account)
        assert turn(house, mark=Mark(mail_id, token, uuid7())).marked
        lose_leases(house)
        assert house.state(mail_id) == state
        if state[0] == "uncertain":
            house.change("mails", mail_id, due_at=PAST)
        assert due(house.process) == (state[0] == "uncertain")
    assert house.show(mail_id)["copies_possible"] == 2
    assert enter(house, account)[1] == ()
