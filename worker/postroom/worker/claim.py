"""Claims: a drain's hold on one of an account's connections (its slot) and on the mails it takes to it.

The slot's lease is the lease of all its claims. A worker renews it by heartbeat; when it ends, the chore `leases` takes
the mails back, and the fence on the claim keeps the late worker from sending them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Connection,
    FromClause,
    Integer,
    Select,
    String,
    Uuid,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
    true,
    update,
)

from postroom.config import accounts as kept
from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.database import insert_new, now
from postroom.config.rows import Rows
from postroom.config.states import (
    Health,
    MailState,
    OnUncertain,
    PriorityRank,
    RecipientState,
)
from postroom.config.tables import accounts, letters, mails, recipients, slots
from postroom.producer.identifiers import uuid7
from postroom.worker import ledger, limits
from postroom.worker.lanes import LANE_ORDER
from postroom.worker.ledger import Mark
from postroom.worker.retry import Facts, probe_gap_seconds


@dataclass(frozen=True, slots=True)
class ClaimedRecipient:
    """One pending recipient of a claimed mail."""

    position: int
    address: str


@dataclass(frozen=True, slots=True)
class ClaimedMail:
    """A mail in a drain's hands, with the recipients still pending and, if it is small, its sealed letter."""

    id: UUID
    facts: Facts
    pending: tuple[ClaimedRecipient, ...]
    sealed_letter: bytes | None


@dataclass(frozen=True, slots=True)
class Enter:
    """Ask for a slot of an account and for its first mails.

    Attributes:
        claim: the token that will hold them.
        mails: how many mails at most.
        lease_seconds: how long the slot lives without a heartbeat.
        marked: mark the first mail too, as a session is there that it can go over at once.
    """

    account_id: UUID
    claim: UUID
    mails: int
    lease_seconds: float
    marked: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """A slot held.

    Attributes:
        account: as it is now.
        mails: the first ones.
        wants_another: whether another drain would find work.
        attempt_id: the attempt for which the first mail is marked, if it is.
    """

    account: Account
    mails: tuple[ClaimedMail, ...]
    wants_another: bool
    attempt_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class More:
    """Ask for more mails of a lane that is held, while the account stays as it was."""

    account: Account
    claim: UUID
    mails: int

    @property
    def account_id(self) -> UUID:
        """The account's id."""
        return self.account.id


@dataclass(frozen=True, slots=True)
class Leave:
    """Give back the slot and every claimed mail that was not marked, or was and is known not to have been sent."""

    account_id: UUID
    claim: UUID
    unsent: UUID | None = None


MAY_SEND: Final = and_(accounts.c.health == Health.OK, limits.OPEN, accounts.c.paused_at.is_(None), ~pauses.ALL_PAUSED)
"""Whether the mail of a row of `accounts` that is active may be claimed now."""


_READY = exists().where(mails.c.account_id == bindparam("account"), mails.c.ready == true())
_PROBING = (accounts.c.health != Health.OK) & (accounts.c.probe_at <= now())
_HELD = select(func.count()).select_from(slots).where(slots.c.account_id == bindparam("account")).scalar_subquery()
_HAS_WORK = select(accounts.c.id).where(
    accounts.c.id == bindparam("account"),
    accounts.c.active,
    (MAY_SEND & _READY) | _PROBING,
    accounts.c.connections > _HELD,
)


def has_work(connection: Connection, account_id: UUID) -> bool:
    """Whether a drain of this account could do anything: a cheap look before it asks for a turn to write."""
    return connection.execute(_HAS_WORK, {"account": account_id}).first() is not None


def enter(connection: Connection, asked: Sequence[Enter]) -> list[Lane | None]:
    """Give each its slot and mails; None where the account cannot send now, is full, or has nothing waiting."""
    entered = {at: _enter(connection, asked[at]) for at in _in_order(asked)}
    for at, lane in entered.items():
        if lane is not None and lane.mails and asked[at].marked:
            entered[at] = replace(lane, attempt_id=uuid7())  # a new one each time: what was asked may be asked again
    ledger.mark(
        connection,
        [
            Mark(lane.mails[0].id, asked[at].claim, lane.attempt_id)
            for at, lane in entered.items()
            if lane is not None and lane.attempt_id is not None
        ],
    )
    return [entered[at] for at in range(len(asked))]


def _in_order(asked: Sequence[Enter] | Sequence[More]) -> list[int]:
    """Places in the order in which accounts are locked, the same for all processes: so none wait for each other."""
    return sorted(range(len(asked)), key=lambda at: asked[at].account_id)


def _enter(connection: Connection, asked: Enter) -> Lane | None:
    account = kept.get_for_claim(connection, asked.account_id)
    if account is None or not account.active:
        _undo(connection, asked)
        return None
    probing = account.health is not Health.OK
    if probing and not kept.take_probe(connection, account, probe_gap_seconds(account.probes)):
        _undo(connection, asked)
        return None
    number = _take_slot(connection, account, asked)
    if number is None:
        return None
    silent = account.health is Health.SUSPENDED or account.paused_at is not None
    [claimed] = _with_letters(connection, [() if silent else _take(connection, account, asked.claim, asked.mails)])
    if not claimed and not probing:
        connection.execute(delete(slots).where(slots.c.claim == asked.claim))
        return None
    wants_another = len(claimed) == asked.mails and number < account.connections and not probing
    return Lane(account, claimed, wants_another)


