"""Erase: mails that ended long enough ago lose their content and all that is personal (design §9).

Two schedulers share the work: what one has locked the other passes over.
"""

from typing import Final

from sqlalchemy import bindparam, select

from postroom.config.database import now
from postroom.config.tables import mails
from postroom.worker.chores.chunks import in_chunks
from postroom.worker.erasing import MAY_BE_ERASED, erase_mails
from postroom.worker.process import Process

_CHUNK: Final = 100
DAY_SECONDS: Final = 86_400.0

_ENDED: Final = (
    select(mails.c.id)
    .where(*MAY_BE_ERASED, mails.c.ended_at <= now(bindparam("seconds")))
    .order_by(mails.c.ended_at)
    .limit(_CHUNK)
    .with_for_update(skip_locked=True)
)


def erase(process: Process) -> int:
    """Erase what is due; returns how many mails that were."""
    ended = _ENDED.params(seconds=-process.settings.erase_after_days * DAY_SECONDS)
    erased = in_chunks(process, lambda connection: erase_mails(connection, ended), chunk=_CHUNK)
    if erased:
        process.database.forget()
    return erased
