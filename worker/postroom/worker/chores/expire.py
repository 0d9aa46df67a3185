"""Expire: what could not leave in time. Held mail expires only by an absolute time that its producer set."""

from sqlalchemy import update

from postroom.config.database import now
from postroom.config.states import HeldReason, MailState
from postroom.config.tables import mails
from postroom.worker.process import Process
from postroom.worker.transitions import Step, may


def expire(process: Process) -> int:
    """End what is over its time; returns how many mails that were. One that may have been delivered is held instead."""
    its_time_runs = (mails.c.state != MailState.HELD) | mails.c.expires_absolute
    over = (mails.c.ended_at.is_(None), mails.c.claim.is_(None), mails.c.expires_at <= now(), its_time_runs)
    leaves = {"ready": False, "due_at": None}
    with process.database.write() as connection:
        held = connection.execute(
            update(mails)
            .where(*over, may(Step.EXPIRY), mails.c.copies_possible > 1)
            .values(state=MailState.HELD, reason=HeldReason.UNCERTAIN, held_at=now(), **leaves)
        )
        ended = connection.execute(
            update(mails)
            .where(*over, may(Step.EXPIRY))
            .values(state=MailState.EXPIRED, reason=None, held_at=None, ended_at=now(), **leaves)
        )
        return held.rowcount + ended.rowcount