def _take_slot(connection: Connection, account: Account, asked: Enter) -> int | None:
    query = select(slots.c.number, slots.c.claim).where(slots.c.account_id == account.id)
    taken = {row.number: row.claim for row in connection.execute(query)}
    if asked.claim in taken.values():  # it was given, and the answer to the commit was lost: asked anew
        _undo(connection, asked)
        taken = {number: claim for number, claim in taken.items() if claim != asked.claim}
    for number in range(1, account.connections + 1):
        if number in taken:
            continue
        row = {"account_id": account.id, "number": number, "claim": asked.claim}
        taking = insert_new(slots, connection).values(**row, lease_until=now(asked.lease_seconds))
        if connection.execute(taking.returning(slots.c.number)).first() is not None:
            return number
        # another process took it at this moment
    return None


def _undo(connection: Connection, asked: Enter) -> None:
    """Take back what an earlier try gave whose commit had no answer: nothing went by it."""
    marked = select(mails.c.id).where(mails.c.claim == asked.claim, mails.c.marked_at.is_not(None))
    leave(connection, [Leave(asked.account_id, asked.claim, connection.execute(marked).scalar())])


_ASKED = Rows(account=Uuid, as_version=Integer, as_health=String, token=Uuid)


def _unchanged(given: FromClause) -> Select[Any]:
    return (
        select(given.c.token)
        .join_from(given, accounts, accounts.c.id == given.c.account)
        .where(
            accounts.c.active,
            accounts.c.version == given.c.as_version,
            accounts.c.paused_at.is_(None),
            accounts.c.health == given.c.as_health,  # another of its lanes found out that it has to wait
            exists().where(slots.c.claim == given.c.token),
        )
        .order_by(accounts.c.id)
    )


# a deactivation or pause that commits first is in no claim
_UNCHANGED_SHARED = _ASKED.statement(lambda given: _unchanged(given).with_for_update(read=True, of=accounts))
_UNCHANGED_ALONE = _ASKED.statement(lambda given: _unchanged(given).with_for_update(key_share=True, of=accounts))


def more(connection: Connection, asked: Sequence[More]) -> list[tuple[ClaimedMail, ...]]:
    """Claim more for lanes that are held. Nothing once the slot was lost or the account was changed: enter anew."""
    unlimited = [each for each in asked if not each.account.has_limits]
    limited = [each for each in asked if each.account.has_limits]
    unchanged = _lock_unchanged(connection, unlimited, _UNCHANGED_SHARED)
    unchanged |= _lock_unchanged(connection, limited, _UNCHANGED_ALONE)
    taken: list[Sequence[Any]] = [()] * len(asked)
    for at in _in_order(asked):
        if asked[at].claim in unchanged:
            taken[at] = _take(connection, asked[at].account, asked[at].claim, asked[at].mails)
    return _with_letters(connection, taken)


def _lock_unchanged(connection: Connection, asked: Sequence[More], statement: dict[str, Any]) -> set[UUID]:
    if not asked:
        return set()
    rows = [(each.account.id, each.account.version, each.account.health, each.claim) for each in asked]
    return set(connection.execute(statement[connection.dialect.name], _ASKED.parameters(rows)).scalars())


