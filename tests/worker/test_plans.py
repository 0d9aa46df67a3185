"""No statement scans a table that grows. All that a mail's way, the chores and the command line really execute are
explained where they run, in a ledger of tens of thousands of mails.
"""
# ruff: noqa: S608 - names of our own tables and columns

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, event, select, text

from postroom.config import accounts as kept
from postroom.config import mails as listing
from postroom.config import pauses
from postroom.config import rejects as refused
from postroom.config.mails import Filter
from postroom.config.tables import attempts, letters, mails, recipients, rejects
from postroom.worker import interventions, lanes, misplaced
from postroom.worker.app import CHORES
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House

GROW = [table.name for table in (mails, recipients, letters, attempts, rejects)]
FILLED_WITH = {"sent": 20_000, "failed": 1_000, "queued": 2_000, "deferred": 2_000, "held": 2_000}

WAITING = ["ix_mails_lane", "ix_mails_due", "ix_mails_later", "ix_mails_held", "ix_mails_claim", "ix_mails_expires"]
"""Indexes that hold only what has not ended. Walking one of them is looking at what waits."""

Plans = dict[str, list[str]]


def fill(house: House, mail_id: UUID, share: float) -> None:
    """Tens of thousands of mails that have ended, and thousands that wait, all made of one that was really sent."""
    with house.process.database.write() as connection:
        for state, count in FILLED_WITH.items():
            _copy(connection, mail_id, state, int(count * share))
        for table in (letters, recipients, attempts):
            columns = {column.name: f"copied.{column.name}" for column in table.c} | {"mail_id": "mails.id"}
            if "address" in columns:
                columns["address"] = "CAST(mails.id AS TEXT) || '@client.example'"
            if "id" in columns:
                columns["id"] = _random_id(connection)
            connection.exec_driver_sql(
                f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {', '.join(columns.values())}"
                f" FROM mails, {table.name} AS copied WHERE copied.mail_id = {_id(connection, mail_id)}"
                f" AND NOT EXISTS (SELECT 1 FROM {table.name} AS there WHERE there.mail_id = mails.id)"
            )
        connection.exec_driver_sql(
            "INSERT INTO rejects (id, mail_id, error, sealed, created_at)"
            f" SELECT {_random_id(connection)}, id, state, body_hash, created_at FROM mails WHERE state = 'failed'"
        )


def _copy(connection: Connection, mail_id: UUID, state: str, count: int) -> None:
    waits = state in {"queued", "deferred"}
    true, false = ("TRUE", "FALSE") if connection.dialect.name == "postgresql" else ("1", "0")
    changed = {
        "id": _random_id(connection),
        "state": f"'{state}'",
        "reason": "'no_account'" if state == "held" else "NULL",
        "ready": true if state == "queued" else false,
        "due_at": "expires_at" if waits else "NULL",
        "held_at": "created_at" if state == "held" else "NULL",
        "ended_at": "NULL" if waits or state == "held" else "created_at",
        "from_key": "'nobody@shop.example'" if state == "held" else "from_key",
        "account_id": "NULL" if state == "held" else "account_id",
        "created_at": _back_in_time(connection),
    }
    columns = [column.name for column in mails.c]
    connection.exec_driver_sql(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < "
        f"{count}) INSERT INTO mails ({', '.join(columns)}) SELECT {', '.join(changed.get(c, c) for c in columns)}"
        f" FROM mails, numbers WHERE mails.id = {_id(connection, mail_id)}"
    )


def _id(connection: Connection, mail_id: UUID) -> str:
    return f"'{mail_id}'" if connection.dialect.name == "postgresql" else f"'{mail_id.hex}'"


def _random_id(connection: Connection) -> str:
    return "gen_random_uuid()" if connection.dialect.name == "postgresql" else "lower(hex(randomblob(16)))"


