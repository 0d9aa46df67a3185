"""A mail that may have been delivered: when it is sent once more, and over which account; what a late reply does."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from postroom.config.accounts import Account
from postroom.config.database import now
from postroom.config.states import Health
from postroom.config.tables import attempts, mails
from postroom.producer.errors import Refused
from postroom.worker.chores.due import due
from postroom.worker.chores.expire import expire
from postroom.worker.chores.leases import leases
from postroom.worker.chores.release import release
from postroom.worker.interventions import Resolution, cancel, resolve
from postroom.worker.ledger import Record
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House
from worker.sending import End, Rcpt, Server, Worker, write

ALL = [Rcpt.ACCEPTED] * 3


class Post:
    """A shop with one account and one mail, whose sending a test goes through by hand."""

    def __init__(self, house: House, account: Account) -> None:
        self.house = house
        self.account = account
        self.server = Server()

    def take(self, **fields: Any) -> UUID:
        return self.house.take(**fields)

    def send(self, end: End, at_rcpt: list[Rcpt] = ALL, *, account: Account | None = None) -> tuple[Worker, Record]:
        """The lane's first mail is sent; what the server answered is not written down yet."""
        worker = Worker(self.house.process.database, self.server)
        assert worker.enter((account or self.account).id)
        worker.turn(mark=True)
        return worker, worker.send(at_rcpt, end)

    def record(self, worker: Worker) -> bool:
        settled = worker.turn(mark=False).settled
        worker.leave()
        return settled

    def lose(self, worker: Worker) -> None:
        worker.lose_lease()
        assert leases(self.house.process) == 1

    def wait(self) -> None:
        """Until it is due."""
        with self.house.process.database.write() as connection:
            connection.execute(update(mails).where(mails.c.due_at.is_not(None)).values(due_at=now(-1)))
        due(self.house.process)

    def is_now(self, mail_id: UUID) -> tuple[str, str | None, int]:
        shown = self.house.show(mail_id)
        return shown["state"], shown["reason"], shown["copies_possible"]

    def recipients(self, mail_id: UUID) -> list[str]:
        return [each["state"] for each in self.house.show(mail_id)["recipients"]]

    def doubled(self, mail_id: UUID) -> list[bool]:
        return [each["doubled"] for each in self.house.show(mail_id)["attempts_log"]]


@pytest.fixture
def post(house: House, smtp: ScriptedSMTP) -> Post:
    return Post(house, house.add_account(smtp, priority=1))


@pytest.mark.parametrize("priority", ["high", "normal"])
def test_where_nobody_saw_the_break_the_wait_is_the_long_one(post: Post, priority: str) -> None:
    mail_id = post.take(priority=priority)
    worker, _ = post.send(End.TAKEN)
    post.lose(worker)
    wait = datetime.fromisoformat(post.house.show(mail_id)["due_at"]) - datetime.now(UTC)
    assert timedelta(seconds=880) < wait <= timedelta(seconds=901)


def test_with_hold_a_lost_worker_leaves_no_second_copy(post: Post) -> None:
    mail_id = post.take(on_uncertain="hold")
    worker, _ = post.send(End.TAKEN)
    post.lose(worker)
    post.wait()
    release(post.house.process)
    assert post.is_now(mail_id) == ("held", "uncertain", 1)


def test_the_second_lost_worker_leaves_it_to_a_person(post: Post) -> None:
    mail_id = post.take()
    for _ in range(2):
        worker, _record = post.send(End.TAKEN)
        post.lose(worker)
        post.wait()
    assert post.is_now(mail_id) == ("held", "uncertain", 2)
    with post.house.process.database.write() as connection:
        resolve(connection, mail_id, "resend")
    assert post.is_now(mail_id) == ("queued", None, 3)


def waits_for_its_second_copy(post: Post, **fields: Any) -> tuple[UUID, Worker]:
    """Its worker, which stands still with the reply, and the mail, which is to be sent once more."""
    mail_id = post.take(**fields)
    worker, _ = post.send(End.TAKEN)
    post.lose(worker)
    post.wait()
    assert post.is_now(mail_id) == ("queued", None, 2)
    return mail_id, worker


def test_the_second_copy_waits_for_the_account_of_the_first(post: Post, smtp: ScriptedSMTP) -> None:
    other = post.house.add_account(smtp, priority=2, login="other")
    mail_id, _ = waits_for_its_second_copy(post)
    for health in (Health.FAILING, Health.SUSPENDED):
        post.house.change("accounts", post.account.id, health=health)
        release(post.house.process)
        assert post.house.show(mail_id)["account_id"] == str(post.account.id)
        assert post.is_now(mail_id) == ("queued", None, 2)
    assert not Worker(post.house.process.database, post.server).enter(other.id)


@pytest.mark.parametrize(
    "change", [{"active": False}, {"address": "new@shop.example", "address_key": "new@shop.example"}, {"owner": "u9"}]
)
@pytest.mark.parametrize("when", ["before its wait is over", "after it"])
def test_with_that_account_gone_it_is_held(post: Post, smtp: ScriptedSMTP, change: dict[str, Any], when: str) -> None:
    post.house.add_account(smtp, priority=2, login="other")
    mail_id = post.take()
    worker, _ = post.send(End.TAKEN)
    post.lose(worker)
    if when == "after it":
        post.wait()
    post.house.change("accounts", post.account.id, **change)
    post.wait()
    release(post.house.process)
    assert post.is_now(mail_id)[:2] == ("held", "uncertain")


