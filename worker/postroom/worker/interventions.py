"""What a person may do with a mail: cancel it, send it again, or say what became of an uncertain one (design §5)."""

from typing import Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, select, update

from postroom.config.database import now
from postroom.config.mails import state_of
from postroom.config.states import HeldReason, MailState, RecipientState
from postroom.config.tables import mails, recipients
from postroom.producer.errors import Refused
from postroom.worker import lanes

Resolution = Literal["delivered", "resend", "drop"]

_MAY_BE_RESENT = (HeldReason.SENDER_REFUSED, HeldReason.POISON)
_MAY_HAVE_GONE = (mails.c.state == MailState.UNCERTAIN) | (
    (mails.c.state == MailState.HELD) & (mails.c.reason == HeldReason.UNCERTAIN)
)


def cancel(connection: Connection, mail_id: UUID) -> None:
    """Take a mail back before it leaves. A claimed one too, until its mark stands: the fence then stops its worker.

    Raises:
        Refused: it has ended, may have been delivered, or is being sent at this moment.
    """
    waits = mails.c.state.in_([MailState.QUEUED, MailState.DEFERRED, MailState.HELD])
    unmarked = and_(mails.c.state == MailState.SENDING, mails.c.marked_at.is_(None))
    certain = mails.c.reason.is_(None) | (mails.c.reason != HeldReason.UNCERTAIN)
    _change(
        connection,
        mail_id,
        (waits & certain) | unmarked,
        "cancelled",
        state=MailState.CANCELLED,
        reason=None,
        ready=False,
        claim=None,
        due_at=None,
        held_at=None,
        ended_at=now(),
    )


def resend(connection: Connection, mail_id: UUID) -> set[UUID]:
    """Send a failed mail again, or a held one that waits for a person; its refused recipients are tried again.

    Returns:
        The accounts that got mail.

    Raises:
        Refused: it is neither; nothing was changed.
    """
    held = and_(mails.c.state == MailState.HELD, mails.c.reason.in_(_MAY_BE_RESENT))
    _queue(connection, mail_id, (mails.c.state == MailState.FAILED) | held, "sent again")
    connection.execute(
        update(recipients)
        .where(recipients.c.mail_id == mail_id, recipients.c.state != RecipientState.ACCEPTED)
        .values(state=RecipientState.PENDING, reply=None, enhanced_status_code=None)
    )
    return lanes.place(connection, [mail_id]).accounts


def resolve(connection: Connection, mail_id: UUID, resolution: Resolution) -> set[UUID]:
    """Say what became of a mail that may have been delivered.

    `delivered`: it was. `resend`: send it again; two copies may then exist, and the mail says so. `drop`: leave it.

    Returns:
        The accounts that got mail.

    Raises:
        Refused: the mail is not uncertain; nothing was changed.
    """
    if resolution == "resend":
        _queue(connection, mail_id, _MAY_HAVE_GONE, "resolved", copies_possible=mails.c.copies_possible + 1)
        return lanes.place(connection, [mail_id]).accounts
    delivered = resolution == "delivered"
    _change(
        connection,
        mail_id,
        _MAY_HAVE_GONE,
        "resolved",
        state=MailState.SENT if delivered else MailState.CANCELLED,
        reason=None,
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


def _queue(connection: Connection, mail_id: UUID, may: ColumnElement[bool], what: str, **values: object) -> None:
    """Queue in no lane; the caller then chooses one. Its lifetime starts anew unless its producer set an end."""
    lifetime = connection.execute(
        select(mails.c.created_at, mails.c.expires_at, mails.c.expires_absolute).where(mails.c.id == mail_id)
    ).first()
    if lifetime is not None and not lifetime.expires_absolute:
        values["expires_at"] = now((lifetime.expires_at - lifetime.created_at).total_seconds())
    _change(
        connection,
        mail_id,
        may,
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


def _change(connection: Connection, mail_id: UUID, may: ColumnElement[bool], what: str, **values: object) -> None:
    changed = connection.execute(update(mails).where(mails.c.id == mail_id, may).values(values))
    if changed.rowcount == 1:
        return
    found = state_of(connection, mail_id)
    if found is None:
        raise Refused(f"there is no mail {mail_id}; `postroom mail list` shows them")
    state, reason = found
    raise Refused(f"mail {mail_id} is {state}{f' ({reason})' if reason else ''} and cannot be {what}")
