"""The table of states is the design's and the docs', and every writer changes exactly the mails that it may."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, select, update

from postroom.config.database import now
from postroom.config.states import HeldReason, MailState, Outcome, RecipientState
from postroom.config.tables import attempts, letters, mails, recipients
from postroom.producer.errors import Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import interventions, lanes
from postroom.worker.chores.due import due
from postroom.worker.chores.expire import expire
from postroom.worker.chores.leases import leases
from postroom.worker.ledger import RecipientRecord, Record
from postroom.worker.retry import Next
from postroom.worker.transitions import ENDED, WAYS, Step, changes
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House
from worker.sending import Server, Worker, write

DESIGN = """
queued: sending held cancelled expired
sending: sent deferred held failed uncertain queued
deferred: sending queued held cancelled expired
held: queued cancelled expired sent
uncertain: sent failed deferred queued held cancelled
sent:
failed: queued
cancelled:
expired:
"""
BESIDES = """
queued: sent failed deferred
sending: cancelled
deferred: sent failed
held: failed deferred
failed: sent
"""
"""Late replies, which find their mail wherever it is; and a claimed mail that is cancelled before its mark."""


def _table(text: str) -> dict[MailState, set[MailState]]:
    lines = [line.partition(":") for line in text.strip().splitlines()]
    return {MailState(state): set(map(MailState, to.split())) for state, _, to in lines}


def test_the_table_is_the_designs_and_late_replies() -> None:
    besides = _table(BESIDES)
    assert changes() == {state: to | besides.get(state, set()) for state, to in _table(DESIGN).items()}


def test_the_docs_tell_the_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, re.MULTILINE)
    named = {state: re.findall(r"\w+", re.sub(r"\([^)]*\)", "", to)) for state, to in rows}
    told = {MailState(state): set(map(MailState, to)) for state, to in named.items()}
    assert told == changes()


def test_what_waits_for_a_person_is_moved_by_a_person_or_a_late_reply_or_ended_by_its_producers_time() -> None:
    person = {HeldReason.SENDER_REFUSED, HeldReason.UNCERTAIN, HeldReason.POISON}
    movers = {step for step, way in WAYS.items() if way.held & person}
    assert movers == {Step.LATE_REPLY, Step.OVERTAKEN_REPLY, Step.EXPIRY, *DEEDS}
    assert WAYS[Step.CHOICE].held == set(HeldReason) - person
    assert HeldReason.UNCERTAIN not in WAYS[Step.CANCEL].held | WAYS[Step.RESEND].held | WAYS[Step.EXPIRY].held


Situation = tuple[MailState, HeldReason | None]
SITUATIONS: list[Situation] = [
    *((state, None) for state in MailState if state is not MailState.HELD),
    *((MailState.HELD, reason) for reason in HeldReason),
]


class Scene:
    """One mail in every state, and held for every reason; all of one recipient."""

    def __init__(self, house: House, smtp: ScriptedSMTP) -> None:
        self.house = house
        self.database = house.process.database
        self.account = house.add_account(smtp)
        self.worker = Worker(self.database, Server())
        self.worker.account = self.account
        made_of = house.take(from_="nobody@shop.example")
        house.change("mails", made_of, from_key=self.account.address_key, on_uncertain="resend")
        with self.database.write() as connection:
            self.ids = {situation: self._copy(connection, made_of, situation) for situation in SITUATIONS}
            for table in (letters, recipients):
                connection.execute(table.delete().where(table.c.mail_id == made_of))
            connection.execute(mails.delete().where(mails.c.id == made_of))

    def _copy(self, connection: Any, made_of: UUID, situation: Situation) -> UUID:
        state, reason = situation
        mail_id, waits = uuid7(), state in {MailState.QUEUED, MailState.DEFERRED}
        changed = {
            "id": mail_id,
            "state": state,
            "reason": reason,
            "ready": waits,
            "account_id": None if state is MailState.HELD else self.account.id,
            "due_at": now(-1) if waits or state in {MailState.UNCERTAIN, MailState.SENDING} else None,
            "held_at": now() if state is MailState.HELD else None,
            "ended_at": now() if state in ENDED else None,
            "claim": self.worker.token if state is MailState.SENDING else None,
        }
        for table, values in ((mails, changed), (letters, {}), (recipients, {})):
            key = table.c.id if table is mails else table.c.mail_id
            row = dict(connection.execute(select(table).where(key == made_of)).one()._mapping)
            connection.execute(insert(table).values(row | (values or {"mail_id": mail_id})))
        return mail_id

    def change(self, **values: Any) -> None:
        """Of all mails."""
        with self.database.write() as connection:
            connection.execute(update(mails).values(values))

    def each(self, deed: Callable[[UUID], None]) -> None:
        """To each mail."""
        for mail_id in self.ids.values():
            deed(mail_id)

    def asked(self, deed: Callable[..., object], *words: str) -> set[Situation]:
        """Ask for this of each mail; where it was not refused."""
        done = set()
        for situation, mail_id in self.ids.items():
            before = self.row(mail_id)
            try:
                with self.database.write() as connection:
                    deed(connection, mail_id, *words)
            except Refused as refused:
                told = str(refused)
            else:
                done.add(situation)
                continue
            assert situation[0] in told
            assert self.row(mail_id) == before
        return done

    def row(self, mail_id: UUID) -> Any:
        with self.database.read() as connection:
            return connection.execute(select(mails).where(mails.c.id == mail_id)).one()

    def now_in(self) -> dict[Situation, Situation]:
        """Where each mail is now."""
        rows = {situation: self.row(mail_id) for situation, mail_id in self.ids.items()}
        reasons = {situation: row.reason and HeldReason(row.reason) for situation, row in rows.items()}
        return {situation: (MailState(row.state), reasons[situation]) for situation, row in rows.items()}

    def record(self, mail_id: UUID, attempt_id: UUID, outcome: Outcome = Outcome.ACCEPTED) -> None:
        """The server took it, or refused it for good."""
        taken = outcome is Outcome.ACCEPTED
        state = RecipientState.ACCEPTED if taken else RecipientState.REFUSED
        about = (self.account.id, 0.1, outcome, None, None, "said so", None)
        step = Next(MailState.SENT if taken else MailState.FAILED)
        record = Record(
            mail_id, self.worker.token, attempt_id, *about, (RecipientRecord(0, state, "said so", None),), step
        )
        write(self.database, record)


def _claim(scene: Scene) -> None:
    Worker(scene.database, Server()).enter(scene.account.id, 100)


def _attempt(scene: Scene) -> None:
    scene.each(lambda mail_id: scene.record(mail_id, uuid7()))


def _late(scene: Scene) -> None:
    _reply_late(scene, overtaken=False)


def _overtaken(scene: Scene) -> None:
    _reply_late(scene, overtaken=True)


def _reply_late(scene: Scene, *, overtaken: bool) -> None:
    for mail_id in scene.ids.values():
        noted = uuid7()
        row = {"id": noted, "mail_id": mail_id, "account_id": scene.account.id, "claim": uuid4()}
        with scene.database.write() as connection:
            connection.execute(
                insert(attempts).values(
                    **row, started_at=now(), duration_seconds=0.0, outcome=Outcome.UNCERTAIN, doubled=False
                )
            )
        scene.house.change("mails", mail_id, attempt_id=uuid7() if overtaken else noted)
        scene.worker.token, token = uuid4(), scene.worker.token  # its claim was taken away
        scene.record(mail_id, noted, Outcome.ACCEPTED if overtaken else Outcome.FAILED)
        scene.worker.token = token


def _give_back(scene: Scene) -> None:
    scene.worker.leave()


def _choose(scene: Scene) -> None:
    scene.change(account_id=uuid4())
    with scene.database.write() as connection:
        lanes.place(connection, list(scene.ids.values()))


def _resend_uncertain(scene: Scene) -> None:
    scene.change(due_at=now(-1), ready=False)
    due(scene.house.process)


def _expire(scene: Scene) -> None:
    scene.change(expires_at=now(-1), expires_absolute=True)
    expire(scene.house.process)


CHORES: dict[Step, Callable[[Scene], object]] = {
    Step.CLAIM: _claim,
    Step.ATTEMPT: _attempt,
    Step.LATE_REPLY: _late,
    Step.OVERTAKEN_REPLY: _overtaken,
    Step.GIVEN_BACK: _give_back,
    Step.LEASE_END: lambda scene: leases(scene.house.process),
    Step.CHOICE: _choose,
    Step.SECOND_COPY: _resend_uncertain,
    Step.EXPIRY: _expire,
}
DEEDS: dict[Step, tuple[Any, ...]] = {
    Step.CANCEL: (interventions.cancel,),
    Step.RESEND: (interventions.resend,),
    Step.RESOLVE_RESEND: (interventions.resolve, "resend"),
    Step.RESOLVE_END: (interventions.resolve, "drop"),
}


@pytest.fixture
def scene(house: House, smtp: ScriptedSMTP) -> Scene:
    return Scene(house, smtp)


def begins(step: Step) -> set[Situation]:
    way = WAYS[step]
    return {(state, reason) for state, reason in SITUATIONS if (reason in way.held if reason else state in way.states)}


@pytest.mark.parametrize("step", CHORES)
def test_a_step_changes_exactly_the_mails_that_it_may(scene: Scene, step: Step) -> None:
    CHORES[step](scene)
    after = scene.now_in()
    changed = {before for before, is_now in after.items() if is_now != before}
    assert changed == begins(step) - ({(MailState.QUEUED, None)} if step is Step.CHOICE else set()), "it stays queued"
    assert {after[before][0] for before in begins(step)} <= WAYS[step].to


@pytest.mark.parametrize("step", DEEDS)
def test_a_person_changes_exactly_the_mails_that_may_be_and_is_told_of_the_others(scene: Scene, step: Step) -> None:
    if step is Step.RESOLVE_END:
        scene.change(copies_possible=2)
    assert scene.asked(*DEEDS[step]) == begins(step)
    after = scene.now_in()
    assert {before for before, is_now in after.items() if is_now != before} == begins(step)
    assert {after[before][0] for before in begins(step)} <= WAYS[step].to


def test_only_what_may_have_been_delivered_is_resolved(scene: Scene) -> None:
    assert scene.asked(interventions.resolve, "delivered") == begins(Step.RESOLVE_RESEND)


def test_what_may_have_been_delivered_is_neither_cancelled_nor_dropped_when_its_time_is_over(scene: Scene) -> None:
    scene.change(copies_possible=2)
    assert scene.asked(interventions.cancel) == set()
    _expire(scene)
    after = scene.now_in()
    assert {after[before] for before in begins(Step.EXPIRY)} == {(MailState.HELD, HeldReason.UNCERTAIN)}


def test_what_is_over_the_time_that_its_producer_set_is_not_sent_again(scene: Scene) -> None:
    scene.change(expires_at=now(-1), expires_absolute=True)
    assert scene.asked(interventions.resend) == scene.asked(interventions.resolve, "resend") == set()
