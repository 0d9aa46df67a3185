"""Whatever happens in whatever order: no mail is lost, no copy unannounced, and a mail's state follows from its
recipients.

Two workers, the chores, people and accounts take steps in any order, on both databases. Beside the ledger stands what
the servers took. `POSTROOM_LONG=1` goes on for many minutes.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, case, event, select, update

from houses import order
from long_form import LONG
from postroom.config import accounts as kept
from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.database import now
from postroom.config.states import Health, HeldReason, MailState, Outcome, RecipientState
from postroom.config.tables import attempts, mails, metadata, recipients
from postroom.producer import Mail
from postroom.producer.errors import Refused
from postroom.worker import interventions
from postroom.worker.chores.due import due
from postroom.worker.chores.expire import expire
from postroom.worker.chores.leases import leases
from postroom.worker.chores.release import release
from postroom.worker.ledger import Record
from postroom.worker.process import Process
from postroom.worker.transitions import ENDED, WAITS_FOR_A_PERSON
from worker.conftest import House
from worker.sending import End, Rcpt, Server, Worker, write

EXAMPLES, STEPS = 25, 40
LONG_SECONDS = 600

MOST_MAILS = 10
UNTIL = "2099-01-01T00:00:00Z"
WAITING = {MailState.QUEUED, MailState.DEFERRED}

which = st.integers(0, 5)
answers = st.lists(st.sampled_from([Rcpt.ACCEPTED, Rcpt.ACCEPTED, *Rcpt]), min_size=3, max_size=3)
ends = st.sampled_from([End.TAKEN, End.TAKEN, End.TAKEN_AND_LOST, End.TAKEN_AND_LOST, *End])
sometimes = st.sampled_from([False, False, False, True])


DEEDS: dict[str, Callable[[Connection, UUID], object]] = {
    "cancel": interventions.cancel,
    "resend": interventions.resend,
    "resolve: delivered": lambda connection, mail_id: interventions.resolve(connection, mail_id, "delivered"),
    "resolve: resend": lambda connection, mail_id: interventions.resolve(connection, mail_id, "resend"),
    "resolve: drop": lambda connection, mail_id: interventions.resolve(connection, mail_id, "drop"),
}


@dataclass(frozen=True)
class Row:
    """One mail of the ledger with all that belongs to it."""

    mail: Any
    recipients: dict[int, str]
    outcomes: tuple[str, ...]

    @property
    def may_have_gone(self) -> bool:
        """Whether the ledger says that a copy may have left which it does not know of."""
        return Outcome.UNCERTAIN in self.outcomes


def read(connection: Connection) -> dict[UUID, Row]:
    """The whole ledger."""
    states: dict[UUID, dict[int, str]] = defaultdict(dict)
    for each in connection.execute(select(recipients).order_by(recipients.c.mail_id, recipients.c.position)):
        states[each.mail_id][each.position] = each.state
    outcomes: dict[UUID, list[str]] = defaultdict(list)
    for each in connection.execute(select(attempts).order_by(attempts.c.id)):
        outcomes[each.mail_id].append(each.outcome)
    return {
        row.id: Row(row, states[row.id], tuple(outcomes[row.id]))
        for row in connection.execute(select(mails).order_by(mails.c.id))
    }


class Life(RuleBasedStateMachine):
    """What may happen. Rules whose subject is not there do nothing."""

    house: House

    def __init__(self) -> None:
        super().__init__()
        with self.house.process.database.write() as connection:
            for table in reversed(metadata.sorted_tables):
                connection.execute(table.delete())
        self.server = Server()
        self.workers = [self._worker(), self._worker()]
        self.accounts: list[Account] = []
        self.enqueued: list[Mail] = []
        self.written: list[Record] = []
        self.said_delivered: set[UUID] = set()
        self.ill: dict[UUID, str] = {}

    def _worker(self) -> Worker:
        return Worker(self.house.process.database, self.server)

    @initialize()
    def two_accounts(self) -> None:
        self.accounts = [
            self.house.add_account(_Nowhere(), priority=priority, login=str(priority)) for priority in (1, 2)
        ]
        self.enqueue("normal", 2, None, False)

    # What producers do.

    @rule(
        priority=st.sampled_from(["high", "normal", "bulk"]),
        to=st.integers(1, 3),
        on_uncertain=st.sampled_from([None, "resend", "hold"]),
        absolute=st.booleans(),
    )
    def enqueue(self, priority: str, to: int, on_uncertain: str | None, absolute: bool) -> None:
        if len(self.enqueued) == MOST_MAILS:
            return
        mail = order(
            to=[f"client{number}@client.example" for number in range(to)],
            priority=priority,
            on_uncertain=on_uncertain,
            expires_at=UNTIL if absolute else None,
        )
        self.enqueued.append(mail)
        self.house.accept(self.house.producer.enqueue(mail))

    @rule(at=which, deed=st.sampled_from(["enqueued", "recorded", "renewed"]))
    def do_again(self, at: int, deed: str) -> None:
        """What was done before and changes no mail now."""
        before = self._read()
        if deed == "enqueued":
            self.house.accept(self.house.producer.enqueue(self.enqueued[at % len(self.enqueued)]))
        elif deed == "recorded" and self.written:
            assert not write(self.house.process.database, self.written[-1 - at % len(self.written)]).settled
        elif deed == "renewed":
            self.workers[at % 2].renew()
        assert self._read() == before

    # What workers do.

    @precondition(lambda self: any(worker.account is None for worker in self.workers))
    @rule(first=which, most=st.integers(1, 3), answer_lost=sometimes)
    def enter(self, first: int, most: int, answer_lost: bool) -> None:
        self._enter(next(each for each in self.workers if each.account is None), first, most, answer_lost=answer_lost)

    @precondition(lambda self: any(worker.account for worker in self.workers))
    @rule(at=which, mark=st.booleans(), more=sometimes, answer_lost=sometimes)
    def turn(self, at: int, mark: bool, more: bool, answer_lost: bool) -> None:
        worker = self._at_work(at)
        if more:
            worker.more(2)
            self._claims_only_who_waits(worker)
        if worker.current is None:
            self._turn(worker, mark=mark, answer_lost=answer_lost)

    @rule(at=which, at_rcpt=answers, end=ends)
    def send(self, at: int, at_rcpt: list[Rcpt], end: End) -> None:
        """One that stood still comes back with this, and writes down first what it had been answered."""
        worker = self.workers[at % 2]
        if self._in_hand(worker):
            worker.send(at_rcpt, end)
            self._turn(worker)

    @rule(at=which, at_rcpt=answers, end=ends, after=st.sampled_from(["claim", "mark", "dot", "dot"]), dies=sometimes)
    def stand_still(self, at: int, at_rcpt: list[Rcpt], end: End, after: str, dies: bool) -> None:
        """Until its lease has ended; it comes back later, unless it dies."""
        worker = self.workers[at % 2]
        if not self._in_hand(worker, marked=after != "claim"):
            return
        if after == "dot":
            worker.send(at_rcpt, end)
        worker.lose_lease()
        leases(self.house.process)
        if dies:
            self._forget(worker)

    @precondition(lambda self: any(worker.account for worker in self.workers))
    @rule(at=which, and_dies=sometimes)
    def lose_lease(self, at: int, and_dies: bool) -> None:
        """The worker stands still, and comes back after this, unless it dies."""
        worker = self._at_work(at)
        worker.lose_lease()
        leases(self.house.process)
        if and_dies:
            self._forget(worker)

    @precondition(lambda self: any(worker.account for worker in self.workers))
    @rule(at=which)
    def leave(self, at: int) -> None:
        worker = self._at_work(at)
        if worker.record is not None:
            self._turn(worker)
        worker.leave()
        self._forget(worker)

    # What the clock does.

    @rule()
    def time_comes(self) -> None:
        self._move(mails.c.due_at.is_not(None) & mails.c.claim.is_(None), due_at=now(-1))
        due(self.house.process)

    @rule(chore=st.sampled_from([leases, due, expire, release]))
    def look(self, chore: Callable[[Process], int]) -> None:
        chore(self.house.process)
        if chore in {leases, expire}:
            assert chore(self.house.process) == 0

    @rule(at=which)
    def time_runs_out(self, at: int) -> None:
        mail_id = self.enqueued[at % len(self.enqueued)].id
        began = now(-48 * 3600)
        self._move(
            (mails.c.id == mail_id) & mails.c.ended_at.is_(None),
            created_at=began,
            resent_at=case((mails.c.resent_at.is_not(None), began)),
            expires_at=now(-1),
        )
        expire(self.house.process)

    # What people do, and what becomes of accounts.

    @rule(at=which, deed=st.sampled_from(sorted(DEEDS)))
    def intervene(self, at: int, deed: str) -> None:
        self._intervene(self.enqueued[at % len(self.enqueued)].id, deed)

    @rule(at=which, what=st.sampled_from([Health.FAILING, Health.SUSPENDED, "inactive", "paused"]))
    def account_is_now(self, at: int, what: str) -> None:
        """One that was in trouble is out of it first."""
        account_id = self.accounts[at % 2].id
        if self.ill.pop(account_id, None) is None:
            self.ill[account_id] = what
            self._account(account_id, what)
        else:
            self._make_well(account_id)
        release(self.house.process)

    # What must be true whatever happened.

    @invariant()
    def every_mail_is_as_it_says(self) -> None:
        found = self._read()
        assert set(found) == {mail.id for mail in self.enqueued}, "no mail is lost"
        for row in found.values():
            _agrees_with_itself(row)
            self._agrees_with_the_servers(row)

    def _agrees_with_the_servers(self, row: Row) -> None:
        for position, state in row.recipients.items():
            copies = self.server.copies[row.mail.id, position]
            assert copies <= row.mail.copies_possible, "a copy that was not announced"
            if state == RecipientState.ACCEPTED:
                assert copies or row.mail.id in self.said_delivered, "never arrived"
            elif copies and row.mail.ended_at is not None:
                assert row.may_have_gone, "arrived, and nothing says that it may have"
                assert row.mail.state != MailState.EXPIRED, "arrived, and was dropped in silence"

    def teardown(self) -> None:
        """Nothing is stuck: time and a working account bring every mail to its end, or before a person."""
        if not self.accounts:
            return
        for account in self.accounts:
            self._make_well(account.id)
        for _ in range(8):
            for worker in self.workers:
                worker.lose_lease()
            self._work()
            self.every_mail_is_as_it_says()
            left = [row for row in self._read().values() if row.mail.state not in ENDED]
            if not left:
                return
            for row in left:
                self._say_a_word(row)
        raise AssertionError(f"stuck: {[(row.mail.state, row.mail.reason) for row in left]}")

    def _work(self) -> None:
        for _ in range(3):
            leases(self.house.process)
            self.time_comes()
            release(self.house.process)
            expire(self.house.process)
            for account in self.accounts:
                worker = self._worker()
                if not worker.enter(account.id):
                    continue
                while worker.hand:
                    self._turn(worker, mark=True)
                    worker.send([Rcpt.ACCEPTED] * 3, End.TAKEN)
                    self._turn(worker)
                worker.leave()
        for row in self._read().values():
            assert row.mail.state in ENDED or row.mail.reason in WAITS_FOR_A_PERSON, "nobody is asked"

    def _say_a_word(self, row: Row) -> None:
        if row.mail.reason == HeldReason.UNCERTAIN:
            if not self._intervene(row.mail.id, "resolve: resend"):
                self._intervene(row.mail.id, "resolve: drop")
        elif row.mail.state == MailState.HELD:
            self._intervene(row.mail.id, "resend")

    # How it is done.

    def _read(self) -> dict[UUID, Row]:
        with self.house.process.database.read() as connection:
            return read(connection)

    def _turn(self, worker: Worker, *, mark: bool = False, answer_lost: bool = False) -> None:
        record = worker.record
        done = worker.turn(mark=mark, answer_lost=answer_lost)
        if record is None:
            return
        self.written.append(record)
        if done.settled:
            row = self._read()[record.mail_id]
            accepted = {each.position for each in record.recipients if each.state is RecipientState.ACCEPTED}
            assert {at for at in accepted if row.recipients[at] != RecipientState.ACCEPTED} == set()

    def _claims_only_who_waits(self, worker: Worker) -> None:
        found = self._read()
        for mail in worker.hand:
            if found[mail.id].mail.claim == worker.token:
                states = found[mail.id].recipients
                waits = {at for at, state in states.items() if state == RecipientState.PENDING}
                assert {recipient.position for recipient in mail.pending} == waits != set()

    def _move(self, where: Any, **values: Any) -> None:
        with self.house.process.database.write() as connection:
            connection.execute(update(mails).where(where).values(values))

    def _make_well(self, account_id: UUID) -> None:
        for what in ("active", "resumed", Health.OK):
            self._account(account_id, what)

    def _account(self, account_id: UUID, what: str) -> None:
        with self.house.process.database.write() as connection:
            account = kept.get(connection, account_id)
            assert account is not None
            if what in {"paused", "resumed"}:
                (pauses.pause if what == "paused" else pauses.resume)(connection, account_id)
            elif what in {"active", "inactive"}:
                kept.replace_unproved(connection, account, replace(account, active=what == "active"))
            else:
                kept.set_health(connection, account, Health(what), "said so", None if what == Health.OK else 0.0)

    def _enter(self, worker: Worker, first: int, most: int, *, answer_lost: bool = False) -> None:
        for number in (first, first + 1):
            account = self.accounts[number % 2]
            if worker.account is None and worker.enter(account.id, most, answer_lost=answer_lost):
                self._claims_only_who_waits(worker)

    def _in_hand(self, worker: Worker, *, marked: bool = True) -> bool:
        """Whether it has a mail in hand; where nothing is ready, time passes or a new mail comes."""
        if worker.account is None:
            self._enter(worker, 0, 2)
        if worker.account is None:
            self.time_comes()
            self._enter(worker, 0, 2)
        if worker.account is None:
            self.enqueue("normal", 2, None, False)
            self._enter(worker, 0, 2)
        if marked and worker.account is not None and worker.current is None:
            self._turn(worker, mark=True)
        return worker.current is not None or (not marked and bool(worker.hand))

    def _at_work(self, at: int) -> Worker:
        at_work = [worker for worker in self.workers if worker.account]
        return at_work[at % len(at_work)]

    def _forget(self, worker: Worker) -> None:
        self.workers[self.workers.index(worker)] = self._worker()

    def _intervene(self, mail_id: UUID, deed: str) -> bool:
        before = self._read()
        try:
            with self.house.process.database.write() as connection:
                DEEDS[deed](connection, mail_id)
        except Refused:
            assert self._read() == before
            return False
        assert self._read() != before
        if deed == "resolve: delivered":
            self.said_delivered.add(mail_id)
        return True


class _Nowhere:
    host, port = "127.0.0.1", 9


def _agrees_with_itself(row: Row) -> None:
    mail, states = row.mail, set(row.recipients.values())
    state = MailState(mail.state)
    ended = state in ENDED
    assert ended == (mail.ended_at is not None)
    assert (state is MailState.SENDING) == (mail.claim is not None)
    assert (state is MailState.HELD) == (mail.held_at is not None) == (mail.reason is not None)
    assert mail.marked_at is None or mail.claim is not None
    if mail.ready:
        assert state in WAITING
        assert mail.account_id is not None
    if ended or state is MailState.HELD:
        assert mail.due_at is None
    else:
        assert mail.due_at is not None, "it would wait for ever"
        assert mail.account_id is not None
    if state in {MailState.SENT, MailState.FAILED}:
        assert RecipientState.PENDING not in states
        assert (RecipientState.ACCEPTED in states) == (state is MailState.SENT)
    else:
        assert ended or RecipientState.PENDING in states
    assert 1 <= mail.copies_possible <= 1 + len(row.outcomes)


def play(house: House, profile: settings) -> None:
    """Live many lives in this house."""

    class HouseLife(Life):
        pass

    HouseLife.house = house
    run_state_machine_as_test(HouseLife, settings=profile)


PROFILE = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)


@pytest.fixture
def fast_house(house: House) -> House:
    """Power cuts are tried elsewhere."""
    if house.process.database.engine.dialect.name == "sqlite":
        event.listen(house.process.database.engine, "connect", lambda dbapi, _: dbapi.execute("PRAGMA synchronous=OFF"))
    return house


@pytest.mark.timeout(120 if not LONG else LONG_SECONDS * 3)
def test_whatever_happens_no_mail_is_lost_and_no_copy_is_unannounced(fast_house: House) -> None:
    play(fast_house, PROFILE)
    until = time.monotonic() + (LONG_SECONDS if LONG else 0)
    while time.monotonic() < until:
        play(fast_house, settings(PROFILE, derandomize=False, max_examples=50, stateful_step_count=80))
