"""Turns: owners who share a lane take turns, so that ten thousand mails of one keep nobody else's waiting (design §6).

Start-time fair queueing, with a row an owner: a mail that gets into a lane is given a turn, and the lowest is claimed
first. An owner's mails follow each other; an owner of whom nothing was waiting begins where the lane is now.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BigInteger, Connection, bindparam, case, func, select, true, update
from sqlalchemy.dialects import postgresql, sqlite

from postroom.config.database import now
from postroom.config.tables import mails, turns

_Queue = tuple[UUID, int, str]
"""Account, priority and owner; mail of no owner has an empty one."""


@dataclass(frozen=True, slots=True)
class Coming:
    """A mail that gets into a lane."""

    id: UUID
    account_id: UUID
    priority: int
    owner: str | None
    created_at: datetime

    @property
    def queue(self) -> _Queue:
        """The row by which its turn is given."""
        return self.account_id, self.priority, self.owner or ""


def _giving(insert: Any) -> Any:
    number = bindparam("number", type_=BigInteger)
    of_lane = (mails.c.account_id == bindparam("account"), mails.c.priority == bindparam("of_priority"))
    now_at = select(func.min(mails.c.turn)).where(*of_lane, mails.c.ready == true()).scalar_subquery()
    before = turns.alias("before")
    got_to = select(func.max(before.c.turn)).where(
        before.c.account_id == bindparam("account"), before.c.priority == bindparam("of_priority")
    )
    new = insert(turns).values(
        account_id=bindparam("account"),
        priority=bindparam("of_priority"),
        owner=bindparam("of_owner"),
        turn=func.coalesce(now_at, got_to.scalar_subquery(), 0) + number,
        given_at=now(),
    )
    follows = turns.c.turn + number
    return new.on_conflict_do_update(
        index_elements=["account_id", "priority", "owner"],
        set_={
            "turn": case((follows > new.excluded.turn, follows), else_=new.excluded.turn),
            "given_at": new.excluded.given_at,
        },
    ).returning(turns.c.turn)


_GIVE: Final = {"sqlite": _giving(sqlite.insert), "postgresql": _giving(postgresql.insert)}


def give(connection: Connection, coming: Iterable[Coming]) -> dict[UUID, int]:
    """Give turns to mails that are about to get into lanes, the oldest of each owner first.

    Returns:
        The turn of each; it is written by the caller.
    """
    queues: dict[_Queue, list[Coming]] = defaultdict(list)
    for each in coming:
        queues[each.queue].append(each)
    given: dict[UUID, int] = {}
    for queue, mails_of_it in sorted(queues.items(), key=lambda item: item[0]):  # all lock the rows in this order
        account_id, priority, owner = queue
        last = connection.execute(
            _GIVE[connection.dialect.name],
            {"account": account_id, "of_priority": priority, "of_owner": owner, "number": len(mails_of_it)},
        ).scalar_one()
        mails_of_it.sort(key=lambda each: (each.created_at, each.id))
        given |= {each.id: last - len(mails_of_it) + place for place, each in enumerate(mails_of_it, start=1)}
    return given


_COMING: Final = (
    select(mails.c.id, mails.c.account_id, mails.c.priority, mails.c.owner, mails.c.created_at)
    .where(mails.c.id.in_(bindparam("ids", expanding=True)), mails.c.claim.is_(None))
    .order_by(mails.c.id)
    .with_for_update(skip_locked=True)  # mails are locked before turns, by all
)
_TURN: Final = update(mails).where(mails.c.id == bindparam("mail")).values(turn=bindparam("given"))


def give_in_their_lanes(connection: Connection, mail_ids: Sequence[UUID]) -> list[UUID]:
    """Give turns to mails of the ledger before they get ready, in the lanes that they are in.

    Returns:
        Those that nobody else has in hand; the others got none, and are to be left alone.
    """
    rows = connection.execute(_COMING, {"ids": list(mail_ids)}).all()
    give_to_kept(
        connection,
        [
            Coming(row.id, row.account_id, row.priority, row.owner, row.created_at)
            for row in rows
            if row.account_id is not None
        ],
    )
    return [row.id for row in rows]


def give_to_kept(connection: Connection, coming: Iterable[Coming]) -> None:
    """Give turns to mails of the ledger, whose rows the caller has locked, before they get ready."""
    given = give(connection, coming)
    if given:
        connection.execute(_TURN, [{"mail": mail_id, "given": turn} for mail_id, turn in given.items()])
