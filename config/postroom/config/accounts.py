"""Accounts: the SMTP mailboxes that can send, and how they are kept (design §6).

Only proved accounts are stored; the proof is `postroom.worker.verify`. A password is sealed with its account's id and
whole destination as associated data, so that nobody can point it at another server.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, bindparam, case, delete, insert, select, update

from postroom.config.database import now
from postroom.config.states import Auth, Health, Security
from postroom.config.tables import accounts
from postroom.producer.errors import Refused
from postroom.producer.mail import address_key

DEFAULT_CONNECTIONS = 4

_NOTED = {"health", "health_detail", "probe_at", "probes", "open_at", "paused_at", "paused_why"}
"""What workers and others note about an account; a change of the account leaves it as it is."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account, as it is kept. `password` is the sealed box."""

    id: UUID
    address: str
    host: str
    port: int
    security: Security
    auth: Auth
    name: str = ""
    owner: str | None = None
    login: str = ""
    password: bytes | None = field(default=None, repr=False)
    allow_cleartext: bool = False
    active: bool = True
    priority: int = 0
    connections: int = DEFAULT_CONNECTIONS
    pipelining: bool = True
    mails_per_minute: int | None = None
    recipients_per_day: int | None = None
    open_at: datetime | None = None
    paused_at: datetime | None = None
    paused_why: str | None = None
    health: Health = Health.OK
    health_detail: str | None = None
    probe_at: datetime | None = None
    probes: int = 0
    version: int = 1
    created_at: datetime | None = None
    verified_at: datetime | None = None

    @property
    def has_limits(self) -> bool:
        """Whether what it sends is counted."""
        return self.mails_per_minute is not None or self.recipients_per_day is not None

    @property
    def address_key(self) -> str:
        """The address as it is compared: casefolded, its domain as A-label."""
        return address_key(self.address)

    @property
    def password_identity(self) -> bytes:
        """Associated data of the sealed password: the account's id and everything that decides where it goes."""
        destination = [self.host, self.port, self.security, self.auth, self.login, self.allow_cleartext]
        return b"postroom:password:" + json.dumps([self.id.hex, *destination]).encode()

    def goes_elsewhere(self, other: "Account") -> bool:
        """Whether the other one's sealed password would be sent to another place or in another way."""
        return self.password_identity != other.password_identity

    def to_json(self) -> dict[str, Any]:
        """The shape of design §10; never a password."""
        return {
            "id": str(self.id),
            "address": self.address,
            "name": self.name,
            "owner": self.owner,
            "host": self.host,
            "port": self.port,
            "security": self.security,
            "auth": self.auth,
            "login": self.login,
            "allow_cleartext": self.allow_cleartext,
            "pipelining": self.pipelining,
            "active": self.active,
            "priority": self.priority,
            "health": self.health,
            "health_detail": self.health_detail,
            "limits": {
                "connections": self.connections,
                "mails_per_minute": self.mails_per_minute,
                "recipients_per_day": self.recipients_per_day,
            },
            "paused_at": rfc3339(self.paused_at),
            "paused_why": self.paused_why,
            "verified_at": rfc3339(self.verified_at),
            "created_at": rfc3339(self.created_at),
        }


def rfc3339(moment: datetime | None) -> str | None:
    """A moment as text (RFC 3339, UTC, milliseconds), or None."""
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _account(row: Row[Any]) -> Account:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values.pop("address_key")
    for name, kind in (("security", Security), ("auth", Auth), ("health", Health)):
        values[name] = kind(values[name])
    return Account(**values)


_BY_ID = select(accounts).where(accounts.c.id == bindparam("account"))
_WITHOUT_LIMITS = _BY_ID.where(accounts.c.mails_per_minute.is_(None), accounts.c.recipients_per_day.is_(None))
_SHARED = _WITHOUT_LIMITS.with_for_update(read=True)
_ALONE = _BY_ID.with_for_update(key_share=True)


def get(connection: Connection, account_id: UUID) -> Account | None:
    """The account with this id, or None."""
    row = connection.execute(_BY_ID, {"account": account_id}).first()
    return None if row is None else _account(row)


def get_for_claim(connection: Connection, account_id: UUID) -> Account | None:
    """The account with this id, or None. It stays as it is until the transaction ends; one with limits is locked for
    this transaction alone (PostgreSQL; SQLite has one writer at a time).
    """
    asked = {"account": account_id}
    row = connection.execute(_SHARED, asked).first() or connection.execute(_ALONE, asked).first()
    return None if row is None else _account(row)


def find(connection: Connection, reference: str) -> Account:
    """The account that a person means by an id or an address.

    Raises:
        Refused: none is meant, or several are.
    """
    try:
        matches = accounts.c.id == UUID(reference)
    except ValueError:
        matches = accounts.c.address_key == address_key(reference)
    found = [_account(row) for row in connection.execute(select(accounts).where(matches))]
    if not found:
        raise Refused(f"there is no account {reference!r}; `postroom account list` shows them")
    if len(found) > 1:
        ids = ", ".join(str(account.id) for account in found)
        raise Refused(f"{len(found)} accounts have the address {reference}; name one by its id: {ids}")
    return found[0]


def newest(
    connection: Connection, *, limit: int, owner: str | None = None, active: bool | None = None
) -> list[Account]:
    """Accounts, newest first."""
    query = select(accounts).order_by(accounts.c.created_at.desc(), accounts.c.id.desc()).limit(limit)
    if owner is not None:
        query = query.where(accounts.c.owner == owner)
    if active is not None:
        query = query.where(accounts.c.active == active)
    return [_account(row) for row in connection.execute(query)]


