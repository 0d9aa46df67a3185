"""The ledger's writing of attempts. What may change a mail's state is in `transitions`.

Each change is a conditional UPDATE; when not exactly one row changed, somebody else won and nothing else is written.
The *mark* says that the final dot of an attempt may now go. It is durable before the dot and fenced by the claim, so
a worker whose claim was taken away sends nothing more.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Connection,
    Insert,
    Update,
    bindparam,
    case,
    exists,
    func,
    insert,
    select,
    true,
    update,
)

from postroom.config.database import now
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
    """Write outcomes and marks, in order."""
    done = []
    for each in turns:
        settled = each.record is not None and _record(connection, each.record)
        marked = each.mark is not None and _mark(connection, each.mark)
        done.append(TurnDone(settled, marked))
    return done


_MARK = (
    update(mails)
    .where(mails.c.id == bindparam("mail"), mails.c.claim == bindparam("held_claim"))
    .values(attempt_id=bindparam("attempt"), marked_at=now())
)


def _mark(connection: Connection, mark: Mark) -> bool:
    marked = connection.execute(_MARK, {"mail": mark.mail_id, "held_claim": mark.claim, "attempt": mark.attempt_id})
    return marked.rowcount == 1


def _record(connection: Connection, record: Record) -> bool:
    """Write one attempt; one that is written already changes nothing. Returns whether it settled its mail."""
    unsent = limits.counted(connection, [record.mail_id]) if record.outcome is Outcome.UNREACHED else []
    if not _settle(connection, record, _SETTLE, held_claim=record.claim):
        return _record_late(connection, record)
    limits.give_back(connection, unsent)
    _write_attempt(connection, record, _INSERT_ATTEMPT, doubled=False)
    if not _write_recipients(connection, record, record.recipients):
        _follow_recipients(connection, record.mail_id)
    if record.next.choose:
        lanes.place(connection, [record.mail_id])
    return True


def _record_late(connection: Connection, record: Record) -> bool:
    """Write a reply that came after the lease was lost. It settles its mail, unless another attempt was marked since:
    then those whom the server took get no further copy, and the attempt is noted as doubled.
    """
    if record.outcome is Outcome.UNCERTAIN or not _is_noted_as_uncertain(connection, record.attempt_id):
        return False  # nothing new; or the claim was taken away before the mark, or this record is written already
    if erasing.is_erased(connection, record.mail_id):
        record = _without_words(record)
    settled = _settle(connection, record, _SETTLE_LATE, over=record.account_id)
    accepted = [each for each in record.recipients if each.state is RecipientState.ACCEPTED]
    doubled = bool(accepted) and not settled and _is_overtaken(connection, record)
    _write_attempt(connection, record, _UPDATE_ATTEMPT, doubled=doubled)
    _write_recipients(connection, record, record.recipients if settled else accepted)
    if _follow_recipients(connection, record.mail_id):
        return True
    if settled and record.next.choose:
        lanes.place(connection, [record.mail_id])
    return settled


def _without_words(record: Record) -> Record:
    """Of servers' words the codes alone: the words repeat addresses, and were erased from this mail."""
    told = tuple(replace(each, reply=erasing.code_of(each.reply)) for each in record.recipients)
    return replace(record, reply=erasing.code_of(record.reply), recipients=told)


# Statements are built once: building one costs several times what running it does.

_STEP = (
    update(mails)
    .where(mails.c.id == bindparam("mail"))
    .values(
        state=bindparam("new_state"),
        reason=bindparam("new_reason"),
        ready=bindparam("now_ready"),
        due_at=case((bindparam("waits", type_=Boolean) == true(), now(bindparam("due_in_seconds")))),
        held_at=case((bindparam("holds", type_=Boolean) == true(), now())),
        ended_at=case((bindparam("ends", type_=Boolean) == true(), now())),
        attempts=mails.c.attempts + bindparam("counted"),
        claim=None,
        claimed_at=None,
        marked_at=None,
    )
)
_IS_WRITTEN = exists().where(attempts.c.id == bindparam("attempt"))
_SETTLE = _STEP.where(mails.c.claim == bindparam("held_claim"), ~_IS_WRITTEN)
_SETTLE_LATE = _STEP.where(mails.c.attempt_id == bindparam("attempt"), may(Step.LATE_REPLY)).values(
    account_id=bindparam("over"),  # held, it has none; if this one can send no more, it is chosen anew
    copies_possible=copies.possible(now_settled=bindparam("attempt")),
    expires_at=lifetime.with_held_time(),
)


def _settle(connection: Connection, record: Record, statement: Update, **more: UUID) -> bool:
    step = record.next
    late = statement is _SETTLE_LATE
    if step.state not in WAYS[Step.LATE_REPLY if late else Step.ATTEMPT].to:
        raise ValueError(f"an attempt cannot leave its mail {step.state}")
    changed = connection.execute(
        statement,
        {
            "mail": record.mail_id,
            "attempt": record.attempt_id,
            "new_state": step.state,
            "new_reason": step.reason,
            "now_ready": step.due_in_seconds == 0,
            "waits": step.due_in_seconds is not None or step.choose,
            "due_in_seconds": step.due_in_seconds or 0.0,
            "holds": step.state is MailState.HELD,
            "ends": step.state in ENDED,
            "counted": int(step.counts and not late),  # it was counted when it was noted as uncertain
            **more,
        },
    )
    return changed.rowcount == 1


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


_INSERT_ATTEMPT = insert(attempts).values(started_at=now(bindparam("began_seconds")))
_UPDATE_ATTEMPT = (
    update(attempts)
    .where(attempts.c.id == bindparam("attempt"))
    .values(
        {
            name: bindparam(f"new_{name}")
            for name in ("duration_seconds", "outcome", "scope", "rule", "reply", "enhanced_status_code", "doubled")
        }
    )
)


def _write_attempt(connection: Connection, record: Record, statement: Insert | Update, *, doubled: bool) -> None:
    found = {
        "duration_seconds": record.duration_seconds,
        "outcome": record.outcome,
        "scope": record.scope,
        "rule": record.rule,
        "reply": record.reply,
        "enhanced_status_code": record.enhanced_status_code,
        "doubled": doubled,
    }
    if statement is _UPDATE_ATTEMPT:
        renamed = {f"new_{name}": value for name, value in found.items()}
        connection.execute(statement, {"attempt": record.attempt_id, **renamed})
        return
    identity = {
        "id": record.attempt_id,
        "mail_id": record.mail_id,
        "account_id": record.account_id,
        "claim": record.claim,
        "began_seconds": -record.duration_seconds,
    }
    connection.execute(statement, {**identity, **found})


_RECIPIENT = (
    update(recipients)
    .where(
        recipients.c.mail_id == bindparam("mail"),
        recipients.c.position == bindparam("at"),
        recipients.c.state != RecipientState.ACCEPTED,  # by the reply to an earlier attempt, that came late
    )
    .values(state=bindparam("new_state"), reply=bindparam("new_reply"), enhanced_status_code=bindparam("new_code"))
)


def _write_recipients(connection: Connection, record: Record, them: Sequence[RecipientRecord]) -> bool:
    """Write outcomes of recipients; whether none of them had been accepted before."""
    if not them:
        return True
    written = connection.execute(
        _RECIPIENT,
        [
            {
                "mail": record.mail_id,
                "at": recipient.position,
                "new_state": recipient.state,
                "new_reply": recipient.reply,
                "new_code": recipient.enhanced_status_code,
            }
            for recipient in them
        ],
    )
    return written.rowcount == len(them)
