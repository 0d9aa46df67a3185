"""Reading mails, in the shapes of design §10. Only the ledger writes them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, func, select

from postroom.config.accounts import rfc3339
from postroom.config.states import HeldReason, MailState, PriorityRank, RecipientKind
from postroom.config.tables import attempts, mails, recipients
from postroom.producer.errors import Refused
from postroom.producer.mail import address_key


@dataclass(frozen=True, slots=True)
class Filter:
    """Which mails to list; what is None does not narrow."""

    state: MailState | None = None
    reason: HeldReason | None = None
    account_id: UUID | None = None
    sender: str | None = None
    recipient: str | None = None
    owner: str | None = None
    template: str | None = None
    since: datetime | None = None
    until: datetime | None = None


def newest(connection: Connection, wanted: Filter, *, limit: int) -> list[dict[str, Any]]:
    """Mails, newest first."""
    query = select(mails).order_by(mails.c.created_at.desc(), mails.c.id.desc()).limit(limit)
    equal = {
        mails.c.state: wanted.state,
        mails.c.reason: wanted.reason,
        mails.c.account_id: wanted.account_id,
        mails.c.from_key: address_key(wanted.sender) if wanted.sender else None,
        mails.c.owner: wanted.owner,
        mails.c.template_name: wanted.template,
    }
    query = query.where(*(column == value for column, value in equal.items() if value is not None))
    if wanted.recipient is not None:
        named = select(recipients.c.mail_id).where(func.lower(recipients.c.address) == wanted.recipient.lower())
        query = query.where(mails.c.id.in_(named))
    if wanted.since is not None:
        query = query.where(mails.c.created_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(mails.c.created_at < wanted.until)
    rows = connection.execute(query).all()
    addressed: dict[UUID, list[str]] = {row.id: [] for row in rows}
    to = select(recipients.c.mail_id, recipients.c.address).where(
        recipients.c.mail_id.in_(addressed), recipients.c.kind == RecipientKind.TO
    )
    for each in connection.execute(to.order_by(recipients.c.mail_id, recipients.c.position)):
        addressed[each.mail_id].append(each.address)
    return [_mail(row, addressed[row.id]) for row in rows]


def show(connection: Connection, mail_id: UUID) -> dict[str, Any]:
    """One mail, with its recipients and attempts.

    Raises:
        Refused: there is no such mail.
    """
    row = connection.execute(select(mails).where(mails.c.id == mail_id)).first()
    if row is None:
        raise Refused(f"there is no mail {mail_id}; `postroom mail list` shows them")
    everyone = connection.execute(
        select(recipients).where(recipients.c.mail_id == mail_id).order_by(recipients.c.position)
    ).all()
    tried = connection.execute(
        select(attempts).where(attempts.c.mail_id == mail_id).order_by(attempts.c.started_at, attempts.c.id)
    ).all()
    shown = _mail(row, [each.address for each in everyone if each.kind == RecipientKind.TO])
    shown["recipients"] = [
        {
            "address": each.address,
            "kind": each.kind,
            "state": each.state,
            "reply": each.reply,
            "enhanced_status_code": each.enhanced_status_code,
        }
        for each in everyone
    ]
    shown["attempts_log"] = [
        {
            "started_at": rfc3339(each.started_at),
            "account_id": str(each.account_id),
            "outcome": each.outcome,
            "scope": each.scope,
            "reply": each.reply,
            "duration_seconds": round(each.duration_seconds, 4),
            "doubled": each.doubled,
        }
        for each in tried
    ]
    return shown


def state_of(connection: Connection, mail_id: UUID) -> tuple[MailState, HeldReason | None] | None:
    """A mail's state and held reason; None while the ledger does not have it."""
    row = connection.execute(select(mails.c.state, mails.c.reason).where(mails.c.id == mail_id)).first()
    if row is None:
        return None
    return MailState(row.state), None if row.reason is None else HeldReason(row.reason)


def _mail(row: Row[Any], to: list[str]) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "state": row.state,
        "reason": row.reason,
        "from": row.from_address,
        "to": to,
        "subject": row.subject,
        "owner": row.owner,
        "producer": row.producer,
        "account_id": None if row.account_id is None else str(row.account_id),
        "template": None
        if row.template_name is None
        else {
            "name": row.template_name,
            "locale": row.template_locale,
            "version": row.template_version,
            "meta": row.template_meta,
        },
        "priority": PriorityRank(row.priority).name.lower(),
        "tags": row.tags,
        "created_at": rfc3339(row.created_at),
        "due_at": rfc3339(row.due_at),
        "expires_at": rfc3339(row.expires_at),
        "ended_at": rfc3339(row.ended_at),
        "erased_at": rfc3339(row.erased_at),
        "copies_possible": row.copies_possible,
    }
