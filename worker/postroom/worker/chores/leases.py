"""Leases: what a lost worker held goes back to its lane, or becomes uncertain where its final dot may have gone."""

from typing import Final
from uuid import UUID

from sqlalchemy import Connection, case, delete, exists, literal, select, update

from postroom.config.database import insert_new, now
from postroom.config.states import HeldReason, MailState, OnUncertain, Outcome
from postroom.config.tables import attempts, mails, slots
from postroom.worker import limits
from postroom.worker.lanes import LANE_ORDER
from postroom.worker.process import Process
from postroom.worker.retry import UNCERTAIN_WAIT_SECONDS

MOST_CRASHES: Final = 5
_LOST = "the worker was lost after the final dot was permitted and before the server's reply was recorded"


def leases(process: Process) -> int:
    """Take back what was lost; returns how many mails that were."""
    with process.database.write() as connection:
        connection.execute(delete(slots).where(slots.c.lease_until < now()))
        standing = exists().where(slots.c.claim == mails.c.claim)
        lost = connection.execute(
            select(mails.c.id, mails.c.claim, mails.c.marked_at)
            .where(mails.c.claim.is_not(None), ~standing)
            .order_by(mails.c.claim, *LANE_ORDER)
            .with_for_update(of=mails, skip_locked=True)  # a mark or record that is being written goes first
        ).all()
        _uncertain(connection, [row.id for row in lost if row.marked_at is not None])
        unmarked = [row for row in lost if row.marked_at is None]
        in_hand = list({row.claim: row.id for row in reversed(unmarked)}.values())
        _ready_again(connection, [row.id for row in unmarked], in_hand)
        return len(lost)


def _uncertain(connection: Connection, ids: list[UUID]) -> None:
    """Note the attempt as uncertain, so that a late reply finds it, and let the mail wait by its policy."""
    if not ids:
        return
    noted = select(
        mails.c.attempt_id,
        mails.c.id,
        mails.c.account_id,
        mails.c.claim,
        mails.c.marked_at,
        literal(0.0),
        literal(Outcome.UNCERTAIN.value),
        literal(_LOST),
        literal(False),
    ).where(mails.c.id.in_(ids))
    columns = ["id", "mail_id", "account_id", "claim", "started_at", "duration_seconds", "outcome", "reply", "doubled"]
    connection.execute(insert_new(attempts, connection).from_select(columns, noted))
    holds = (mails.c.on_uncertain == OnUncertain.HOLD) | (mails.c.copies_possible > 1)
    connection.execute(
        update(mails)
        .where(mails.c.id.in_(ids))
        .values(
            state=case((holds, MailState.HELD.value), else_=MailState.UNCERTAIN.value),
            reason=case((holds, HeldReason.UNCERTAIN.value)),
            due_at=case((~holds, now(UNCERTAIN_WAIT_SECONDS))),
            held_at=case((holds, now())),
            attempts=mails.c.attempts + 1,
            claim=None,
            claimed_at=None,
            marked_at=None,
        )
    )


def _ready_again(connection: Connection, ids: list[UUID], in_hand: list[UUID]) -> None:
    """Queue what was not marked. The first of each claim was in hand; at its fifth crash it waits for a person."""
    if not ids:
        return
    connection.execute(update(mails).where(mails.c.id.in_(in_hand)).values(crashes=mails.c.crashes + 1))
    poison = mails.c.crashes >= MOST_CRASHES
    connection.execute(
        update(mails)
        .where(mails.c.id.in_(ids))
        .values(
            state=case((poison, MailState.HELD.value), else_=MailState.QUEUED.value),
            reason=case((poison, HeldReason.POISON.value)),
            ready=~poison,
            due_at=case((~poison, now())),
            held_at=case((poison, now())),
            claim=None,
        )
    )
    limits.return_unsent(connection, ids)
