"""Due: mails whose time has come are ready; uncertain ones are sent again, once; lanes with ready mail are nudged."""

import time
from typing import Final

from sqlalchemy import ColumnElement, Connection, exists, false, select, true, update

from postroom.config.database import now
from postroom.config.states import HeldReason, MailState
from postroom.config.tables import accounts, mails, slots
from postroom.worker import copies, lanes, turns
from postroom.worker.claim import MAY_SEND
from postroom.worker.process import Process
from postroom.worker.transitions import Step, may

_MOST: Final = 5000


def due(process: Process) -> int:
    """Make ready what is due; returns how many mails that were."""
    with process.database.read() as connection:
        waiting = select(mails.c.id).where(
            mails.c.ready == false(), mails.c.due_at.is_not(None), mails.c.claim.is_(None), mails.c.due_at <= now()
        )
        ids = list(connection.execute(waiting.order_by(mails.c.due_at).limit(_MOST)).scalars())
    if ids:
        with process.database.write() as connection:
            ids = turns.give_in_their_lanes(connection, ids)
            still_due = (mails.c.id.in_(ids), mails.c.claim.is_(None), mails.c.due_at <= now())
            connection.execute(update(mails).where(*still_due, may(Step.CLAIM)).values(ready=True))
            _send_uncertain_again(connection, *still_due)
    _nudge_lanes(process)
    return len(ids)


def _send_uncertain_again(connection: Connection, *still_due: ColumnElement[bool]) -> None:
    """Queue uncertain mails once more, over the same account; hold those that cannot go over it in time.

    It is announced before it leaves: from now on two copies may exist.
    """
    uncertain = (*still_due, may(Step.SECOND_COPY))
    same_account = exists().where(
        accounts.c.id == mails.c.account_id,
        accounts.c.active == true(),
        accounts.c.address_key == mails.c.from_key,
        accounts.c.owner.is_(None) | (accounts.c.owner == mails.c.owner),
    )
    may_go = same_account & (mails.c.expires_at > now())
    connection.execute(
        update(mails)
        .where(*uncertain, may_go)
        .values(state=MailState.QUEUED, ready=True, copies_possible=copies.possible())
    )
    connection.execute(
        update(mails)
        .where(*uncertain)
        .values(state=MailState.HELD, reason=HeldReason.UNCERTAIN, due_at=None, held_at=now())
    )


_READY: Final = mails.alias("ready")
_READY_LANES: Final = lanes.every_lane("ready_lanes", _READY, _READY.c.ready == true())
_IDLE: Final = (
    select(accounts.c.id, lanes.next_to_leave(mails, accounts.c.id).label("first"))
    .join(_READY_LANES, _READY_LANES.c.account_id == accounts.c.id)
    .where(accounts.c.active, MAY_SEND, ~exists().where(slots.c.account_id == accounts.c.id))
)


def _nudge_lanes(process: Process) -> None:
    """Nudge lanes that have ready mail and no drain at work: their nudge was lost, or the time has just come."""
    with process.database.read() as connection:
        idle = {row.id: row.first for row in connection.execute(_IDLE)}
    for account_id in process.pacing.due(idle, time.monotonic()):
        process.nudges.drain(account_id)
