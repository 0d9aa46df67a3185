"""The ledger's writing of attempts. What may change a mail's state is in `transitions`.

Each change is a conditional UPDATE; when not exactly one row changed, somebody else won and nothing else is written.
The *mark* says that the final dot of an attempt may now go. It is durable before the dot and fenced by the claim, so
a worker whose claim was taken away sends nothing more.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Connection,
    Double,
    FromClause,
    Integer,
    String,
    Update,
    Uuid,
    bindparam,
    case,
    exists,
    func,
    insert,
    null,
    select,
    update,
)

from postroom.config.database import now
from postroom.config.rows import Rows
from postroom.config.states import MailState, Outcome, RecipientState, Scope
from postroom.config.tables import attempts, mails, recipients
from postroom.worker import copies, erasing, lanes, lifetime, limits
from postroom.worker.retry import Next
from postroom.worker.transitions import ENDED, WAYS, Step, may


@dataclass(frozen=True, slots=True)
class RecipientRecord:
    """One recipient's outcome, by its position in the mail."""

    position: int
    state: RecipientState
    reply: str | None
    enhanced_status_code: str | None


@dataclass(frozen=True, slots=True)
class Record:
    """One attempt, ended: what the server answered and where the mail goes now."""

    mail_id: UUID
    claim: UUID
    attempt_id: UUID
    account_id: UUID
    duration_seconds: float
    outcome: Outcome
    scope: Scope | None
    rule: str | None
    reply: str | None
    enhanced_status_code: str | None
    recipients: tuple[RecipientRecord, ...]
    next: Next


@dataclass(frozen=True, slots=True)
class Mark:
    """Leave to send the final dot of one attempt, while the claim holds."""

    mail_id: UUID
    claim: UUID
    attempt_id: UUID


@dataclass(frozen=True, slots=True)
class Turn:
    """One transaction of a lane: the outcome of the last mail and the mark of the next."""

    record: Record | None = None
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class TurnDone:
    """What a turn did: whether the outcome settled the mail, and whether the mark stands."""

    settled: bool
    marked: bool


def turn(connection: Connection, turns: Sequence[Turn]) -> list[TurnDone]:
    """Write the outcomes of all, then the marks of all."""
    settled: set[UUID] = set()
    for records in _apart([each.record for each in turns if each.record is not None]):
        settled |= _record(connection, records)
    marked = _mark(connection, [each.mark for each in turns if each.mark is not None])
    return [
        TurnDone(
            settled=each.record is not None and each.record.attempt_id in settled,
            marked=each.mark is not None and each.mark.attempt_id in marked,
        )
        for each in turns
    ]


def _apart(records: Sequence[Record]) -> Iterator[list[Record]]:
    """Groups in order, in none of which there are two of one mail: a late one may come together with its next."""
    group: dict[UUID, Record] = {}
    for record in records:
        if record.mail_id in group:
            yield list(group.values())
            group = {}
        group[record.mail_id] = record
    if group:
        yield list(group.values())


# Statements are built once: building one costs several times what running it does.

_MARKS = Rows(mail=Uuid, held_claim=Uuid, attempt=Uuid)
_MARK = _MARKS.statement(
    lambda given: (
        update(mails)
        .where(mails.c.id == given.c.mail, mails.c.claim == given.c.held_claim)
        .values(attempt_id=given.c.attempt, marked_at=now())
        .returning(mails.c.attempt_id)
    )
)


def _mark(connection: Connection, marks: Sequence[Mark]) -> set[UUID]:
    if not marks:
        return set()
    rows = [(each.mail_id, each.claim, each.attempt_id) for each in marks]
    marked = connection.execute(_MARK[connection.dialect.name], _MARKS.parameters(rows))
    return set(marked.scalars())


def _record(connection: Connection, records: Sequence[Record]) -> set[UUID]:
    """Write attempts of different mails; one that is written already changes nothing.

    Returns:
        The attempts that settled their mails.
    """
    unreached = [each.mail_id for each in records if each.outcome is Outcome.UNREACHED]
    counted = limits.counted(connection, unreached) if unreached else []
    settled_mails = _settle(connection, records, _SETTLE)
    settled = [each for each in records if each.mail_id in settled_mails]
    late = [each for each in records if each.mail_id not in settled_mails]
    if settled:
        limits.give_back(connection, [each for each in counted if each.mail_id in settled_mails])
        _insert_attempts(connection, settled)
        for mail_id in _write_recipients(connection, [(each, each.recipients) for each in settled]):
            _follow_recipients(connection, mail_id)
        chosen_anew = [each.mail_id for each in settled if each.next.choose]
        if chosen_anew:
            lanes.place(connection, chosen_anew)
    return {each.attempt_id for each in [*settled, *(each for each in late if _record_late(connection, each))]}


