"""Release: held mail whose cause is gone leaves by itself; what waits in the lane of an account that is gone or was
deactivated is chosen anew.
"""

from sqlalchemy import exists, select, true

from postroom.config.states import MailState
from postroom.config.tables import accounts, mails
from postroom.worker import lanes
from postroom.worker.process import Process

_MOST = 1000


def release(process: Process) -> int:
    """Choose anew for a bounded number of mails; returns how many were looked at."""
    active = exists().where(accounts.c.id == mails.c.account_id, accounts.c.active == true())
    orphaned = (
        select(mails.c.id)
        .where(
            mails.c.ended_at.is_(None),
            mails.c.claim.is_(None),
            mails.c.state.in_([MailState.QUEUED, MailState.DEFERRED]),
            ~active,
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
