"""Limits: how many mails an account may send in any 60 seconds, and to how many recipients in any 24 hours (design §6).

What is claimed is counted at once, in the claiming transaction, and given back where it surely was not sent. Counts are
kept by the second and by the minute, and each counts until its whole span has left the window: rather a little less is
sent than once too much. The account's row is locked meanwhile, so all workers together keep to the limits.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    delete,
    extract,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from postroom.config.accounts import Account
from postroom.config.database import now
from postroom.config.states import Outcome, RecipientState
from postroom.config.tables import accounts, attempts, counts, mails, recipients

_LOOK_AGAIN_SECONDS: Final = 5
_NO_LIMIT: Final = 2**31 - 1
_CLOCKS_DIFFER: Final = timedelta(hours=1)
"""A worker's clock, which makes ids, and the database's differ by less."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is counted in buckets of one length, for as long as a window lasts."""

    name: str
    seconds: int
    window_seconds: int

    def bucket(self, moment: datetime) -> int:
        """The bucket that counts what is claimed at a moment."""
        return int(moment.timestamp()) // self.seconds

    def oldest(self, moment: datetime) -> int:
        """The first bucket of which some part may still lie in the window that ends at a moment."""
        return self.bucket(moment) - self.window_seconds // self.seconds

    def left_at(self, bucket: int) -> int:
        """When a whole bucket has left the window, as Unix time."""
        return (bucket + 1) * self.seconds + self.window_seconds


PENDING: Final = (
    select(func.count())
    .where(recipients.c.mail_id == mails.c.id, recipients.c.state == RecipientState.PENDING)
    .correlate(mails)
    .scalar_subquery()
)
"""To how many recipients a row of `mails` would go now."""

OPEN: Final = accounts.c.open_at.is_(None) | (accounts.c.open_at <= now())
"""Whether a row of `accounts` is not waiting for its limits. One that is costs nothing until then."""

MAILS: Final = Span("second", 1, 60)
RECIPIENTS: Final = Span("minute", 60, 86_400)


@dataclass(frozen=True, slots=True)
class Room:
    """What an account's limits let through now.

    Attributes:
        mails: how many mails.
        recipients: to how many recipients, all together.
        largest: to how many recipients a single mail may go. One to more than the limit altogether goes alone, when
            nothing else was counted; until then others pass it.
    """

    mails: int
    recipients: int
    largest: int

    def fitting(self, waiting: Sequence[int]) -> int:
        """How many of the first waiting mails may go, each given by its number of recipients. None passes one that has
        to wait for room, or that one might wait for ever.
        """
        if self.mails and waiting and self.recipients < waiting[0] <= self.largest == _NO_LIMIT:
            return 1
        return sum(total <= self.recipients for total in accumulate(waiting[: self.mails]))


_NOW = select(now())
_USED = (
    select(counts.c.span, func.sum(counts.c["count"]).label("used"))
    .where(
        counts.c.account_id == bindparam("account"),
        or_(
            and_(counts.c.span == MAILS.name, counts.c.bucket >= bindparam("oldest_second")),
            and_(counts.c.span == RECIPIENTS.name, counts.c.bucket >= bindparam("oldest_minute")),
        ),
    )
    .group_by(counts.c.span)
)


def room(connection: Connection, account: Account) -> Room:
    """What the limits of an account let through now. Its row is locked by the caller."""
    moment = connection.execute(_NOW).scalar_one()
    oldest = {"oldest_second": MAILS.oldest(moment), "oldest_minute": RECIPIENTS.oldest(moment)}
    used = {row.span: row.used for row in connection.execute(_USED, {"account": account.id, **oldest})}
    mails_left, recipients_left = (
        _NO_LIMIT if limit is None else max(0, limit - used.get(span.name, 0)) for span, limit in _limits(account)
    )
    anything = account.recipients_per_day is not None and used.get(RECIPIENTS.name, 0) > 0
    return Room(mails_left, recipients_left, account.recipients_per_day or _NO_LIMIT if anything else _NO_LIMIT)


