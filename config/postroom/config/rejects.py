"""The reject list: jobs that could not be taken, with why. Each can be replayed once its cause is gone."""

from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, select, update

from postroom.config.accounts import rfc3339
from postroom.config.database import now
from postroom.config.tables import rejects
from postroom.producer.errors import Refused


def newest(connection: Connection, *, limit: int) -> list[dict[str, Any]]:
    """Rejected jobs, newest first; never their content."""
    query = select(rejects).order_by(rejects.c.created_at.desc(), rejects.c.id.desc()).limit(limit)
    return [_reject(row) for row in connection.execute(query)]


def of_mail(connection: Connection, mail_id: UUID) -> list[dict[str, Any]]:
    """Rejected jobs of one mail, newest first."""
    query = (
        select(rejects).where(rejects.c.mail_id == mail_id).order_by(rejects.c.created_at.desc(), rejects.c.id.desc())
    )
    return [_reject(row) for row in connection.execute(query)]


def show(connection: Connection, reject_id: UUID) -> dict[str, Any]:
    """One rejected job.

    Raises:
        Refused: there is no such reject.
    """
    return _reject(_row(connection, reject_id))


def sealed_job(connection: Connection, reject_id: UUID) -> tuple[UUID, bytes]:
    """The mail's id and the job as it lay in the inbox.

    Raises:
        Refused: there is no such reject.
    """
    row = _row(connection, reject_id)
    return row.mail_id, row.sealed


def note_replayed(connection: Connection, reject_id: UUID) -> None:
    """Note that the job lies in the inbox again."""
    connection.execute(update(rejects).where(rejects.c.id == reject_id).values(replayed_at=now()))


def _row(connection: Connection, reject_id: UUID) -> Row[Any]:
    row = connection.execute(select(rejects).where(rejects.c.id == reject_id)).first()
    if row is None:
        raise Refused(f"there is no reject {reject_id}; `postroom reject list` shows them")
    return row


def _reject(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "mail_id": str(row.mail_id),
        "producer": row.producer,
        "error": row.error,
        "size_bytes": len(row.sealed),
        "created_at": rfc3339(row.created_at),
        "replayed_at": rfc3339(row.replayed_at),
    }
