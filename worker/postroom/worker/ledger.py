"""The ledger's writing of attempts: the only place, with `lanes` and `interventions`, where a mail's state changes.

Each change is a conditional UPDATE; when not exactly one row changed, somebody else won and nothing else is written.
The *mark* says that the final dot of an attempt may now go. It is durable before the dot and fenced by the claim, so
a worker whose claim was taken away sends nothing more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Boolean, Connection, Insert, Update, bindparam, case, insert, select, true, update

from postroom.config.database import now
from postroom.config.states import MailState, Outcome, RecipientState, Scope
from postroom.config.tables import attempts, mails, recipients
from postroom.worker import lanes
from postroom.worker.retry import Next

TRANSITIONS: Final[dict[MailState, frozenset[MailState]]] = {
    MailState.QUEUED: frozenset({MailState.SENDING, MailState.HELD, MailState.CANCELLED, MailState.EXPIRED}),
    MailState.SENDING: frozenset(
        {
            MailState.SENT,
            MailState.DEFERRED,
            MailState.HELD,
            MailState.FAILED,
            MailState.UNCERTAIN,
            MailState.QUEUED,
            MailState.CANCELLED,  # claimed and not yet marked: the fence keeps the worker from sending it
        }
    ),
    MailState.DEFERRED: frozenset(
        {MailState.SENDING, MailState.QUEUED, MailState.HELD, MailState.CANCELLED, MailState.EXPIRED}
    ),
    MailState.HELD: frozenset(
        {MailState.QUEUED, MailState.CANCELLED, MailState.EXPIRED, MailState.SENT, MailState.FAILED}
    ),
    MailState.UNCERTAIN: frozenset(
        {
            MailState.SENT,
            MailState.FAILED,
            MailState.DEFERRED,
            MailState.QUEUED,
            MailState.HELD,
            MailState.CANCELLED,
        }
    ),
    MailState.SENT: frozenset(),
    MailState.FAILED: frozenset({MailState.QUEUED}),
    MailState.CANCELLED: frozenset(),
    MailState.EXPIRED: frozenset(),
}
"""Every way a mail may go (design §5). A state that is not in a row cannot be reached from it."""

ENDED: Final = frozenset({MailState.SENT, MailState.FAILED, MailState.CANCELLED, MailState.EXPIRED})


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
    """Write one attempt. A reply that comes after the lease was lost still settles its mail, unless another attempt
    was marked since; then it is only noted, as doubled where the server took it.
    """
    settled = _settle(connection, record, _SETTLE, held_claim=record.claim)
    known = None if settled else _known_outcome(connection, record.attempt_id)
    if known is Outcome.UNCERTAIN:
        settled = _settle(connection, record, _SETTLE_LATE, attempt=record.attempt_id)
    elif not settled:
        return False  # the claim was taken away before the mark, or this very record is written already
    late = known is not None
    doubled = late and not settled and record.outcome is Outcome.ACCEPTED
    _write_attempt(connection, record, _UPDATE_ATTEMPT if late else _INSERT_ATTEMPT, doubled=doubled)
    if settled:
        _write_recipients(connection, record)
        if record.next.choose:
            lanes.place(connection, [record.mail_id])
    return settled


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
        marked_at=None,
    )
)
_SETTLE = _STEP.where(mails.c.claim == bindparam("held_claim"))
_SETTLE_LATE = _STEP.where(mails.c.attempt_id == bindparam("attempt"), mails.c.ended_at.is_(None))


def _settle(connection: Connection, record: Record, statement: Update, **fence: UUID) -> bool:
    step = record.next
    if step.state not in TRANSITIONS[MailState.SENDING]:
        raise ValueError(f"an attempt cannot leave its mail {step.state}")
    changed = connection.execute(
        statement,
        {
            "mail": record.mail_id,
            "new_state": step.state,
            "new_reason": step.reason,
            "now_ready": step.due_in_seconds == 0,
            "waits": step.due_in_seconds is not None or step.choose,
            "due_in_seconds": step.due_in_seconds or 0.0,
            "holds": step.state is MailState.HELD,
            "ends": step.state in ENDED,
            "counted": int(step.counts),
            **fence,
        },
    )
    return changed.rowcount == 1


_KNOWN = select(attempts.c.outcome).where(attempts.c.id == bindparam("attempt"))


def _known_outcome(connection: Connection, attempt_id: UUID) -> Outcome | None:
    outcome = connection.execute(_KNOWN, {"attempt": attempt_id}).scalar()
    return None if outcome is None else Outcome(outcome)


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
    .where(recipients.c.mail_id == bindparam("mail"), recipients.c.position == bindparam("at"))
    .values(state=bindparam("new_state"), reply=bindparam("new_reply"), enhanced_status_code=bindparam("new_code"))
)


def _write_recipients(connection: Connection, record: Record) -> None:
    if not record.recipients:
        return
    connection.execute(
        _RECIPIENT,
        [
            {
                "mail": record.mail_id,
                "at": recipient.position,
                "new_state": recipient.state,
                "new_reply": recipient.reply,
                "new_code": recipient.enhanced_status_code,
            }
            for recipient in record.recipients
        ],
    )