def _limits(account: Account) -> tuple[tuple[Span, int | None], ...]:
    return (MAILS, account.mails_per_minute), (RECIPIENTS, account.recipients_per_day)


def _counting(insert: Any) -> Any:
    new = insert(counts)
    return new.on_conflict_do_update(
        index_elements=["account_id", "span", "bucket"], set_={"count": counts.c["count"] + new.excluded.count}
    )


_COUNT = {"sqlite": _counting(sqlite.insert), "postgresql": _counting(postgresql.insert)}


def reserve(connection: Connection, account: Account, claimed_at: datetime, mails: int, recipients: int) -> None:
    """Count what was claimed at a moment against the limits that the account has."""
    numbers = {MAILS: mails, RECIPIENTS: recipients}
    rows = [
        {"account_id": account.id, "span": span.name, "bucket": span.bucket(claimed_at), "count": numbers[span]}
        for span, limit in _limits(account)
        if limit is not None
    ]
    connection.execute(_COUNT[connection.dialect.name], rows)


_BUCKETS = (
    select(counts.c.bucket, counts.c["count"].label("number"))
    .where(counts.c.account_id == bindparam("account"), counts.c.span == bindparam("in_span"))
    .order_by(counts.c.bucket.desc())
)
_CLOSE = update(accounts).where(accounts.c.id == bindparam("account"))


def close(connection: Connection, account: Account, left: Room) -> None:
    """Leave the lane alone until its limits let one recipient more through. Where they do and what waits has too many
    of them, it is looked at again soon: something smaller and more urgent may come.
    """
    full = {MAILS: left.mails == 0, RECIPIENTS: left.recipients == 0}
    opens = [
        _opens_at(connection, account, span, limit)
        for span, limit in _limits(account)
        if limit is not None and full[span]
    ]
    open_at: Any = max(opens) if opens else now(_LOOK_AGAIN_SECONDS)
    connection.execute(_CLOSE.values(open_at=open_at), {"account": account.id})


def _opens_at(connection: Connection, account: Account, span: Span, limit: int) -> datetime:
    """When the newest bucket that has to leave for one more has left."""
    used = 0
    for row in connection.execute(_BUCKETS, {"account": account.id, "in_span": span.name}):
        used += row.number
        if used >= limit:
            return datetime.fromtimestamp(span.left_at(row.bucket), UTC)
    raise AssertionError("a limit that is not reached keeps nobody waiting")


def as_of_now(connection: Connection, found: Sequence[Account]) -> list[Account]:
    """Accounts of which only those have `open_at` that still wait for their limits."""
    moment = connection.execute(_NOW).scalar_one()
    over = [account.open_at is not None and account.open_at <= moment for account in found]
    return [replace(account, open_at=None) if past else account for account, past in zip(found, over, strict=True)]


@dataclass(frozen=True, slots=True)
class Counted:
    """A claimed mail that was counted against limits of its account."""

    mail_id: UUID
    account_id: UUID
    claimed_at: datetime
    recipients: int


_COUNTED = (
    select(
        mails.c.id,
        mails.c.account_id,
        mails.c.claimed_at,
        PENDING.label("pending"),
    )
    .join(accounts, accounts.c.id == mails.c.account_id)
    .where(
        mails.c.id.in_(bindparam("ids", expanding=True)),
        mails.c.claimed_at.is_not(None),
        accounts.c.mails_per_minute.is_not(None) | accounts.c.recipients_per_day.is_not(None),
    )
)
_NO_LONGER_CLAIMED = (
    update(mails)
    .where(mails.c.id.in_(bindparam("ids", expanding=True)), mails.c.claimed_at.is_not(None))
    .values(claimed_at=None)
)
_LESS = (
    update(counts)
    .where(
        counts.c.account_id == bindparam("account"),
        counts.c.span == bindparam("in_span"),
        counts.c.bucket == bindparam("in_bucket"),
    )
    .values(count=case((counts.c["count"] > bindparam("less"), counts.c["count"] - bindparam("less")), else_=0))
)


