"""Mail that is not where choosing would put it: held though its cause is gone, or in a lane that cannot send it.

What finding it costs grows with the number of different From addresses and owners that are held, and of lanes where
mail waits, never with the number of mails: indexes are walked from one value to the next greater one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar
from uuid import UUID

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Text,
    bindparam,
    cast,
    exists,
    false,
    func,
    literal,
    select,
    true,
    tuple_,
    union,
    union_all,
)

from postroom.config import accounts as kept
from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.states import Health, HeldReason
from postroom.config.tables import mails, senders
from postroom.worker.lanes import Chooser, Clearing, every_lane, next_to_leave
from postroom.worker.transitions import LEAVES_BY_ITSELF

_MOST_VALUES: Final = 1000
"""In one IN."""

T = TypeVar("T")


class Part(Protocol):
    """Mails that all have to be chosen for anew, from one place on."""

    def take(self, connection: Connection, most: int) -> tuple[list[UUID], "Part | None"]:
        """The next mails, and where to go on; None when there are no more."""


def find(connection: Connection) -> list[Part]:
    """What has to be chosen for anew: lanes first, then held mail, the most urgent and oldest first."""
    if connection.dialect.name == "postgresql":  # it expects thousands of values, and would compile for seconds
        connection.execute(select(func.set_config("jit", "off", true())))
    return [*_lanes(connection), *_groups(connection)]


@dataclass(frozen=True, slots=True)
class Group:
    """Held mail of one From address and owner, held for one reason: the most urgent first, then the oldest."""

    from_key: str
    owner: str | None
    reason: HeldReason
    after: tuple[int, datetime, UUID] = (-1, datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0))

    def take(self, connection: Connection, most: int) -> tuple[list[UUID], Self | None]:
        """The next mails, and where to go on; None when there are no more."""
        query = _OF_NOBODY if self.owner is None else _OF_OWNER
        asked = {"from_key": self.from_key, "owner": self.owner, "reason": self.reason, "most": most}
        priority, created_at, mail_id = self.after
        after = {"after_priority": priority, "after_created_at": created_at, "after_id": mail_id}
        rows = connection.execute(query, asked | after).all()
        go_on = (
            replace(self, after=(rows[-1].priority, rows[-1].created_at, rows[-1].id)) if len(rows) == most else None
        )
        return [row.id for row in rows], go_on


_HELD_ORDER: Final = (mails.c.priority, mails.c.created_at, mails.c.id)
_OF_GROUP: Final = (
    select(*_HELD_ORDER)
    .where(
        mails.c.held_at.is_not(None),
        mails.c.from_key == bindparam("from_key"),
        mails.c.reason == bindparam("reason"),
        tuple_(*_HELD_ORDER)
        > tuple_(*(bindparam(f"after_{column.name}", type_=column.type) for column in _HELD_ORDER)),
    )
    .order_by(mails.c.owner, *_HELD_ORDER)  # by owner too, or PostgreSQL sorts what belongs to nobody
    .limit(bindparam("most"))
)
_OF_OWNER: Final = _OF_GROUP.where(mails.c.owner == bindparam("owner"))
_OF_NOBODY: Final = _OF_GROUP.where(mails.c.owner.is_(None))


def _groups(connection: Connection) -> Iterator[Group]:
    """Those groups of held mail that choosing would put elsewhere now, or hold for another reason."""
    firsts = [found for found in connection.execute(_FIRST_HELD).scalars() if found is not None]
    query = select(mails.c.from_key, mails.c.owner, mails.c.reason, mails.c.priority, mails.c.created_at).where(
        mails.c.reason.in_(sorted(LEAVES_BY_ITSELF))  # some may have left since
    )
    rows = [row for ids in _some(firsts) for row in connection.execute(query.where(mails.c.id.in_(ids)))]
    rows.sort(key=lambda row: (row.priority, row.created_at))
    for some in _some(rows):
        chooser = Chooser(connection, {(row.from_key, row.owner) for row in some})
        for row in some:
            choice = chooser.choose(row.from_key, row.owner)
            if choice.account is not None or choice.held != row.reason:
                yield Group(row.from_key, row.owner, HeldReason(row.reason))


def _first_held() -> Any:
    """One mail of each From address, owner and reason: the most urgent and oldest."""
    there = mails.alias("there")
    held = there.c.held_at.is_not(None)

    def next_key(after: ColumnElement[str]) -> ColumnElement[Any]:
        query = select(there.c.from_key).where(held, there.c.from_key > after)
        return query.order_by(there.c.from_key).limit(1).scalar_subquery()

    keys = select(next_key(literal("")).label("from_key")).cte("keys", recursive=True)
    keys = keys.union_all(select(next_key(keys.c.from_key)).where(keys.c.from_key.is_not(None)))

    def next_owner(pairs: CTE) -> ColumnElement[Any]:
        query = select(there.c.owner).where(held, there.c.from_key == pairs.c.from_key, there.c.owner > pairs.c.owner)
        return query.order_by(there.c.owner).limit(1).scalar_subquery()

    nobody = cast(literal(""), Text).label("owner")
    pairs = select(keys.c.from_key, nobody).where(keys.c.from_key.is_not(None)).cte("pairs", recursive=True)
    pairs = pairs.union_all(select(pairs.c.from_key, cast(next_owner(pairs), Text)).where(pairs.c.owner.is_not(None)))
    each = (select(literal(reason.value).label("reason")) for reason in sorted(LEAVES_BY_ITSELF))
    reasons = union_all(*each).cte("reasons")

    def first(owned: ColumnElement[bool]) -> ColumnElement[Any]:
        query = select(there.c.id).where(
            held, there.c.from_key == pairs.c.from_key, owned, there.c.reason == reasons.c.reason
        )
        order = (there.c.owner, there.c.priority, there.c.created_at, there.c.id)
        return query.order_by(*order).limit(1).scalar_subquery()

    of_owner = select(first(there.c.owner == pairs.c.owner).label("id")).select_from(pairs.join(reasons, true()))
    of_nobody = select(first(there.c.owner.is_(None)).label("id")).select_from(pairs.join(reasons, true()))
    return union_all(of_owner.where(pairs.c.owner != ""), of_nobody.where(pairs.c.owner == ""))


_FIRST_HELD: Final = _first_held()


def _lanes(connection: Connection) -> Iterator[Clearing]:
    """Lanes that cannot send what waits in them: the account is gone, not active, paused or suspended, or has another
    address or owner than the mail that would leave next; or it is failing where another account is well.
    """
    all_paused = pauses.since(connection) is not None
    firsts = {row.account_id: row.first for row in connection.execute(_LANES_WITH_MAIL)}
    for some in _some(list(firsts)):
        there = kept.with_ids(connection, some)
        heads = _heads(connection, [firsts[each] for each in some if firsts[each] is not None])
        failing = [account for account in there.values() if account.health is Health.FAILING]
        others = kept.with_addresses(connection, {account.address_key for account in failing}) if failing else {}
        for account_id in some:
            account = there.get(account_id)
            if account is None or all_paused or not _able(account):
                yield Clearing(account_id)
            elif account_id in heads and not _owns(account, *heads[account_id]):
                yield Clearing(account_id, ~_owned_by(account))
            elif account.health is Health.FAILING:
                well = [each for each in others[account.address_key] if _able(each) and each.health is Health.OK]
                if well:
                    yield Clearing(account_id, _served_by(well))


def _lanes_with_mail() -> Any:
    """Every lane where mail waits, with the one that would leave next, if any is ready."""
    there = mails.alias("there")
    ready = there.c.ready == true()
    waits = (there.c.ready == false(), there.c.due_at.is_not(None), there.c.claim.is_(None))

    found = (every_lane("ready_lanes", there, ready), every_lane("later_lanes", there, *waits))
    lanes = union(*(select(each.c.account_id).where(each.c.account_id.is_not(None)) for each in found)).subquery(
        "lanes"
    )
    return select(lanes.c.account_id, next_to_leave(there, lanes.c.account_id).label("first"))


_LANES_WITH_MAIL: Final = _lanes_with_mail()


def _heads(connection: Connection, ids: Sequence[UUID]) -> Mapping[UUID, tuple[str, str | None]]:
    """From address and owner of these mails, by lane."""
    query = select(mails.c.account_id, mails.c.from_key, mails.c.owner).where(mails.c.id.in_(ids))
    return {row.account_id: (row.from_key, row.owner) for row in connection.execute(query)}


def _able(account: Account) -> bool:
    return account.active and account.paused_at is None and account.health is not Health.SUSPENDED


def _owns(account: Account, from_key: str, owner: str | None) -> bool:
    return account.address_key == from_key and account.owner in {None, owner}


def _owned_by(account: Account) -> ColumnElement[bool]:
    """`_owns`, as a condition on mails."""
    address = mails.c.from_key == account.address_key
    return address if account.owner is None else address & mails.c.owner.is_not_distinct_from(account.owner)


def _served_by(accounts: Sequence[Account]) -> ColumnElement[bool]:
    """Mails that one of these accounts of their address may send."""
    served = mails.c.owner.in_([account.owner for account in accounts if account.owner is not None])
    if all(account.owner is not None for account in accounts):
        return served
    confirmed = exists().where(
        senders.c.owner == mails.c.owner,
        senders.c.address_key == mails.c.from_key,
        senders.c.confirmed_at.is_not(None),
    )
    return served | mails.c.owner.is_(None) | confirmed


def _some(values: Sequence[T]) -> Iterator[Sequence[T]]:
    return (values[start : start + _MOST_VALUES] for start in range(0, len(values), _MOST_VALUES))