def _record_late(connection: Connection, record: Record) -> bool:
    """Write a reply that came after the lease was lost. It settles its mail, unless another attempt was marked since:
    then those whom the server took get no further copy, and the attempt is noted as doubled.
    """
    if record.outcome is Outcome.UNCERTAIN or not _is_noted_as_uncertain(connection, record.attempt_id):
        return False  # nothing new; or the claim was taken away before the mark, or this record is written already
    if erasing.is_erased(connection, record.mail_id):
        record = _without_words(record)
    counts_no_more = replace(record, next=replace(record.next, counts=False))  # it was counted when it was uncertain
    settled = bool(_settle(connection, [counts_no_more], _SETTLE_LATE))
    accepted = tuple(each for each in record.recipients if each.state is RecipientState.ACCEPTED)
    doubled = bool(accepted) and not settled and _is_overtaken(connection, record)
    _update_attempt(connection, record, doubled=doubled)
    _write_recipients(connection, [(record, record.recipients if settled else accepted)])
    if _follow_recipients(connection, record.mail_id):
        return True
    if settled and record.next.choose:
        lanes.place(connection, [record.mail_id])
    return settled


def _without_words(record: Record) -> Record:
    """Of servers' words the codes alone: the words repeat addresses, and were erased from this mail."""
    told = tuple(replace(each, reply=erasing.code_of(each.reply)) for each in record.recipients)
    return replace(record, reply=erasing.code_of(record.reply), recipients=told)


_STEPS = Rows(
    mail=Uuid,
    held_claim=Uuid,
    attempt=Uuid,
    over=Uuid,
    new_state=String,
    new_reason=String,
    now_ready=Boolean,
    due_in_seconds=Double,
    counted=Integer,
    ends=Boolean,
)


def _stepping(given: FromClause) -> Update:
    return (
        update(mails)
        .where(mails.c.id == given.c.mail)
        .values(
            state=given.c.new_state,
            reason=given.c.new_reason,
            ready=given.c.now_ready,
            due_at=case((given.c.due_in_seconds.is_not(None), now(given.c.due_in_seconds))),
            held_at=case((given.c.new_state == MailState.HELD, now())),
            ended_at=case((given.c.ends, now())),
            attempts=mails.c.attempts + given.c.counted,
            claim=null(),
            claimed_at=null(),
            marked_at=null(),
        )
        .returning(mails.c.id)
    )


def _settling(given: FromClause) -> Update:
    is_written = exists().where(attempts.c.id == given.c.attempt)
    return _stepping(given).where(mails.c.claim == given.c.held_claim, ~is_written)


def _settling_late(given: FromClause) -> Update:
    return (
        _stepping(given)
        .where(mails.c.attempt_id == given.c.attempt, may(Step.LATE_REPLY))
        .values(
            account_id=given.c.over,  # held, it has none; if this one can send no more, it is chosen anew
            copies_possible=copies.possible(now_settled=given.c.attempt),
            expires_at=lifetime.with_held_time(),
        )
    )


_SETTLE = _STEPS.statement(_settling)
_SETTLE_LATE = _STEPS.statement(_settling_late)


def _settle(connection: Connection, records: Sequence[Record], statement: dict[str, Any]) -> set[UUID]:
    """Let mails take the steps that their attempts decided; answers with those that did."""
    way = WAYS[Step.LATE_REPLY if statement is _SETTLE_LATE else Step.ATTEMPT]
    wrong = {each.next.state for each in records} - way.to
    if wrong:
        raise ValueError(f"an attempt cannot leave its mail {wrong}")
    rows = [
        (
            each.mail_id,
            each.claim,
            each.attempt_id,
            each.account_id,
            each.next.state,
            each.next.reason,
            each.next.due_in_seconds == 0,
            0.0 if each.next.choose and each.next.due_in_seconds is None else each.next.due_in_seconds,
            int(each.next.counts),
            each.next.state in ENDED,
        )
        for each in records
    ]
    changed = connection.execute(statement[connection.dialect.name], _STEPS.parameters(rows))
    return set(changed.scalars())


_NOTED = select(attempts.c.outcome).where(attempts.c.id == bindparam("attempt"))