def with_addresses(connection: Connection, keys: Iterable[str]) -> dict[str, list[Account]]:
    """All accounts, active or not, that have one of these address keys."""
    wanted = list(keys)
    found: dict[str, list[Account]] = {key: [] for key in wanted}
    for row in connection.execute(select(accounts).where(accounts.c.address_key.in_(wanted))):
        found[row.address_key].append(_account(row))
    return found


def with_ids(connection: Connection, ids: Iterable[UUID]) -> dict[UUID, Account]:
    """Those of these accounts that are there, by id."""
    found = connection.execute(select(accounts).where(accounts.c.id.in_(list(ids))))
    return {row.id: _account(row) for row in found}


def refuse_twin(connection: Connection, account: Account) -> None:
    """Refuse what would be a second account of the same owner with this address, host, port and login.

    Raises:
        Refused: there is one already.
    """
    twin = connection.execute(
        select(accounts.c.id).where(
            accounts.c.id != account.id,
            accounts.c.address_key == account.address_key,
            accounts.c.owner == account.owner if account.owner else accounts.c.owner.is_(None),
            accounts.c.host == account.host,
            accounts.c.port == account.port,
            accounts.c.login == account.login,
        )
    ).scalar()
    if twin is not None:
        raise Refused(f"account {twin} already has {account.address} at {account.host}:{account.port}; edit that one")


def add(connection: Connection, account: Account) -> Account:
    """Store a proved account.

    Raises:
        Refused: the same owner already has an account with this address, host, port and login.
    """
    refuse_twin(connection, account)
    connection.execute(insert(accounts).values(**_columns(account), created_at=now(), verified_at=now()))
    return _stored(connection, account.id)


def replace_proved(connection: Connection, before: Account, after: Account) -> Account:
    """Store a proved change. It is healthy again: the proof just signed in. Where its provider had blocked it, a change
    lifts that pause; one that a person made stays.

    Raises:
        Refused: somebody else changed or removed the account since `before` was read, or another one is the same.
    """
    healthy = {"health": Health.OK, "health_detail": None, "probe_at": None, "probes": 0}
    by_a_person = case((accounts.c.paused_why.is_(None), accounts.c.paused_at))
    unblocked = {} if before == after else {"paused_at": by_a_person, "paused_why": None}
    _replace(connection, before, after, **healthy, **unblocked, verified_at=now())
    return _stored(connection, after.id)


def replace_unproved(connection: Connection, before: Account, after: Account) -> Account:
    """Store a change that needs no proof: name, owner, priority, limits, pipelining, the active flag.

    Raises:
        Refused: somebody else changed or removed the account since `before` was read, or another one is the same.
    """
    if before.goes_elsewhere(after) or before.address_key != after.address_key or before.password != after.password:
        raise ValueError("this change needs a proof")
    _replace(connection, before, after)
    return _stored(connection, after.id)


def remove(connection: Connection, account_id: UUID) -> None:
    """Remove an account for good. Its mails keep its id."""
    connection.execute(delete(accounts).where(accounts.c.id == account_id))


def set_health(
    connection: Connection, account: Account, health: Health, detail: str | None, probe_in_seconds: float | None
) -> None:
    """Note what became of trying to reach or to sign in, unless the account was changed meanwhile."""
    probing = health is not Health.OK
    connection.execute(
        update(accounts)
        .where(accounts.c.id == account.id, accounts.c.version == account.version)
        .values(
            health=health,
            health_detail=detail if probing else None,
            probe_at=None if probe_in_seconds is None else now(probe_in_seconds),
            probes=account.probes + 1 if probing else 0,  # lanes that fail at once are one failure
        )
    )


def take_probe(connection: Connection, account: Account, gap_seconds: float) -> bool:
    """Take the turn to try an account that is not healthy; False when it is not due or somebody else took it."""
    taken = connection.execute(
        update(accounts)
        .where(accounts.c.id == account.id, accounts.c.probe_at <= now())
        .values(probe_at=now(gap_seconds))
    )
    return taken.rowcount == 1


def due_for_probe(connection: Connection) -> list[UUID]:
    """Active accounts that are not healthy and whose next try is due."""
    query = select(accounts.c.id).where(accounts.c.active, accounts.c.health != Health.OK, accounts.c.probe_at <= now())
    return list(connection.execute(query).scalars())


def _stored(connection: Connection, account_id: UUID) -> Account:
    return _account(connection.execute(select(accounts).where(accounts.c.id == account_id)).one())


def _replace(connection: Connection, before: Account, after: Account, **values: Any) -> None:
    """Its health stays as it is now, whatever it was when the account was read: workers may have noted it since."""
    refuse_twin(connection, after)
    kept = {name: value for name, value in _columns(after).items() if name not in _NOTED}
    changed = connection.execute(
        update(accounts)
        .where(accounts.c.id == before.id, accounts.c.version == before.version)
        .values(kept | {"version": before.version + 1} | values)
    )
    if changed.rowcount != 1:
        raise Refused(f"account {before.id} was changed by somebody else meanwhile; look at it and try again")


def _columns(account: Account) -> dict[str, Any]:
    names = [column.name for column in accounts.c if column.name not in {"created_at", "verified_at"}]
    return {name: getattr(account, name) for name in names}
