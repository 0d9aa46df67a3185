"""Release: held mail whose cause is gone leaves by itself; what waits in a lane that can no longer send it is chosen
anew: its account is gone, was deactivated, has another address or owner, or is not healthy where another one is.
"""

from sqlalchemy import exists, or_, select, true

from postroom.config.states import Health, MailState
from postroom.config.tables import accounts, mails
from postroom.worker import lanes
from postroom.worker.process import Process

_MOST = 1000


def release(process: Process) -> int:
    """Choose anew for a bounded number of mails; returns how many were looked at."""
    other = accounts.alias("other")
    better = (
        exists()
        .where(
            other.c.address_key == mails.c.from_key,
            other.c.active == true(),
            other.c.health == Health.OK,
            or_(other.c.owner.is_(None), other.c.owner == mails.c.owner),
        )
        .correlate(mails)  # it stands two queries deep, and SQLAlchemy looks one out
    )
    able = exists().where(
        accounts.c.id == mails.c.account_id,
        accounts.c.active == true(),
        accounts.c.address_key == mails.c.from_key,
        or_(accounts.c.owner.is_(None), accounts.c.owner == mails.c.owner),
        or_(accounts.c.health == Health.OK, (accounts.c.health == Health.FAILING) & ~better),
    )
    orphaned = (
        select(mails.c.id)
        .where(
            mails.c.ended_at.is_(None),
            mails.c.claim.is_(None),
            mails.c.state.in_([MailState.QUEUED, MailState.DEFERRED]),
            ~able,
        )
        .limit(_MOST)
    )
    with process.database.read() as connection:
        ids = [*lanes.releasable(connection, limit=_MOST), *connection.execute(orphaned).scalars()]
    if not ids:
        return 0
    with process.database.write() as connection:
        got_mail = lanes.place(connection, ids)
    for account_id in got_mail:
        process.nudges.drain(account_id)
    return len(ids)
