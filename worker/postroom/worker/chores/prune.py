"""Prune: rows that nobody needs any longer are deleted: erased mails, old rejects, counts and turns that are over."""

from typing import Final

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, or_, select, tuple_

from postroom.config.database import now
from postroom.config.tables import counts, mails, rejects, turns
from postroom.worker.chores.chunks import in_chunks
from postroom.worker.chores.erase import DAY_SECONDS
from postroom.worker.limits import MAILS, RECIPIENTS
from postroom.worker.process import Process

_CHUNK: Final = 200
_LEAST_DAYS_OF_A_REJECT: Final = 7
"""A rejected job that was not replayed has not been sent: it waits for a person, even where mail is erased at once."""
_BUCKETS_LONGER: Final = 60
"""How many buckets stay beyond those that count: a clock may be behind."""
_TURN_SECONDS: Final = DAY_SECONDS


def prune(process: Process) -> int:
    """Delete what is over; returns how many rows that were. Recipients and attempts go with their mail."""
    settings = process.settings
    erased = mails.c.erased_at <= now(-settings.keep_erased_days * DAY_SECONDS)
    rejected = _rejected(settings.erase_after_days)
    turned = turns.c.given_at <= now(-_TURN_SECONDS)
    old_rejects = _delete(process, rejects, rejected, order=rejects.c.created_at)
    if old_rejects:
        process.database.forget()
    return (
        old_rejects
        + _delete(process, mails, and_(mails.c.erased_at.is_not(None), erased), order=mails.c.erased_at)
        + _delete(process, turns, turned, order=turns.c.given_at)
        + _delete(process, counts, _counted(process), order=counts.c.bucket)
    )


def _rejected(days: int) -> ColumnElement[bool]:
    unsent = rejects.c.created_at <= now(-max(days, _LEAST_DAYS_OF_A_REJECT) * DAY_SECONDS)
    replayed = rejects.c.replayed_at.is_not(None)
    return and_(rejects.c.created_at <= now(-days * DAY_SECONDS), or_(replayed, unsent))


def _counted(process: Process) -> ColumnElement[bool]:
    """Buckets that count against no limit any longer."""
    with process.database.read() as connection:
        moment = connection.execute(select(now())).scalar_one()
    return or_(
        *(
            and_(counts.c.span == span.name, counts.c.bucket < span.oldest(moment) - _BUCKETS_LONGER)
            for span in (MAILS, RECIPIENTS)
        )
    )


def _delete(process: Process, table: Table, over: ColumnElement[bool], *, order: ColumnElement[object]) -> int:
    key = tuple_(*table.primary_key.columns)
    found = select(*table.primary_key.columns).where(over).order_by(order).limit(_CHUNK)
    statement = delete(table).where(key.in_(found.with_for_update(skip_locked=True)), over)

    def step(connection: Connection) -> int:
        return connection.execute(statement).rowcount

    return in_chunks(process, step, chunk=_CHUNK)
