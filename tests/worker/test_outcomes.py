"""What servers answer, and what becomes of the mail, its recipients and its account."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from postroom.config.states import Auth, Health
from postroom.config.tables import mails
from postroom.producer.errors import Refused
from postroom.worker import drain as drain_module
from postroom.worker.chores.due import due
from postroom.worker.chores.expire import expire
from postroom.worker.chores.probe import probe
from postroom.worker.chores.release import release
from postroom.worker.interventions import Resolution, resend, resolve
from postroom.worker.letter.compose import compose
from postroom.worker.letter.content import Letter
from servers.scripted_smtp import Drop, Lost, Reply, ScriptedSMTP
from worker.conftest import House

PAST = datetime.now(UTC) - timedelta(hours=1)


def make_due(house: House) -> None:
    """Move every waiting mail's time to the past, then let the chore find it."""
    with house.process.database.write() as connection:
        connection.execute(update(mails).where(mails.c.due_at.is_not(None)).values(due_at=PAST))
    due(house.process)


def test_a_refusal_for_now_is_deferred_and_tried_again(house: House) -> None:
    with ScriptedSMTP(on={".": [Reply("451 4.3.0 try later")]}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        house.drain(account)
        shown = house.show(mail_id)
        assert shown["state"] == "deferred"
        wait = datetime.fromisoformat(shown["due_at"]) - datetime.now(UTC)
        assert timedelta(seconds=45) < wait < timedelta(seconds=75)
        house.drain(account)
        assert len(server.accepted) == 0

        make_due(house)
        house.drain(account)
        shown = house.show(mail_id)
        assert shown["state"] == "sent"
        assert [attempt["outcome"] for attempt in shown["attempts_log"]] == ["deferred", "accepted"]
        assert len(server.accepted) == 1


def test_a_wait_that_the_reply_names_is_kept_to(house: House) -> None:
    with ScriptedSMTP(on={".": [Reply("450 4.7.1 greylisted, try again in 900 seconds")]}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        house.drain(account)
        wait = datetime.fromisoformat(house.show(mail_id)["due_at"]) - datetime.now(UTC)
        assert timedelta(seconds=880) < wait < timedelta(seconds=901)


def test_a_refusal_for_good_fails_with_the_servers_words(house: House) -> None:
    with ScriptedSMTP(on={".": Reply("554 5.6.0 not this letter")}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        house.drain(account)
        shown = house.show(mail_id)
        assert shown["state"] == "failed"
        (recipient,) = shown["recipients"]
        assert (recipient["state"], recipient["enhanced_status_code"]) == ("refused", "5.6.0")
        assert "not this letter" in shown["attempts_log"][0]["reply"]


def test_each_recipient_has_an_outcome_of_its_own(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    recipients = ["good@client.example", "rcpt-550-5.1.1@client.example", "rcpt-450-4.2.1-once@client.example"]
    mail_id = house.take(to=recipients)
    house.drain(account)
    shown = house.show(mail_id)
    assert shown["state"] == "deferred"
    assert [each["state"] for each in shown["recipients"]] == ["accepted", "refused", "pending"]

    make_due(house)
    house.drain(account)
    shown = house.show(mail_id)
    assert shown["state"] == "sent"
    assert [each["state"] for each in shown["recipients"]] == ["accepted", "refused", "accepted"]
    assert [each.recipients for each in smtp.accepted] == [(recipients[0],), (recipients[2],)]


def test_the_only_recipient_refused_is_a_failed_mail(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take(to="rcpt-550-5.1.1@client.example")
    house.drain(account)
    assert house.state(mail_id) == ("failed", None)
    assert not smtp.accepted


def test_a_break_before_the_dot_is_tried_again_without_an_attempt_lost(house: House) -> None:
    with ScriptedSMTP(on={"DATA": [Drop()]}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        house.drain(account)
        assert house.state(mail_id) == ("deferred", None)
        make_due(house)
        house.drain(account)
        shown = house.show(mail_id)
        assert (shown["state"], shown["copies_possible"]) == ("sent", 1)
        assert len(server.accepted) == 1


@pytest.mark.parametrize(("priority", "seconds"), [("high", 60), ("normal", 900)])
def test_a_break_after_the_dot_is_uncertain_and_sent_once_more(house: House, priority: str, seconds: int) -> None:
    with ScriptedSMTP(on={".": [Lost()]}) as server:
        account = house.add_account(server)
        mail_id = house.take(priority=priority)
        house.drain(account)
        shown = house.show(mail_id)
        assert (shown["state"], shown["copies_possible"]) == ("uncertain", 1)
        wait = datetime.fromisoformat(shown["due_at"]) - datetime.now(UTC)
        assert timedelta(seconds=seconds - 5) < wait <= timedelta(seconds=seconds)

        make_due(house)
        house.drain(account)
        shown = house.show(mail_id)
        assert (shown["state"], shown["copies_possible"]) == ("sent", 2)
        first, second = server.accepted
        assert first.content == second.content


def test_the_second_uncertain_break_waits_for_a_person(house: House) -> None:
    with ScriptedSMTP(on={".": Lost()}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        house.drain(account)
        make_due(house)
        house.drain(account)
        assert house.state(mail_id) == ("held", "uncertain")
        make_due(house)
        release(house.process)
        house.drain(account)
        assert len(server.accepted) == 2


def test_on_uncertain_hold_never_sends_a_second_copy(house: House) -> None:
    with ScriptedSMTP(on={".": Lost()}) as server:
        account = house.add_account(server)
        mail_id = house.take(priority="bulk")
        house.drain(account)
        assert house.state(mail_id) == ("held", "uncertain")


def test_a_dead_server_costs_no_mail_an_attempt(house: House) -> None:
    with ScriptedSMTP() as server:
        account = house.add_account(server)
    mail_id = house.take()
    house.drain(account)
    shown = house.show(mail_id)
    assert (shown["state"], shown["attempts_log"]) == ("queued", [])
    failing = house.account(account)
    assert failing.health is Health.FAILING
    assert "connect" in (failing.health_detail or "")
    house.drain(account)
    assert house.account(account).probes == 1, "the lane pauses until its probe is due"


def test_a_server_that_is_back_gets_its_mail(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    house.change("accounts", account.id, health=Health.FAILING, probe_at=PAST, probes=3)
    mail_id = house.take()
    assert probe(house.process) == 1
    assert house.nudges.drains[-1] == account.id
    house.drain(account)
    after = house.account(account)
    assert (after.health, after.health_detail, after.probe_at, after.probes) == (Health.OK, None, None, 0)
    assert house.state(mail_id) == ("sent", None)


def test_a_refused_sign_in_holds_the_lane_after_one_try(house: House) -> None:
    with ScriptedSMTP(login="shop", password="new") as server:
        account = house.add_account(server, auth=Auth.PLAIN, login="shop", password="old", allow_cleartext=True)
        ids = [house.take() for _ in range(3)]
        house.drain(account)
        assert {house.state(each) for each in ids} == {("held", "account_suspended")}
        assert house.account(account).health is Health.SUSPENDED
        assert sum(command.startswith("AUTH") for command in server.commands) == 1
        later = house.take()
        assert house.state(later) == ("held", "account_suspended")


def test_mail_of_a_failing_account_goes_over_the_next_one(house: House, smtp: ScriptedSMTP) -> None:
    with ScriptedSMTP() as dead:
        first = house.add_account(dead, priority=1)
    second = house.add_account(smtp, priority=2)
    mail_id = house.take()
    assert house.show(mail_id)["account_id"] == str(first.id)
    house.drain(first)
    assert second.id in house.nudges.drains
    house.drain(second)
    assert house.state(mail_id) == ("sent", None)


def test_a_from_that_one_account_may_not_use_goes_over_the_next_or_is_held(house: House) -> None:
    refusal = Reply("553 5.7.1 <shop@shop.example>: Sender address rejected: not owned by user shop")
    with ScriptedSMTP(on={"MAIL": refusal}) as strict:
        first = house.add_account(strict, priority=1)
        mail_id = house.take()
        house.drain(first)
        assert house.state(mail_id) == ("held", "sender_refused")
        with ScriptedSMTP() as kind:
            second = house.add_account(kind, priority=2)
            other = house.take()
            house.drain(first)
            assert house.show(other)["account_id"] == str(second.id)
            house.drain(second)
            assert house.state(other) == ("sent", None)


def test_a_letter_too_large_for_the_server_fails_without_being_sent(house: House) -> None:
    with ScriptedSMTP(size_bytes=2000) as server:
        account = house.add_account(server)
        mail_id = house.take(text="x" * 5000)
        house.drain(account)
        assert house.state(mail_id) == ("failed", None)
        assert "SIZE" in house.show(mail_id)["attempts_log"][0]["reply"]
        assert not any(command.startswith("MAIL") for command in server.commands)


def test_too_many_recipients_leave_in_several_transactions(house: House) -> None:
    answers = [None, None, Reply("452 4.5.3 too many recipients")]
    with ScriptedSMTP(on={"RCPT": answers}) as server:
        account = house.add_account(server)
        mail_id = house.take(to=[f"client{number}@client.example" for number in range(3)])
        house.drain(account)
        assert house.nudges.drains[-1] == account.id, "the rest goes at once"
        house.drain(account)
        assert house.state(mail_id) == ("sent", None)
        assert [len(each.recipients) for each in server.accepted] == [2, 1]


def test_a_mail_whose_from_was_refused_is_sent_again_once_a_person_says_so(house: House) -> None:
    with ScriptedSMTP(on={"MAIL": [Reply("553 5.7.1 Sender address rejected: not owned by user")]}) as server:
        account = house.add_account(server)
        mail_id = house.take()
        house.drain(account)
        assert house.state(mail_id) == ("held", "sender_refused")
        release(house.process)
        assert house.state(mail_id) == ("held", "sender_refused"), "it waits for a person"
        with house.process.database.write() as connection:
            assert resend(connection, mail_id) == {account.id}
        house.drain(account)
        assert house.state(mail_id) == ("sent", None)


def test_a_failed_mail_sent_again_goes_to_refused_recipients_only(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take(to="rcpt-550-5.1.1-once@client.example")
    house.drain(account)
    assert house.state(mail_id) == ("failed", None)
    with house.process.database.write() as connection:
        resend(connection, mail_id)
    house.drain(account)
    assert house.state(mail_id) == ("sent", None)
    with house.process.database.write() as connection, pytest.raises(Refused, match="sent"):
        resend(connection, mail_id)


@pytest.mark.parametrize(("resolution", "state", "copies"), [("delivered", "sent", 1), ("drop", "cancelled", 1)])
def test_a_person_says_what_became_of_an_uncertain_mail(
    house: House, resolution: Resolution, state: str, copies: int
) -> None:
    with ScriptedSMTP(on={".": Lost()}) as server:
        account = house.add_account(server)
        mail_id = house.take(priority="bulk")
        house.drain(account)
        with house.process.database.write() as connection:
            resolve(connection, mail_id, resolution)
        shown = house.show(mail_id)
        assert (shown["state"], shown["copies_possible"]) == (state, copies)
        make_due(house)
        house.drain(account)
        assert len(server.accepted) == 1


def test_an_uncertain_mail_that_a_person_sends_again_says_two_copies(house: House) -> None:
    with ScriptedSMTP(on={".": [Lost()]}) as server:
        account = house.add_account(server)
        mail_id = house.take(priority="bulk")
        house.drain(account)
        with house.process.database.write() as connection:
            resolve(connection, mail_id, "resend")
        house.drain(account)
        shown = house.show(mail_id)
        assert (shown["state"], shown["copies_possible"]) == ("sent", 2)


def test_an_account_whose_address_was_changed_sends_no_waiting_mail_of_the_old_one(
    house: House, smtp: ScriptedSMTP
) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    house.change("accounts", account.id, address="new@shop.example", address_key="new@shop.example")
    house.drain(account)
    assert smtp.accepted == []
    release(house.process)
    assert house.state(mail_id) == ("held", "no_account")


def test_what_could_not_leave_in_time_expires(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    late, held = house.take(), house.take(from_="nobody@shop.example")
    for mail_id in (late, held):
        house.change("mails", mail_id, expires_at=PAST)
    house.drain(account)
    assert expire(house.process) == 1
    assert house.state(late) == ("expired", None)
    assert house.state(held) == ("held", "no_account"), "its lifetime does not run while it is held"
    assert smtp.accepted == []


def test_held_time_is_added_to_the_lifetime(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = house.take()
    house.change("mails", mail_id, held_at=PAST, expires_at=PAST + timedelta(minutes=5))
    account = house.add_account(smtp)
    release(house.process)
    house.drain(account)
    assert house.state(mail_id) == ("sent", None)


@pytest.mark.parametrize("cause", ["account gone", "over its time"])
def test_an_uncertain_mail_that_cannot_go_over_its_account_in_time_is_held(
    house: House, smtp: ScriptedSMTP, cause: str
) -> None:
    with ScriptedSMTP(on={".": [Lost()]}) as server:
        account = house.add_account(server)
        house.add_account(smtp, priority=9)
        mail_id = house.take()
        house.drain(account)
        if cause == "account gone":
            house.change("accounts", account.id, active=False)
        else:
            house.change("mails", mail_id, expires_at=PAST)
        make_due(house)
        assert house.state(mail_id) == ("held", "uncertain")
        assert house.show(mail_id)["copies_possible"] == 1


def test_a_letter_that_breaks_composing_is_held_and_the_lane_goes_on(
    house: House, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.add_account(smtp)
    bad, good = house.take(subject="bad"), house.take()

    def breaks(letter: Letter, *, eight_bit: bool) -> bytes:
        if letter.subject == "bad":
            raise KeyError("anything")
        return compose(letter, eight_bit=eight_bit)

    monkeypatch.setattr(drain_module, "compose", breaks)
    house.drain(account)
    house.drain(account)
    assert house.state(bad) == ("held", "poison")
    assert house.state(good) == ("sent", None)


def test_mail_given_back_to_a_suspended_lane_is_chosen_anew(house: House, smtp: ScriptedSMTP) -> None:
    with ScriptedSMTP() as other:
        sick = house.add_account(smtp, priority=1)
        healthy = house.add_account(other, priority=2)
        mail_id = house.take()
        house.change("accounts", sick.id, health=Health.SUSPENDED)
        release(house.process)
        house.drain(healthy)
        assert house.state(mail_id) == ("sent", None)


def test_an_account_given_to_somebody_else_sends_nothing_that_waited_for_it(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp)
    mail_id = house.take()
    house.change("accounts", account.id, owner="u9")
    house.drain(account)
    assert smtp.accepted == []
    release(house.process)
    assert house.state(mail_id) == ("held", "no_account")


def test_mail_that_cannot_be_released_does_not_stand_in_the_way(house: House, smtp: ScriptedSMTP) -> None:
    house.add_account(smtp)
    own = house.add_account(smtp, owner="u1")
    house.change("accounts", own.id, health=Health.SUSPENDED)
    stuck = house.take(owner="u1")
    assert house.state(stuck) == ("held", "account_suspended")
    assert release(house.process) == 0, "it is not even looked at"


def test_a_lane_whose_nudge_breaks_is_given_back(
    house: House, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = house.add_account(smtp)
    for _ in range(3):
        house.take()

    def breaks(_account_id: object) -> None:
        raise RuntimeError("anything")

    with monkeypatch.context() as broken:
        broken.setattr(house.nudges, "drain", breaks)
        with pytest.raises(RuntimeError):
            house.drain(account)
    house.drain(account)
    assert len(smtp.accepted) == 3
