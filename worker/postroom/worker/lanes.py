"""Putting mails into lanes: the choice of an account, read from the database and written to it.

New mails are chosen for at accept; waiting and held mails are chosen for anew when an account changes.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    FromClause,
    ScalarSelect,
    Uuid,
    case,
    false,
    func,
    literal,
    select,
    true,
    tuple_,
    update,
)

from postroom.config import accounts as kept
from postroom.config import pauses, senders
from postroom.config.database import now
from postroom.config.states import HeldReason, MailState, Outcome, Scope
from postroom.config.tables import attempts, mails
from postroom.worker import lifetime, limits, turns
from postroom.worker.choose import Choice, Sending, choose
from postroom.worker.transitions import Step, may
from postroom.worker.turns import Coming

MOST_AT_ONCE: Final = 250
"""Mails that are chosen for in one transaction: other writers wait for it."""


class Chooser:
    """Chooses for many mails with few reads: the accounts and the confirmed senders of all of them, and the pause."""

    def __init__(self, connection: Connection, wanted: Iterable[tuple[str, str | None]]) -> None:
        pairs = set(wanted)
        self._accounts = kept.with_addresses(connection, {from_key for from_key, _ in pairs})
        self._senders = senders.confirmed_names(
            connection, {(owner, from_key) for from_key, owner in pairs if owner is not None}
        )
        self._all_paused_since = pauses.since(connection)

    def choose(self, from_key: str, owner: str | None, refused_by: Iterable[UUID] = ()) -> Choice:
        """Choose for one From address and owner."""
        confirmed = owner is not None and (owner, from_key) in self._senders
        sending = Sending(from_key, owner, confirmed, frozenset(refused_by))
        return choose(sending, self._accounts.get(from_key, ()), self._all_paused_since)

    def may_wait_for(self, account_id: UUID, from_key: str, owner: str | None, refused_by: Iterable[UUID]) -> bool:
        """Whether this account may send as that From, though perhaps not at this moment."""
        confirmed = owner is not None and (owner, from_key) in self._senders
        sending = Sending(from_key, owner, confirmed, frozenset(refused_by))
        alone = [account for account in self._accounts.get(from_key, ()) if account.id == account_id]
        choice = choose(sending, alone, self._all_paused_since)
        return choice.held in {None, HeldReason.PAUSED, HeldReason.ACCOUNT_SUSPENDED}

    def sender_name(self, from_key: str, owner: str | None) -> str:
        """The display name that the owner gave this sender, or ''."""
        return "" if owner is None else self._senders.get((owner, from_key), "")


def explain(connection: Connection, from_key: str, owner: str | None, refused_by: Iterable[UUID] = ()) -> Choice:
    """The verdict on *every* account, for a mail that was or a From that might be."""
    confirmed = owner is not None and bool(senders.confirmed_names(connection, [(owner, from_key)]))
    everyone = limits.as_of_now(connection, kept.newest(connection, limit=10_000))
    sending = Sending(from_key, owner, confirmed, frozenset(refused_by))
    return choose(sending, everyone, pauses.since(connection))


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


@dataclass(frozen=True, slots=True)
class Placed:
    """How many mails went elsewhere, or are held for another reason than before; and the accounts that got mail."""

    moved: int
    accounts: set[UUID]


def place(connection: Connection, mail_ids: Sequence[UUID]) -> Placed:
    """Choose anew for waiting and held mails, and move each to its lane or hold it. One that stays is not touched, nor
    is one that somebody else has in hand at this moment.
    """
    rows = connection.execute(
        select(
            mails.c.id,
            mails.c.from_key,
            mails.c.owner,
            mails.c.account_id,
            mails.c.reason,
            mails.c.copies_possible,
            mails.c.priority,
            mails.c.created_at,
        )
        .where(mails.c.id.in_(mail_ids), mails.c.claim.is_(None), may(Step.CHOICE))
        .order_by(mails.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    chooser = Chooser(connection, {(row.from_key, row.owner) for row in rows})
    refusing = refusing_accounts(connection, mail_ids)
    by_choice: dict[tuple[UUID | None, HeldReason | None], list[Any]] = defaultdict(list)
    for row in rows:
        place_now = _place_of(row, chooser, refusing.get(row.id, set()))
        if place_now != (row.account_id, row.reason):
            by_choice[place_now].append(row)
    for (account_id, held), moving in by_choice.items():
        if account_id is not None:
            coming = [Coming(row.id, account_id, row.priority, row.owner, row.created_at) for row in moving]
            turns.give_to_kept(connection, coming)
        _put(connection, [row.id for row in moving], account_id, held)
    moved = sum(len(moving) for moving in by_choice.values())
    return Placed(moved, {account_id for account_id, _ in by_choice if account_id is not None})


def _place_of(row: Any, chooser: Chooser, refused_by: set[UUID]) -> tuple[UUID | None, HeldReason | None]:
    """The lane of a mail, or why it is held. A second copy goes over the same account or waits for a person."""
    if row.copies_possible > 1 and row.account_id is not None:
        if chooser.may_wait_for(row.account_id, row.from_key, row.owner, refused_by):
            return row.account_id, None
        return None, HeldReason.UNCERTAIN
    choice = chooser.choose(row.from_key, row.owner, refused_by)
    return choice.account.id if choice.account else None, choice.held


@dataclass(frozen=True, slots=True)
class Clearing:
    """What waits in one account's lane and is not claimed, from one place on: first what is ready, in the order in
    which it would leave, then what waits for its time.

    Attributes:
        only: a condition on mails; the others are left alone.
    """

    account_id: UUID
    only: ColumnElement[bool] | None = field(default=None, compare=False)
    ready: bool = True
    after: tuple[Any, ...] | None = None

    def take(self, connection: Connection, most: int) -> tuple[list[UUID], Self | None]:
        """The next mails, and where to go on; None when the lane has been gone through."""
        ids, here = [], self
        if here.ready:
            rows = _walk(connection, here, most, [mails.c.ready == true()], LANE_ORDER)
            ids = [row.id for row in rows]
            if len(rows) == most:
                return ids, replace(here, after=tuple(rows[-1]))
            here = replace(here, ready=False, after=None)
        wait_for_their_time = [
            mails.c.ready == false(),
            mails.c.due_at.is_not(None),
            mails.c.claim.is_(None),
            may(Step.CLAIM),
        ]
        rows = _walk(connection, here, most - len(ids), wait_for_their_time, (mails.c.id,))
        ids += [row.id for row in rows]
        return ids, replace(here, after=tuple(rows[-1])) if len(ids) == most else None


def _walk(
    connection: Connection, part: Clearing, most: int, which: list[ColumnElement[bool]], order: tuple[Any, ...]
) -> Sequence[Any]:
    query = select(*order).where(mails.c.account_id == part.account_id, *which).order_by(*order).limit(most)
    if part.after is not None:
        query = query.where(tuple_(*order) > tuple_(*part.after, types=[column.type for column in order]))
    if part.only is not None:
        query = query.where(part.only)
    return connection.execute(query).all()


def every_lane(name: str, some: FromClause, *which: ColumnElement[bool]) -> CTE:
    """The lanes in which there are such mails, and a null: an index is walked from one lane to the next, so it takes as
    many steps as there are lanes with such mail, however many mails and accounts there are.

    Args:
        name: of the CTE.
        some: an alias of `mails`.
        which: conditions on it that an index beginning with `account_id` is made for.
    """

    def next_lane(after: ColumnElement[UUID]) -> ColumnElement[UUID]:
        query = select(some.c.account_id).where(*which, some.c.account_id > after)
        return query.order_by(some.c.account_id).limit(1).scalar_subquery()

    lane = select(next_lane(literal(UUID(int=0), Uuid)).label("account_id")).cte(name, recursive=True)
    return lane.union_all(select(next_lane(lane.c.account_id)).where(lane.c.account_id.is_not(None)))


LANE_ORDER: Final = (mails.c.priority, mails.c.turn, mails.c.due_at, mails.c.id)


def next_to_leave(some: FromClause, lane: ColumnElement[UUID]) -> ScalarSelect[UUID]:
    """The mail that would leave a lane next, if any is ready; `some` is an alias of `mails`."""
    order = [some.c[column.name] for column in LANE_ORDER]
    of_lane = select(some.c.id).where(some.c.account_id == lane, some.c.ready == true())
    return of_lane.order_by(*order).limit(1).scalar_subquery()


@dataclass(frozen=True, slots=True)
class Cleared:
    """The accounts that got mail, and where to go on; None when the lane has been gone through."""

    accounts: set[UUID]
    go_on: Clearing | None


def clear(connection: Connection, parts: Sequence[Clearing]) -> list[Cleared]:
    """Choose anew for what waits in lanes and is not claimed, a bounded number of mails at a time."""
    return [_clear(connection, part) for part in parts]


def _clear(connection: Connection, part: Clearing) -> Cleared:
    ids, go_on = part.take(connection, MOST_AT_ONCE)
    return Cleared(place(connection, ids).accounts, go_on)


def _put(connection: Connection, ids: list[UUID], account_id: UUID | None, held: HeldReason | None) -> None:
    movable = (mails.c.id.in_(ids), mails.c.claim.is_(None), may(Step.CHOICE))
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
            expires_at=lifetime.with_held_time(),
        )
    )