def _is_noted_as_uncertain(connection: Connection, attempt_id: UUID) -> bool:
    return connection.execute(_NOTED, {"attempt": attempt_id}).scalar() == Outcome.UNCERTAIN


def _is_overtaken(connection: Connection, record: Record) -> bool:
    """Whether another attempt was marked since."""
    marked = connection.execute(select(mails.c.attempt_id).where(mails.c.id == record.mail_id)).scalar()
    return marked != record.attempt_id


_FOLLOW_RECIPIENTS = (
    update(mails)
    .where(
        mails.c.id == bindparam("mail"),
        may(Step.OVERTAKEN_REPLY),
        mails.c.marked_at.is_(None),
        ~exists().where(recipients.c.mail_id == mails.c.id, recipients.c.state == RecipientState.PENDING),
        exists().where(recipients.c.mail_id == mails.c.id, recipients.c.state == RecipientState.ACCEPTED),
    )
    .values(
        state=MailState.SENT,
        reason=None,
        ready=False,
        claim=None,
        claimed_at=None,
        due_at=None,
        held_at=None,
        ended_at=func.coalesce(mails.c.ended_at, now()),
    )
)


def _follow_recipients(connection: Connection, mail_id: UUID) -> bool:
    """End a mail as sent that a reply to an earlier attempt has left with nobody to send to."""
    return connection.execute(_FOLLOW_RECIPIENTS, {"mail": mail_id}).rowcount == 1


_ATTEMPTS = Rows(
    id=Uuid,
    mail_id=Uuid,
    account_id=Uuid,
    claim=Uuid,
    duration_seconds=Double,
    outcome=String,
    scope=String,
    rule=String,
    reply=String,
    enhanced_status_code=String,
    doubled=Boolean,
)
_INSERT_ATTEMPTS = _ATTEMPTS.statement(
    lambda given: insert(attempts).from_select(
        ["started_at", *given.c.keys()], select(now(-given.c.duration_seconds), *given.c)
    )
)
_FOUND = ("duration_seconds", "outcome", "scope", "rule", "reply", "enhanced_status_code", "doubled")
_UPDATE_ATTEMPT = (
    update(attempts)
    .where(attempts.c.id == bindparam("attempt"))
    .values({name: bindparam(f"new_{name}") for name in _FOUND})
)


def _insert_attempts(connection: Connection, records: Sequence[Record]) -> None:
    rows = [
        (each.attempt_id, each.mail_id, each.account_id, each.claim, *_found(each, doubled=False)) for each in records
    ]
    connection.execute(_INSERT_ATTEMPTS[connection.dialect.name], _ATTEMPTS.parameters(rows))


def _update_attempt(connection: Connection, record: Record, *, doubled: bool) -> None:
    found = {f"new_{name}": value for name, value in zip(_FOUND, _found(record, doubled=doubled), strict=True)}
    connection.execute(_UPDATE_ATTEMPT, {"attempt": record.attempt_id, **found})


def _found(record: Record, *, doubled: bool) -> tuple[Any, ...]:
    return (
        record.duration_seconds,
        record.outcome,
        record.scope,
        record.rule,
        record.reply,
        record.enhanced_status_code,
        doubled,
    )


_RECIPIENTS = Rows(mail=Uuid, at=Integer, new_state=String, new_reply=String, new_code=String)
_WRITE_RECIPIENTS = _RECIPIENTS.statement(
    lambda given: (
        update(recipients)
        .where(
            recipients.c.mail_id == given.c.mail,
            recipients.c.position == given.c.at,
            recipients.c.state != RecipientState.ACCEPTED,  # by the reply to an earlier attempt, that came late
        )
        .values(state=given.c.new_state, reply=given.c.new_reply, enhanced_status_code=given.c.new_code)
        .returning(recipients.c.mail_id)
    )
)


def _write_recipients(
    connection: Connection, outcomes: Sequence[tuple[Record, Sequence[RecipientRecord]]]
) -> list[UUID]:
    """Write outcomes of recipients; answers with the mails of which some had been accepted before."""
    rows = [
        (record.mail_id, each.position, each.state, each.reply, each.enhanced_status_code)
        for record, them in outcomes
        for each in them
    ]
    if not rows:
        return []
    statement = _WRITE_RECIPIENTS[connection.dialect.name]
    written = Counter(connection.execute(statement, _RECIPIENTS.parameters(rows)).scalars())
    return [record.mail_id for record, them in outcomes if written[record.mail_id] < len(them)]
