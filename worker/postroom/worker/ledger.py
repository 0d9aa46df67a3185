"""The ledger's writing of attempts. What may change a mail's state is in `transitions`.

Each change is a conditional UPDATE; when not exactly one row changed, somebody else won and nothing else is written.
The *mark* says that the final dot of an attempt may now go. It is durable before the dot and fenced by the claim, so
a worker whose claim was taken away sends nothing more.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CompoundSelect,
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
    literal,
    null,
    select,
    union_all,
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
    records = [each.record for each in turns if each.record is not None]
    marks = [each.mark for each in turns if each.mark is not None]
    if connection.dialect.name == "postgresql" and _may_go_at_once(records, marks):
        settled, marked = _write_at_once(connection, records, marks)
    else:
        settled = set()
        for group in _apart(records):
            settled |= _record(connection, group)
        marked = mark(connection, marks)
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

_MARK_COLUMNS: Final[dict[str, Any]] = {"mail": Uuid, "held_claim": Uuid, "attempt": Uuid}
_MARKS = Rows(**_MARK_COLUMNS)


def _marking(given: FromClause) -> Update:
    return (
        update(mails)
        .where(mails.c.id == given.c.mail, mails.c.claim == given.c.held_claim)
        .values(attempt_id=given.c.attempt, marked_at=now())
        .returning(mails.c.attempt_id)
    )


_MARK = _MARKS.statement(_marking)


def mark(connection: Connection, marks: Sequence[Mark]) -> set[UUID]:
    """Mark mails; answers with the attempts whose claims stood."""
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
    partly: list[UUID] = []
    if settled:
        limits.give_back(connection, [each for each in counted if each.mail_id in settled_mails])
        _insert_attempts(connection, settled)
        partly = _write_recipients(connection, [(each, each.recipients) for each in settled])
    return _follow(connection, records, settled_mails, partly)


def _follow(connection: Connection, records: Sequence[Record], settled: set[UUID], partly: Iterable[UUID]) -> set[UUID]:
    """What else comes of attempts: of mails that some had taken before, of those that are chosen for anew, and of late
    replies. Returns the attempts that settled their mails.
    """
    for mail_id in partly:
        _follow_recipients(connection, mail_id)
    chosen_anew = [each.mail_id for each in records if each.mail_id in settled and each.next.choose]
    if chosen_anew:
        lanes.place(connection, chosen_anew)
    return {each.attempt_id for each in records if each.mail_id in settled or _record_late(connection, each)}


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


_UNMARK = _MARKS.statement(
    lambda given: (
        update(mails)
        .where(mails.c.id == given.c.mail, mails.c.claim == given.c.held_claim, mails.c.attempt_id == given.c.attempt)
        .values(marked_at=null())
    )
)


def unmark(connection: Connection, marks: Sequence[Mark]) -> list[None]:
    """Take marks back by which no final dot went."""
    rows = [(each.mail_id, each.claim, each.attempt_id) for each in marks]
    connection.execute(_UNMARK[connection.dialect.name], _MARKS.parameters(rows))
    return [None] * len(marks)


_STEP_COLUMNS: Final[dict[str, Any]] = {
    "mail": Uuid,
    "held_claim": Uuid,
    "attempt": Uuid,
    "over": Uuid,
    "new_state": String,
    "new_reason": String,
    "now_ready": Boolean,
    "due_in_seconds": Double,
    "counted": Integer,
    "ends": Boolean,
}
_STEPS = Rows(**_STEP_COLUMNS)


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
    _check_way(Step.LATE_REPLY if statement is _SETTLE_LATE else Step.ATTEMPT, records)
    changed = connection.execute(
        statement[connection.dialect.name], _STEPS.parameters([_step(each) for each in records])
    )
    return set(changed.scalars())


def _check_way(step: Step, records: Sequence[Record]) -> None:
    wrong = {each.next.state for each in records} - WAYS[step].to
    if wrong:
        raise ValueError(f"an attempt cannot leave its mail {wrong}")


def _step(record: Record) -> tuple[Any, ...]:
    to = record.next
    return (
        record.mail_id,
        record.claim,
        record.attempt_id,
        record.account_id,
        to.state,
        to.reason,
        to.due_in_seconds == 0,
        0.0 if to.choose and to.due_in_seconds is None else to.due_in_seconds,
        int(to.counts),
        to.state in ENDED,
    )


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


_FOUND_COLUMNS: Final[dict[str, Any]] = {
    "duration_seconds": Double,
    "outcome": String,
    "scope": String,
    "rule": String,
    "reply": String,
    "enhanced_status_code": String,
    "doubled": Boolean,
}
_FOUND: Final = tuple(_FOUND_COLUMNS)
_ATTEMPTS = Rows(id=Uuid, mail_id=Uuid, account_id=Uuid, claim=Uuid, **_FOUND_COLUMNS)
_INSERT_ATTEMPTS = _ATTEMPTS.statement(
    lambda given: insert(attempts).from_select(
        ["started_at", *given.c.keys()], select(now(-given.c.duration_seconds), *given.c)
    )
)
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


_RECIPIENT_COLUMNS: Final[dict[str, Any]] = {
    "mail": Uuid,
    "at": Integer,
    "new_state": String,
    "new_reply": String,
    "new_code": String,
}
_RECIPIENTS = Rows(**_RECIPIENT_COLUMNS)


def _telling(given: FromClause) -> Update:
    return (
        update(recipients)
        .where(
            recipients.c.mail_id == given.c.mail,
            recipients.c.position == given.c.at,
            recipients.c.state != RecipientState.ACCEPTED,  # by the reply to an earlier attempt, that came late
        )
        .values(state=given.c.new_state, reply=given.c.new_reply, enhanced_status_code=given.c.new_code)
        .returning(recipients.c.mail_id)
    )


_WRITE_RECIPIENTS = _RECIPIENTS.statement(_telling)


def _write_recipients(
    connection: Connection, outcomes: Sequence[tuple[Record, Sequence[RecipientRecord]]]
) -> list[UUID]:
    """Write outcomes of recipients; answers with the mails of which some had been accepted before."""
    rows = _recipient_rows(outcomes)
    if not rows:
        return []
    statement = _WRITE_RECIPIENTS[connection.dialect.name]
    written = Counter(connection.execute(statement, _RECIPIENTS.parameters(rows)).scalars())
    return [record.mail_id for record, them in outcomes if written[record.mail_id] < len(them)]


def _recipient_rows(outcomes: Iterable[tuple[Record, Sequence[RecipientRecord]]]) -> list[tuple[Any, ...]]:
    return [
        (record.mail_id, each.position, each.state, each.reply, each.enhanced_status_code)
        for record, them in outcomes
        for each in them
    ]


# All of a group as one statement, where the database can: a statement more costs as much as five mails more.

_OUTCOMES = Rows("outcomes", **_STEP_COLUMNS, **_FOUND_COLUMNS)
_TOLD = Rows("told", **_RECIPIENT_COLUMNS)
_LEAVES = Rows("leaves", **_MARK_COLUMNS)


def _all_at_once() -> CompoundSelect[Any]:
    outcomes = select(_OUTCOMES.on_postgresql()).cte("outcomes")
    settled = _settling(outcomes).cte("settled")
    noted = select(
        now(-outcomes.c.duration_seconds),
        *(outcomes.c[name] for name in ("attempt", "mail", "over", "held_claim")),
        *(outcomes.c[name] for name in _FOUND),
    ).join_from(outcomes, settled, settled.c.id == outcomes.c.mail)
    names = ["started_at", "id", "mail_id", "account_id", "claim", *_FOUND]
    told = _telling(_TOLD.on_postgresql()).where(recipients.c.mail_id == settled.c.id).cte("written")
    marked = _marking(_LEAVES.on_postgresql()).cte("marked")
    return union_all(
        select(literal("settled"), settled.c.id),
        select(literal("written"), told.c.mail_id),
        select(literal("marked"), marked.c.attempt_id),
    ).add_cte(insert(attempts).from_select(names, noted).cte("noted"))


_ALL_AT_ONCE = _all_at_once()


def _may_go_at_once(records: Sequence[Record], marks: Sequence[Mark]) -> bool:
    """Whether no mail is written twice, and none gives back what it took of a limit."""
    ids = {each.mail_id for each in records} | {each.mail_id for each in marks}
    return len(ids) == len(records) + len(marks) and all(each.outcome is not Outcome.UNREACHED for each in records)


def _write_at_once(
    connection: Connection, records: Sequence[Record], marks: Sequence[Mark]
) -> tuple[set[UUID], set[UUID]]:
    """Write different mails' outcomes and marks; answers with the attempts that settled theirs, and those marked."""
    _check_way(Step.ATTEMPT, records)
    given = {
        **_OUTCOMES.parameters([(*_step(each), *_found(each, doubled=False)) for each in records]),
        **_TOLD.parameters(_recipient_rows((each, each.recipients) for each in records)),
        **_LEAVES.parameters([(each.mail_id, each.claim, each.attempt_id) for each in marks]),
    }
    done: dict[str, list[UUID]] = {"settled": [], "written": [], "marked": []}
    for what, each in connection.execute(_ALL_AT_ONCE, given):
        done[what].append(each)
    settled, written = set(done["settled"]), Counter(done["written"])
    partly = [each.mail_id for each in records if written[each.mail_id] < len(each.recipients)]
    return _follow(connection, records, settled, [each for each in partly if each in settled]), set(done["marked"])
