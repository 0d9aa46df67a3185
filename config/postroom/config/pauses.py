"""Pauses: no mail of a paused account, or of any while all are paused, is claimed until a person resumes it.

An account that its provider blocked is paused with the provider's words; a proved change of it lifts that as well.
"""

from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, delete, exists, select, update

from postroom.config.database import insert_new, now
from postroom.config.tables import accounts, pauses

_ALL: Final = "all"

ALL_PAUSED: Final = exists(select(pauses.c.scope))
"""Whether the sending of all accounts is paused, within a statement."""


class Paused(NamedTuple):
    """An account that is paused by itself; `paused_why` is what its provider said, if that is why."""

    id: UUID
    address: str
    paused_at: datetime
    paused_why: str | None


def of_accounts(connection: Connection) -> list[Paused]:
    """The accounts that are paused by themselves, the first paused first."""
    columns = (accounts.c.id, accounts.c.address, accounts.c.paused_at, accounts.c.paused_why)
    paused = select(*columns).where(accounts.c.paused_at.is_not(None)).order_by(accounts.c.paused_at)
    return [Paused(*row) for row in connection.execute(paused)]


def since(connection: Connection) -> datetime | None:
    """Since when the sending of all accounts is paused; None: it is not."""
    return connection.execute(select(pauses.c.paused_at)).scalar()


def pause_all(connection: Connection) -> bool:
    """Pause the sending of all accounts; False where it was paused already. Claims that are being
    written then may still be committed: `wait_for_claims` waits for them.
    """
    paused = insert_new(pauses, connection).values(scope=_ALL, paused_at=now()).returning(pauses.c.scope)
    return connection.execute(paused).first() is not None


def may_be_claiming(connection: Connection) -> list[UUID]:
    """Accounts whose claims may still be committed after all were paused: none on SQLite, where writers take turns."""
    return list(connection.execute(select(accounts.c.id)).scalars()) if connection.dialect.name != "sqlite" else []


def wait_for_claims(connection: Connection, account_id: UUID) -> None:
    """Wait until what was being claimed for an account when all were paused is committed or given up.

    One account a transaction, so that nobody waits for anybody in a circle.
    """
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update())


def resume_all(connection: Connection) -> bool:
    """Lift the pause of all; accounts that are paused by themselves stay so. False where there was none."""
    return connection.execute(delete(pauses)).rowcount > 0


def pause(connection: Connection, account_id: UUID, why: str | None = None, *, version: int | None = None) -> bool:
    """Pause one account; False where it was paused already, whose reason then stays.

    Args:
        connection: of a transaction that writes.
        account_id: which account.
        why: what its provider said, where that is why.
        version: pause it only while it is still of this version.
    """
    pausing = update(accounts).where(accounts.c.id == account_id, accounts.c.paused_at.is_(None))
    if version is not None:
        pausing = pausing.where(accounts.c.version == version)
    return connection.execute(pausing.values(paused_at=now(), paused_why=why)).rowcount == 1


def resume(connection: Connection, account_id: UUID) -> bool:
    """Lift the pause of one account; False where there was none."""
    paused = accounts.c.paused_at.is_not(None)
    resuming = update(accounts).where(accounts.c.id == account_id, paused)
    return connection.execute(resuming.values(paused_at=None, paused_why=None)).rowcount == 1
