"""Putting mails into lanes: the choice of an account, read from the database and written to it.

New mails are chosen for at accept; waiting and held mails are chosen for anew when an account changes.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, case, exists, func, or_, select, true, update

from postroom.config import accounts as kept
from postroom.config import senders
from postroom.config.database import later, now
from postroom.config.states import Health, HeldReason, MailState, Outcome, Scope
from postroom.config.tables import accounts, attempts, mails
from postroom.config.tables import senders as sender_rows
from postroom.worker.choose import Choice, Sending, choose

_CHUNK = 1000

RELEASED_BY_ITSELF = (HeldReason.NO_ACCOUNT, HeldReason.ACCOUNT_SUSPENDED, HeldReason.SENDER_NOT_CONFIRMED)


class Chooser:
    """Chooses for many mails with two reads: the accounts and the confirmed senders of all of them."""

    def __init__(self, connection: Connection, wanted: Iterable[tuple[str, str | None]]) -> None:
        pairs = set(wanted)
        self._accounts = kept.with_addresses(connection, {from_key for from_key, _ in pairs})
        self._senders = senders.confirmed_names(
            connection, {(owner, from_key) for from_key, owner in pairs if owner is not None}
        )

    def choose(self, from_key: str, owner: str | None, refused_by: Iterable[UUID] = ()) -> Choice:
        """Choose for one From address and owner."""
        confirmed = owner is not None and (owner, from_key) in self._senders
        sending = Sending(from_key, owner, confirmed, frozenset(refused_by))
        return choose(sending, self._accounts.get(from_key, ()))

    def sender_name(self, from_key: str, owner: str | None) -> str:
        """The display name that the owner gave this sender, or ''."""
        return "" if owner is None else self._senders.get((owner, from_key), "")


def explain(connection: Connection, from_key: str, owner: str | None, refused_by: Iterable[UUID] = ()) -> Choice:
    """The verdict on *every* account, for a mail that was or a From that might be."""
    confirmed = owner is not None and bool(senders.confirmed_names(connection, [(owner, from_key)]))
    everyone = kept.newest(connection, limit=10_000)
    return choose(Sending(from_key, owner, confirmed, frozenset(refused_by)), everyone)


def refusing_accounts(connection: Connection, mail_ids: Sequence[UUID]) -> dict[UUID, set[UUID]]:
    """The accounts whose server refused the From, by mail, since it was last sent again."""
    query = (
        select(attempts.c.mail_id, attempts.c.account_id)
        .join(mails, mails.c.id == attempts.c.mail_id)
        .where(
            attempts.c.mail_id.in_(mail_ids),
            attempts.c.scope == Scope.SENDER,
            attempts.c.outcome == Outcome.FAILED,
            mails.c.resent_at.is_(None) | (attempts.c.started_at > mails.c.resent_at),
        )
    )
    refusing: dict[UUID, set[UUID]] = defaultdict(set)
    for row in connection.execute(query):
        refusing[row.mail_id].add(row.account_id)
    return refusing


def place(connection: Connection, mail_ids: Sequence[UUID]) -> set[UUID]:
    """Choose anew for waiting and held mails, and move each to its lane or hold it. One that stays is not touched.

    Returns:
        The accounts that got mail.
    """
    rows = connection.execute(
        select(mails.c.id, mails.c.from_key, mails.c.owner, mails.c.account_id, mails.c.reason).where(
            mails.c.id.in_(mail_ids), mails.c.claim.is_(None)
        )
    ).all()
    chooser = Chooser(connection, {(row.from_key, row.owner) for row in rows})
    refusing = refusing_accounts(connection, mail_ids)
    by_choice: dict[tuple[UUID | None, HeldReason | None], list[UUID]] = defaultdict(list)
    for row in rows:
        choice = chooser.choose(row.from_key, row.owner, refusing.get(row.id, ()))
        place_now = (choice.account.id if choice.account else None, choice.held)
        if place_now != (row.account_id, row.reason):
            by_choice[place_now].append(row.id)
    for (account_id, held), ids in by_choice.items():
        _put(connection, ids, account_id, held)
    return {account_id for account_id, _ in by_choice if account_id is not None}


@dataclass(frozen=True, slots=True)
class Clearing:
    """A part of choosing anew for all that waits in one account's lane: the mails after one id."""

    account_id: UUID
    after: UUID | None = None


@dataclass(frozen=True, slots=True)
class Cleared:
    """The accounts that got mail, and where to go on; None when the lane has been gone through."""

    accounts: set[UUID]
    go_on: Clearing | None


def clear(connection: Connection, parts: Sequence[Clearing]) -> list[Cleared]:
    """Choose anew for what waits in lanes and is not claimed, a bounded number of mails at a time."""
    return [_clear(connection, part) for part in parts]


def _clear(connection: Connection, part: Clearing) -> Cleared:
    waiting = select(mails.c.id).where(
        mails.c.account_id == part.account_id,
        mails.c.ended_at.is_(None),
        mails.c.claim.is_(None),
        mails.c.state.in_([MailState.QUEUED, MailState.DEFERRED]),
    )
    if part.after is not None:
        waiting = waiting.where(mails.c.id > part.after)
    ids = list(connection.execute(waiting.order_by(mails.c.id).limit(_CHUNK)).scalars())
    moved = place(connection, ids)
    return Cleared(moved, Clearing(part.account_id, ids[-1]) if len(ids) == _CHUNK else None)


def releasable(connection: Connection, *, limit: int) -> list[UUID]:
    """Held mails whose cause may be gone: an active, not suspended account has their From. Most urgent first."""
    confirmed = (
        exists()
        .where(
            sender_rows.c.owner == mails.c.owner,
            sender_rows.c.address_key == mails.c.from_key,
            sender_rows.c.confirmed_at.is_not(None),
        )
        .correlate(mails)  # it stands two queries deep, and SQLAlchemy looks one out
    )
    shared = accounts.c.owner.is_(None) & (mails.c.owner.is_(None) | confirmed)
    able = exists().where(
        accounts.c.address_key == mails.c.from_key,
        accounts.c.active,
        accounts.c.health != Health.SUSPENDED,
        or_(shared, accounts.c.owner == mails.c.owner),
    )
    held = (
        select(mails.c.id)
        .where(mails.c.held_at.is_not(None), mails.c.reason.in_(RELEASED_BY_ITSELF), able)
        .order_by(mails.c.priority, mails.c.created_at, mails.c.id)
        .limit(limit)
    )
    return list(connection.execute(held).scalars())


def _put(connection: Connection, ids: list[UUID], account_id: UUID | None, held: HeldReason | None) -> None:
    waits = (MailState.QUEUED, MailState.DEFERRED, MailState.HELD)
    movable = (mails.c.id.in_(ids), mails.c.claim.is_(None), mails.c.state.in_(waits))
    if held is not None:
        connection.execute(
            update(mails)
            .where(*movable)
            .values(
                state=MailState.HELD,
                reason=held,
                account_id=None,
                ready=False,
                due_at=None,
                held_at=func.coalesce(mails.c.held_at, now()),
            )
        )
        return
    scheduled = mails.c.send_at > now()
    connection.execute(
        update(mails)
        .where(*movable)
        .values(
            state=MailState.QUEUED,
            reason=None,
            account_id=account_id,
            ready=case((scheduled, False), else_=true()),
            due_at=case((scheduled, mails.c.send_at), else_=now()),
            held_at=None,
            expires_at=case(
                (mails.c.held_at.is_(None) | mails.c.expires_absolute, mails.c.expires_at),
                else_=later(mails.c.expires_at, mails.c.held_at),
            ),
        )
    )
