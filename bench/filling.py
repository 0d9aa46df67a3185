"""Fills a ledger: what it recorded of some real mails is multiplied by SQL, as if they had been sent before."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Connection,
    FromClause,
    Insert,
    Integer,
    Table,
    Uuid,
    func,
    insert,
    literal,
    null,
    select,
    text,
    true,
)

from bench.house import House
from bench.letter import sender
from bench.sink import Sink
from postroom.config.states import MailState, RecipientState
from postroom.config.tables import accounts, attempts, letters, mails, recipients

_AT_ONCE: Final = 50_000
_KEPT_OF_LETTER_BYTES: Final = 200
_BEFORE: Final = timedelta(days=2)
_WAITING_FROM_SECONDS: Final = 1_000_000
_EARLIER_ON_POSTGRESQL: Final = """
    CREATE OR REPLACE FUNCTION earlier(id uuid, seconds integer) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex((('x' || substr(id::text, 1, 8) || substr(id::text, 10, 4))::bit(48)::bigint)
            - seconds::bigint * 1000), 12, '0') || substr(replace(id::text, '-', ''), 13))::uuid
    $$
"""


def fill(house: House, to: Sink, *, recorded: int, waiting: int, lanes: int) -> tuple[int, int]:
    """Add about so many mails that were sent, and others that wait in many lanes for their accounts' limits.

    Of a letter 200 bytes are kept: its size is the disk's matter, and on nobody else's way.

    Returns:
        How many were added of either kind.
    """
    today = datetime.now(UTC) - timedelta(days=1)
    originals = select(mails.c.id).where(mails.c.created_at > today)
    with house.database.read() as connection:
        there = connection.execute(select(func.count()).select_from(originals.subquery())).scalar_one()
    copies, at_once = recorded // there, _AT_ONCE // there
    for first in range(1, copies + 1, at_once):
        _add(house, _numbers(first, min(first + at_once - 1, copies)), originals, _sent(today - _BEFORE))
    for number in range(1, lanes + 1):
        house.add_account(
            to, sender(number), connections=4, priority=number, mails_per_minute=1, open_at=today + 2 * _BEFORE
        )
    numbered = (accounts.c.priority + _WAITING_FROM_SECONDS).label("seconds")
    lane = (accounts.c.id.label("account_id"), accounts.c.address, accounts.c.address_key, numbered)
    full = select(*lane).where(accounts.c.priority > 0).subquery()
    few = select(originals.order_by(mails.c.id).limit(waiting // lanes).subquery().c.id)
    _add(house, full, few, _waiting(today - _BEFORE, full))
    _look_at_it_anew(house)
    return copies * there, waiting // lanes * lanes


def _sent(then: datetime) -> dict[str, dict[str, Any]]:
    """What differs in a copy that was sent, by table."""
    at = literal(then, mails.c.created_at.type)
    return {
        "mails": {"created_at": at, "ended_at": at},
        "letters": {"sealed": func.substr(letters.c.sealed, 1, _KEPT_OF_LETTER_BYTES)},
        "recipients": {},
        "attempts": {},
    }


def _waiting(then: datetime, lanes: FromClause) -> dict[str, dict[str, Any]]:
    """What differs in a copy that waits in one of these lanes."""
    at = literal(then, mails.c.created_at.type)
    lane = {
        "account_id": lanes.c.account_id,
        "from_address": lanes.c.address,
        "from_key": lanes.c.address_key,
    }
    queued = {"state": literal(MailState.QUEUED.value), "ready": true(), "created_at": at, "due_at": at}
    never_tried = dict.fromkeys(("ended_at", "attempt_id", "marked_at", "claimed_at", "claim"), null())
    return {
        "mails": {"attempts": literal(0), **lane, **queued, **never_tried},
        "letters": {"sealed": func.substr(letters.c.sealed, 1, _KEPT_OF_LETTER_BYTES)},
        "recipients": {"state": literal(RecipientState.PENDING.value), "reply": null()},
    }


def _add(house: House, times: FromClause, originals: Any, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Copy each original once for each row of `times`, by so many seconds earlier as it says."""
    with house.database.write() as connection:
        _prepare(connection)
        for table in (mails, letters, recipients, attempts):
            if table.name in changes:
                connection.execute(_copied(table, times, originals, changes[table.name]))


def _copied(table: Table, times: FromClause, originals: Any, changes: Mapping[str, Any]) -> Insert:
    keys: dict[str, Any] = {
        name: func.earlier(table.c[name], times.c.seconds, type_=Uuid())
        for name in ("id", "mail_id", "attempt_id")
        if name in table.c
    }
    values = {column.name: column for column in table.c} | keys | dict(changes)
    whose = table.c.id if table is mails else table.c.mail_id
    copied = select(*values.values()).select_from(table.join(times, true())).where(whose.in_(originals))
    return insert(table).from_select(list(values), copied)


def _numbers(first: int, last: int) -> FromClause:
    numbers = select(literal(first, Integer).label("seconds")).cte(recursive=True)
    return numbers.union_all(select(numbers.c.seconds + 1).where(numbers.c.seconds < last))


def _prepare(connection: Connection) -> None:
    """Give the database a function that makes a UUID version 7, which begins with its milliseconds, an earlier one."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(_EARLIER_ON_POSTGRESQL))
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # what is copied refers to its copies
    else:
        plain: Any = connection.connection.driver_connection
        plain.create_function("earlier", 2, _earlier, deterministic=True)


def _earlier(hexadecimal: str | None, seconds: int) -> str | None:
    return hexadecimal and f"{int(hexadecimal[:12], 16) - seconds * 1000:012x}{hexadecimal[12:]}"


def _look_at_it_anew(house: House) -> None:
    """Do what PostgreSQL's autovacuum does by itself within the hour."""
    if house.database.engine.dialect.name == "postgresql":
        with house.database.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