def test_over_its_time_it_is_held_and_not_dropped(post: Post) -> None:
    mail_id, _ = waits_for_its_second_copy(post)
    post.house.change("mails", mail_id, expires_at=datetime.now(UTC) - timedelta(hours=1))
    assert expire(post.house.process) == 1
    assert post.is_now(mail_id) == ("held", "uncertain", 2)


@pytest.mark.parametrize(("word", "state"), [("delivered", "sent"), ("drop", "cancelled")])
def test_a_person_stops_the_second_copy(post: Post, word: Resolution, state: str) -> None:
    mail_id, _ = waits_for_its_second_copy(post)
    with post.house.process.database.write() as connection:
        with pytest.raises(Refused, match=f"may have been delivered; `postroom mail resolve {mail_id}`"):
            cancel(connection, mail_id)
        resolve(connection, mail_id, word)
    assert post.is_now(mail_id)[0] == state
    assert not Worker(post.house.process.database, post.server).enter(post.account.id)


def test_a_late_reply_stops_the_second_copy_and_only_one_may_exist(post: Post) -> None:
    mail_id, late = waits_for_its_second_copy(post)
    second = Worker(post.house.process.database, post.server)
    assert second.enter(post.account.id)
    assert late.turn(mark=False).settled
    assert not second.turn(mark=True).marked
    assert post.is_now(mail_id) == ("sent", None, 1)
    assert post.doubled(mail_id) == [False]


@pytest.mark.parametrize(("end", "state"), [(End.REFUSED, "failed"), (End.DEFERRED, "deferred")])
def test_a_late_refusal_leaves_no_copy(post: Post, end: End, state: str) -> None:
    mail_id = post.take(on_uncertain="hold")
    worker, _ = post.send(end)
    post.lose(worker)
    assert post.record(worker)
    assert post.is_now(mail_id) == (state, None, 1)


def test_whom_an_overtaken_attempt_reached_gets_no_third_copy(post: Post) -> None:
    mail_id, late = waits_for_its_second_copy(post, to=["a@client.example", "b@client.example"])
    second, _ = post.send(End.DEFERRED)
    assert post.record(second)
    assert post.is_now(mail_id) == ("deferred", None, 2)
    assert post.record(late)
    assert post.is_now(mail_id) == ("sent", None, 2)
    assert post.recipients(mail_id) == ["accepted", "accepted"]
    assert sorted(post.doubled(mail_id)) == [False, True]


def test_a_mail_that_an_overtaken_attempt_brought_is_not_failed(post: Post) -> None:
    mail_id, late = waits_for_its_second_copy(post)
    second, _ = post.send(End.REFUSED)
    assert post.record(second)
    assert post.is_now(mail_id)[0] == "failed"
    assert post.record(late)
    assert post.is_now(mail_id) == ("sent", None, 2)


@pytest.mark.parametrize("end", [End.REFUSED, End.DEFERRED])
def test_nor_if_its_reply_comes_while_the_second_copy_is_on_its_way(post: Post, end: End) -> None:
    mail_id, late = waits_for_its_second_copy(post)
    second, _ = post.send(end)
    assert not post.record(late)
    assert post.is_now(mail_id) == ("sending", None, 2)
    post.record(second)
    assert post.is_now(mail_id) == ("sent", None, 2)
    assert post.recipients(mail_id) == ["accepted"]


def test_a_reply_that_confirms_a_persons_word_is_not_doubled(post: Post) -> None:
    mail_id = post.take(on_uncertain="hold")
    worker, _ = post.send(End.TAKEN)
    post.lose(worker)
    with post.house.process.database.write() as connection:
        resolve(connection, mail_id, "delivered")
    assert not post.record(worker)
    assert post.is_now(mail_id) == ("sent", None, 1)
    assert post.doubled(mail_id) == [False]


def test_held_time_is_given_back_by_a_late_reply(post: Post) -> None:
    mail_id = post.take(on_uncertain="hold")
    worker, _ = post.send(End.DEFERRED)
    post.lose(worker)
    past = datetime.now(UTC) - timedelta(hours=1)
    post.house.change("mails", mail_id, held_at=past, expires_at=past + timedelta(minutes=5))
    assert post.record(worker)
    assert expire(post.house.process) == 0
    assert post.is_now(mail_id) == ("deferred", None, 1)


def test_a_record_is_written_once_even_if_its_claim_has_the_mail_in_hand_again(post: Post) -> None:
    """The commit whose answer was lost also had this claim take the mail again, for the rest of its recipients."""
    mail_id = post.take(to=["a@client.example", "b@client.example"])
    worker, record = post.send(End.TAKEN, [Rcpt.ACCEPTED, Rcpt.TOO_MANY])
    worker.turn(mark=False)
    worker.more(1)
    assert [mail.id for mail in worker.hand] == [mail_id]
    assert not write(post.house.process.database, record).settled
    assert post.is_now(mail_id)[0] == "sending"
    with post.house.process.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar() == 1
    worker.turn(mark=True)
    worker.send(ALL, End.TAKEN)
    assert post.record(worker)
    assert post.recipients(mail_id) == ["accepted", "accepted"]
    assert set(post.server.copies.values()) == {1}
