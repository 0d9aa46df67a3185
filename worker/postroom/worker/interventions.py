"""What a person may do with a mail: cancel it, send it again, or say what became of an uncertain one (design §5)."""

from typing import Final, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, case, func, select, update

from postroom.config.accounts import rfc3339
from postroom.config.database import now
from postroom.config.states import MailState, RecipientState
from postroom.config.tables import mails, recipients
from postroom.producer.errors import Refused
from postroom.worker import copies, lanes, limits
from postroom.worker.erasing import HAS_CONTENT
from postroom.worker.transitions import ENDED, Step, may

Resolution = Literal["delivered", "resend", "drop"]

_SENT_AGAIN: Final = "sent again"
_MAY_HAVE_GONE: Final = may(Step.RESOLVE_RESEND) | (mails.c.copies_possible > 1)


def cancel(connection: Connection, mail_id: UUID) -> None:
    """Take a mail back before it leaves. A claimed one too, until its mark stands: the fence then stops its worker.

    Raises:
        Refused: it has ended, may have been delivered, or is being sent at this moment.
    """
    _change(
        connection,
        mail_id,
        and_(may(Step.CANCEL), mails.c.marked_at.is_(None), ~_MAY_HAVE_GONE),
        "cancelled",
        state=MailState.CANCELLED,
        reason=None,
        ready=False,
        claim=None,
        due_at=None,
        held_at=None,
        ended_at=now(),
    )
    limits.return_unsent(connection, [mail_id])


def resend(connection: Connection, mail_id: UUID) -> set[UUID]:
    """Send a failed mail again, or a held one that waits for a person; its refused recipients are tried again.

    Returns:
        The accounts that got mail.

    Raises:
        Refused: it is neither; nothing was changed.
    """
    _queue(connection, mail_id, may(Step.RESEND), _SENT_AGAIN)
    connection.execute(
        update(recipients)
        .where(recipients.c.mail_id == mail_id, recipients.c.state != RecipientState.ACCEPTED)
        .values(state=RecipientState.PENDING, reply=None, enhanced_status_code=None)
    )
    return lanes.place(connection, [mail_id]).accounts


def resolve(connection: Connection, mail_id: UUID, resolution: Resolution) -> set[UUID]:
    """Say what became of a mail that may have been delivered.

    `delivered`: it was. `resend`: send it again; two copies may then exist, and the mail says so. `drop`: leave it.
    One that already waits to be sent again is `delivered` or dropped too, and then no second copy leaves.

    Returns:
        The accounts that got mail.

    Raises:
        Refused: the mail is not uncertain, or is being sent at this moment; nothing was changed.
    """
    if resolution == "resend":
        _queue(connection, mail_id, may(Step.RESOLVE_RESEND), _SENT_AGAIN, copies_possible=copies.possible())
        return lanes.place(connection, [mail_id]).accounts
    delivered = resolution == "delivered"
    _change(
        connection,
        mail_id,
        and_(may(Step.RESOLVE_END), _MAY_HAVE_GONE),
        "resolved",
        state=MailState.SENT if delivered else MailState.CANCELLED,
        reason=None,
        ready=False,
        due_at=None,
        held_at=None,
        ended_at=now(),
    )
    if delivered:
        connection.execute(
            update(recipients)
            .where(recipients.c.mail_id == mail_id, recipients.c.state == RecipientState.PENDING)
            .values(state=RecipientState.ACCEPTED)
        )
    return set()


_IS_OVER = mails.c.expires_absolute & (mails.c.expires_at <= now())
_TIMES = select(
    mails.c.expires_absolute,
    mails.c.expires_at,
    func.coalesce(
        mails.c.resent_at, case((mails.c.send_at > mails.c.created_at, mails.c.send_at), else_=mails.c.created_at)
    ).label("began_at"),
)
"""`began_at`: from when its lifetime is counted."""


def _queue(connection: Connection, mail_id: UUID, where: ColumnElement[bool], what: str, **values: object) -> None:
    """Queue in no lane; the caller then chooses one. Its lifetime starts anew unless its producer set an end."""
    times = connection.execute(_TIMES.where(mails.c.id == mail_id)).first()
    if times is not None and not times.expires_absolute:
        values["expires_at"] = now((times.expires_at - times.began_at).total_seconds())
    _change(
        connection,
        mail_id,
        and_(where, ~_IS_OVER),
        what,
        state=MailState.QUEUED,
        reason=None,
        account_id=None,
        ready=False,
        due_at=now(),
        held_at=None,
        ended_at=None,
        attempts=0,
        crashes=0,
        resent_at=now(),
        **values,
    )


def _change(connection: Connection, mail_id: UUID, where: ColumnElement[bool], what: str, **values: object) -> None:
    changed = connection.execute(update(mails).where(mails.c.id == mail_id, where, HAS_CONTENT).values(values))
    if changed.rowcount != 1:
        raise Refused(_why_not(connection, mail_id, what))


def _why_not(connection: Connection, mail_id: UUID, what: str) -> str:
    may_have_gone, has_content = _MAY_HAVE_GONE.label("may_have_gone"), HAS_CONTENT.label("has_content")
    known = select(
        mails.c.state, mails.c.reason, mails.c.expires_at, may_have_gone, has_content, _IS_OVER.label("is_over")
    )
    found = connection.execute(known.where(mails.c.id == mail_id)).first()
    if found is None:
        return f"there is no mail {mail_id}; `postroom mail list` shows them"
    hint = ""
    if not found.has_content:
        hint = ": its content was erased, and nothing more can be done with it"
    elif found.state == MailState.SENDING:
        hint = ": it is in a worker's hands; look again in a moment"
    elif found.is_over and what == _SENT_AGAIN:
        hint = f": its producer wants it sent until {rfc3339(found.expires_at)}, and no later"
    elif found.may_have_gone and found.state not in ENDED:
        hint = f": it may have been delivered; `postroom mail resolve {mail_id}` says what became of it"
    return f"mail {mail_id} is {found.state}{f' ({found.reason})' if found.reason else ''} and cannot be {what}{hint}"