def counted(connection: Connection, mail_ids: Iterable[UUID]) -> list[Counted]:
    """What is counted for claimed mails; read before their claims end."""
    rows = connection.execute(_COUNTED, {"ids": list(mail_ids)})
    return [Counted(row.id, row.account_id, row.claimed_at, row.pending) for row in rows]


def give_back(connection: Connection, unsent: Sequence[Counted]) -> None:
    """Count no longer what surely was not sent; its accounts may send at once."""
    less: Counter[tuple[UUID, str, int]] = Counter()
    for each in unsent:
        less[each.account_id, MAILS.name, MAILS.bucket(each.claimed_at)] += 1
        less[each.account_id, RECIPIENTS.name, RECIPIENTS.bucket(each.claimed_at)] += each.recipients
    for account_id in sorted({each.account_id for each in unsent}):  # their rows are locked before their counts
        connection.execute(_CLOSE.values(open_at=None), {"account": account_id})
    for (account_id, span, bucket), number in sorted(less.items()):
        connection.execute(_LESS, {"account": account_id, "in_span": span, "in_bucket": bucket, "less": number})


def return_unsent(connection: Connection, mail_ids: Sequence[UUID]) -> None:
    """Give back what was counted for mails whose claims end unsent, and note that they are not claimed any more."""
    if not mail_ids:
        return
    unsent = counted(connection, mail_ids)
    connection.execute(_NO_LONGER_CLAIMED, {"ids": list(mail_ids)})
    give_back(connection, unsent)


def changed(connection: Connection, before: Account, after: Account) -> None:
    """Begin to count where a limit was set anew, by what went out before; and have the lane looked at again."""
    for (span, old), (_, new) in zip(_limits(before), _limits(after), strict=True):
        if (old is None) is (new is None):
            continue
        connection.execute(delete(counts).where(counts.c.account_id == after.id, counts.c.span == span.name))
        if new is not None:
            _seed(connection, after.id, span)
    if _limits(before) != _limits(after):
        connection.execute(_CLOSE.values(open_at=None), {"account": after.id})


def _seed(connection: Connection, account_id: UUID, span: Span) -> None:
    """Count the attempts of the last window, and what is claimed now. A try of a mail counts all its recipients, since
    nobody knows any more which of them were pending then.
    """
    moment = connection.execute(_NOW).scalar_one()
    since = moment - timedelta(seconds=span.window_seconds + span.seconds)
    first_id = UUID(int=int((since - _CLOCKS_DIFFER).timestamp() * 1000) << 80)  # ids begin with their time
    tried = select(
        _bucket(connection, span, attempts.c.started_at).label("bucket"),
        (literal(1) if span is MAILS else _recipients_of(attempts.c.mail_id)).label("number"),
    ).where(
        attempts.c.account_id == account_id,
        attempts.c.id >= first_id,
        attempts.c.started_at >= since,
        attempts.c.outcome != Outcome.UNREACHED,
    )
    in_hand = select(
        _bucket(connection, span, mails.c.claimed_at).label("bucket"),
        (literal(1) if span is MAILS else _recipients_of(mails.c.id)).label("number"),
    ).where(mails.c.account_id == account_id, mails.c.claim.is_not(None), mails.c.claimed_at >= since)
    all_of_it = union_all(tried, in_hand).subquery()
    connection.execute(
        insert(counts).from_select(
            ["account_id", "span", "bucket", "count"],
            select(
                literal(account_id, Uuid), literal(span.name), all_of_it.c.bucket, func.sum(all_of_it.c.number)
            ).group_by(all_of_it.c.bucket),
        )
    )


def _recipients_of(mail_id: ColumnElement[UUID]) -> ColumnElement[int]:
    return select(func.count()).where(recipients.c.mail_id == mail_id).scalar_subquery()


def _bucket(connection: Connection, span: Span, moment: ColumnElement[datetime]) -> ColumnElement[int]:
    seconds = extract("epoch", moment)
    whole = seconds if connection.dialect.name == "sqlite" else func.floor(seconds)  # SQLite's are whole already
    return cast(whole, BigInteger) // span.seconds