_PICKED = (
    select(mails.c.id)
    .where(
        mails.c.account_id == bindparam("lane"),
        mails.c.ready == true(),
        # An account whose address or owner was just changed sends nothing of what waited for it before.
        mails.c.from_key == bindparam("lane_from_key"),
        bindparam("lane_owner", type_=String).is_(None) | (mails.c.owner == bindparam("lane_owner", type_=String)),
        mails.c.expires_at > now(),
        ~pauses.ALL_PAUSED,
    )
    .order_by(*LANE_ORDER)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_TAKE = (
    update(mails)
    .values(state=MailState.SENDING, ready=False, claim=bindparam("token"), claimed_at=now())
    .returning(
        mails.c.id,
        mails.c.priority,
        mails.c.turn,
        mails.c.due_at,
        mails.c.on_uncertain,
        mails.c.attempts,
        mails.c.copies_possible,
        mails.c.size_bytes,
        mails.c.claimed_at,
    )
)
_CLAIM = _TAKE.where(mails.c.id.in_(_PICKED))
_CLAIM_THESE = _TAKE.where(mails.c.id.in_(bindparam("ids", expanding=True)))
_WAITING = _PICKED.add_columns(limits.PENDING.label("pending")).where(bindparam("largest") >= limits.PENDING)
_THESE = Rows(mail=Uuid)
_RECIPIENTS = _THESE.statement(
    lambda these: (
        select(recipients)
        .join_from(these, recipients, recipients.c.mail_id == these.c.mail)
        .order_by(recipients.c.mail_id, recipients.c.position)
    )
)
_LETTERS = _THESE.statement(lambda these: select(letters).join_from(these, letters, letters.c.mail_id == these.c.mail))
_LETTERS_AT_ONCE_BYTES: Final = 1024 * 1024
_IN_LANE_ORDER: Final = attrgetter(*(column.name for column in LANE_ORDER))


def _take(connection: Connection, account: Account, claim: UUID, most: int) -> Sequence[Any]:
    """Claim the mails that leave next; answers with what a drain has to know of each, in the lane's order."""
    asked = {
        "lane": account.id,
        "lane_from_key": account.address_key,
        "lane_owner": account.owner,
        "most": most,
        "token": claim,
    }
    if account.has_limits:
        return sorted(_take_within_limits(connection, account, asked), key=_IN_LANE_ORDER)
    return sorted(connection.execute(_CLAIM, asked), key=_IN_LANE_ORDER)


def _take_within_limits(connection: Connection, account: Account, asked: dict[str, Any]) -> Sequence[Any]:
    """Claim what the limits let through, and count it; if that is nothing, the lane is left alone until it is more."""
    room = limits.room(connection, account)
    bounds = {"most": min(asked["most"], room.mails), "largest": room.largest}
    waiting = connection.execute(_WAITING, asked | bounds).all() if room.mails else []
    going = waiting[: room.fitting([row.pending for row in waiting])]
    if not going:
        if waiting or not room.mails or connection.execute(_PICKED, asked).first():
            limits.close(connection, account, room)
        return []
    taken = connection.execute(_CLAIM_THESE, {"ids": [row.id for row in going], "token": asked["token"]}).all()
    to = sum(row.pending for row in going)
    limits.reserve(connection, account, taken[0].claimed_at, mails=len(taken), recipients=to)
    return taken


def _with_letters(connection: Connection, taken: Sequence[Sequence[Any]]) -> list[tuple[ClaimedMail, ...]]:
    """What was claimed for each lane, with its recipients, and the letters that a lane begins with."""
    ids = [(row.id,) for rows in taken for row in rows]
    if not ids:
        return [()] * len(taken)
    dialect = connection.dialect.name
    everyone: dict[UUID, list[Any]] = defaultdict(list)
    for recipient in connection.execute(_RECIPIENTS[dialect], _THESE.parameters(ids)):
        everyone[recipient.mail_id].append(recipient)
    first = [(each,) for rows in taken for each in _first(rows)]
    found = connection.execute(_LETTERS[dialect], _THESE.parameters(first))
    letter_of = {row.mail_id: row.sealed for row in found}
    return [tuple(_claimed(row, everyone[row.id], letter_of.get(row.id)) for row in rows) for rows in taken]


def _first(rows: Sequence[Any]) -> list[UUID]:
    """The first mails, as many as have letters that fit a bound; those of the others are read when their turn comes."""
    sizes = accumulate(row.size_bytes for row in rows)
    return [row.id for row, total in zip(rows, sizes, strict=True) if total <= _LETTERS_AT_ONCE_BYTES]


def _claimed(row: Any, everyone: list[Any], letter: bytes | None) -> ClaimedMail:
    facts = Facts(
        priority=PriorityRank(row.priority),
        on_uncertain=OnUncertain(row.on_uncertain),
        attempts=row.attempts,
        copies_possible=row.copies_possible,
        accepted_before=any(each.state == RecipientState.ACCEPTED for each in everyone),
    )
    pending = tuple(
        ClaimedRecipient(each.position, each.address) for each in everyone if each.state == RecipientState.PENDING
    )
    return ClaimedMail(row.id, facts, pending, letter)


def sealed_letter(connection: Connection, mail_id: UUID) -> bytes | None:
    """The sealed letter of a mail, or None once it was erased."""
    return connection.execute(select(letters.c.sealed).where(letters.c.mail_id == mail_id)).scalar()


def leave(connection: Connection, left: Sequence[Leave]) -> list[None]:
    """Free slots; mails that were claimed and not marked are ready again."""
    for each in left:
        unsent = connection.execute(
            update(mails)
            .where(mails.c.claim == each.claim, mails.c.marked_at.is_(None) | (mails.c.id == each.unsent))
            .values(state=MailState.QUEUED, ready=True, claim=None, marked_at=None)
            .returning(mails.c.id)
        )
        limits.return_unsent(connection, unsent.scalars().all())
        connection.execute(delete(slots).where(slots.c.claim == each.claim))
    return [None] * len(left)


@dataclass(frozen=True, slots=True)
class Renew:
    """Ask for the leases of all claims that one process holds."""

    claims: frozenset[UUID]
    lease_seconds: float


def renew(connection: Connection, asked: Sequence[Renew]) -> list[set[UUID]]:
    """Renew leases; answers with the claims that still stand. The others were taken away."""
    return [_renew(connection, each) for each in asked]


def _renew(connection: Connection, asked: Renew) -> set[UUID]:
    renewed = connection.execute(
        update(slots)
        .where(slots.c.claim.in_(asked.claims))
        .values(lease_until=now(asked.lease_seconds))
        .returning(slots.c.claim)
    )
    return set(renewed.scalars())
