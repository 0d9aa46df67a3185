"""Expire: what could not leave in time. Held mail expires only by an absolute time that its producer set."""

from sqlalchemy import update

from postroom.config.database import now
from postroom.config.states import HeldReason, MailState
from postroom.config.tables import mails
from postroom.worker.process import Process


def expire(process: Process) -> int:
    """End what is over its time; returns how many mails that were. One that may have been delivered stays held."""
    over = (mails.c.ended_at.is_(None), mails.c.claim.is_(None), mails.c.expires_at <= now())
    waiting = mails.c.state.in_([MailState.QUEUED, MailState.DEFERRED])
    held = (mails.c.state == MailState.HELD) & mails.c.expires_absolute & (mails.c.reason != HeldReason.UNCERTAIN)
    with process.database.write() as connection:
        ended = connection.execute(
            update(mails)
            .where(*over, waiting | held)
            .values(state=MailState.EXPIRED, reason=None, ready=False, due_at=None, held_at=None, ended_at=now())
        )
        return ended.rowcount