def _back_in_time(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        return "created_at - n * interval '1 second'"
    return "strftime('%Y-%m-%d %H:%M:%f', created_at, -n || ' seconds') || '000'"


@contextmanager
def explained(house: House) -> Iterator[Plans]:
    """Statement → its plan, of all that is executed within."""
    plans: Plans = {}
    engine = house.process.database.engine
    how = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"

    def explain(connection: Connection, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not re.match(r"(SELECT|INSERT|UPDATE|DELETE|WITH)\b", statement.lstrip()):
            return
        if isinstance(parameters, list):
            parameters = parameters[0]
        own = connection.connection.cursor()
        own.execute(f"{how} {statement}", parameters)
        plans.setdefault(statement, []).extend(str(row[-1]) for row in own.fetchall())
        own.close()

    event.listen(engine, "before_cursor_execute", explain)
    yield plans
    event.remove(engine, "before_cursor_execute", explain)


def scans(statement: str, plan: list[str]) -> list[str]:
    """The lines that tell of a table that is read from end to end.

    Mails newest first, of any kind, are the end of an index: the walk ends where the page is full.
    """
    scan = re.compile(rf"Seq Scan on ({'|'.join(GROW)})\b|SCAN ({'|'.join(GROW)})\b")
    end_of_index = [] if "WHERE" in statement else ["ix_mails_created_at", "ix_rejects_created_at"]
    walks = tuple(f"USING INDEX {name}" for name in (*WAITING, *end_of_index))
    return [line for line in map(str.strip, plan) if scan.search(line) and not line.endswith(walks)]


def live(house: House, smtp: ScriptedSMTP) -> None:
    """All that can happen to a mail, and what a person looks at."""
    account = house.add_account(smtp)
    sent = house.take()
    house.take(to=["rcpt-450@client.example", "anna@client.example"])
    failed = house.take(to="rcpt-550-5.1.1@client.example")
    house.take(to="dot-lost@client.example", on_uncertain="hold")
    house.take(from_="nobody@shop.example")
    house.process.redis.hset("postroom:inbox", str(uuid4()), b"PR1 no box")
    old = house.take()
    while "queued" in {house.state(mail_id)[0] for mail_id in (sent, failed, old)}:
        house.drain(account)  # on a slow machine it ends before its lane does
    limited = house.add_account(smtp, "limited@shop.example", mails_per_minute=1, recipients_per_day=9)
    for _ in range(2):
        house.take(from_="limited@shop.example")
        house.drain(limited)
    house.change("mails", old, ended_at=datetime.now(UTC) - timedelta(days=91))
    for chore in CHORES.values():
        chore(house.process)
    assert house.show(old)["erased_at"] is not None
    pause_and_resume(house)
    with house.process.database.write() as connection:
        interventions.resend(connection, failed)
        interventions.cancel(connection, failed)
    # By another filter the newest mails are walked until enough fit: an index for each would cost every mail.
    wanted = [
        Filter(),
        Filter(recipient="anna@client.example"),
        Filter(since=datetime.now(UTC) - timedelta(minutes=1), until=datetime.now(UTC)),
    ]
    with house.process.database.read() as connection:
        for each in wanted:
            listing.newest(connection, each, limit=50)
        listing.show(connection, sent)
        listing.state_of(connection, sent)
        refused.newest(connection, limit=50)
        refused.of_mail(connection, sent)
        kept.find(connection, "shop@shop.example")
        lanes.explain(connection, "shop@shop.example", None)


def pause_and_resume(house: House) -> None:
    """Hundreds of waiting mails are held, by a pause of one account and by one of all, and leave again."""
    with house.process.database.write() as connection:
        busy = kept.find(connection, "busy@shop.example")
        for paused, lifted in (
            (partial(pauses.pause, account_id=busy.id), partial(pauses.resume, account_id=busy.id)),
            (pauses.pause_all, pauses.resume_all),
        ):
            assert paused(connection)
            assert _chosen_anew(connection) >= 300
            assert lifted(connection)
            assert _chosen_anew(connection) >= 300
        pauses.since(connection)
        pauses.of_accounts(connection)


def _chosen_anew(connection: Connection) -> int:
    """Three transactions' worth of each part; small ones, since a table of this size is better scanned for many ids."""
    moved = 0
    for part in misplaced.find(connection):
        go_on: misplaced.Part | None = part
        for _ in range(3):
            if go_on is not None:
                ids, go_on = go_on.take(connection, 100)
                moved += lanes.place(connection, ids).moved
    return moved


def test_what_was_planned_for_an_almost_empty_ledger_is_right_for_a_grown_one(house: House, smtp: ScriptedSMTP) -> None:
    """A plan is kept for as long as nobody gathers statistics; a table of one mail is scanned with pleasure."""
    if house.process.database.engine.dialect.name == "sqlite":
        pytest.skip("SQLite takes an index wherever there is one")
    account = house.add_account(smtp)
    house.take()
    house.drain(account)
    analyse(house)
    with explained(house) as plans:
        house.take()
        house.drain(account)
    assert len(plans) > 15, "it was the whole way"
    dear = re.compile(rf"(Seq Scan|Bitmap Heap Scan) on ({'|'.join(GROW)})\b|Hash Join|Merge Join")
    found = {statement: plan for statement, plan in plans.items() if any(map(dear.search, plan))}
    assert not found, "\n".join(f"{statement}\n{plan}\n" for statement, plan in found.items())


@pytest.mark.parametrize("statistics", ["fresh", "stale"])
def test_nothing_that_grows_is_scanned(house: House, smtp: ScriptedSMTP, statistics: str) -> None:
    """Stale statistics tell of a tenth of it."""
    account = house.add_account(smtp, "busy@shop.example")
    mail_id = house.take(from_="busy@shop.example")
    house.drain(account)
    fill(house, mail_id, 0.1)
    if statistics == "stale":
        analyse(house)
    fill(house, mail_id, 0.9)
    if statistics == "fresh":
        analyse(house)
    with explained(house) as plans:
        live(house, smtp)
    assert len(plans) > 40, "it was the whole way"
    found = {statement: (bad, plan) for statement, plan in plans.items() if (bad := scans(statement, plan))}
    assert not found, "\n".join(f"{statement}\n{plan}\n" for statement, (_, plan) in found.items())


def analyse(house: House) -> None:
    with house.process.database.write() as connection:
        connection.execute(text("ANALYZE"))


def test_a_scan_would_be_seen(house: House, smtp: ScriptedSMTP) -> None:
    account = house.add_account(smtp, "busy@shop.example")
    mail_id = house.take(from_="busy@shop.example")
    house.drain(account)
    fill(house, mail_id, 0.1)
    with explained(house) as plans, house.process.database.read() as connection:
        connection.execute(select(mails.c.id).where(mails.c.subject == "Order 7"))
    [(statement, plan)] = plans.items()
    assert scans(statement, plan)
