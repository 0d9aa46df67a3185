"""Mails that ended long ago are emptied, later deleted; in between their keys are known still."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, func, insert, select, text

from postroom.config.states import MailState, Outcome
from postroom.config.tables import attempts, counts, letters, mails, metadata, recipients, rejects, turns
from postroom.producer.errors import Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import interventions, ledger
from postroom.worker.chores.erase import erase
from postroom.worker.chores.prune import prune
from postroom.worker.erasing import erase_mails, locked
from postroom.worker.retry import Next
from servers.command import wait_until
from servers.databases import on_postgresql, on_sqlite
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House

ADDRESS = "zinaida.needle@client.example"
PERSONAL: dict[str, Any] = {
    "from_": "Needle Shop <shop@shop.example>",
    "to": f"Zinaida Needle <{ADDRESS}>",
    "subject": "Needle order 4711",
    "text": "needle body",
    "owner": None,
    "tags": ["needle-tag"],
    "template": {"name": "order", "locale": "ru", "version": "7", "meta": {"who": "needle-meta"}},
}
SECRETS = ["needle", "zinaida", "shop@shop.example"]


def days_ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


def sent(house: House, smtp: ScriptedSMTP, **fields: Any) -> UUID:
    """A mail that ended just now."""
    account = house.add_account(smtp)
    mail_id = house.take(**{**PERSONAL, **fields})
    house.drain(account)
    return mail_id


def aged(house: House, mail_id: UUID, days: float) -> UUID:
    house.change("mails", mail_id, ended_at=days_ago(days))
    return mail_id


def rows(house: House, table: str) -> int:
    with house.process.database.read() as connection:
        return connection.execute(select(func.count()).select_from(metadata.tables[table])).scalar_one()


def everything(house: House) -> str:
    """All that the tables of mails hold, as text."""
    with house.process.database.read() as connection:
        found = [connection.execute(select(table)).all() for table in (mails, letters, recipients, attempts, rejects)]
    return str(found).lower()


def test_what_is_personal_goes_and_what_became_of_it_stays(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp, key="order-7", to=[PERSONAL["to"], "rcpt-550-5.1.1@needle.example"]), 91)
    before = house.show(mail_id)
    assert "needle" in everything(house)
    assert erase(house.process) == 1
    shown = house.show(mail_id)
    assert [secret for secret in SECRETS if secret in everything(house)] == []
    assert shown["erased_at"] is not None
    kept = ("id", "state", "reason", "producer", "account_id", "created_at", "ended_at", "copies_possible", "priority")
    assert {name: shown[name] for name in kept} == {name: before[name] for name in kept}
    assert (shown["from"], shown["to"], shown["subject"], shown["owner"], shown["tags"]) == ("", ["", ""], "", None, [])
    assert shown["template"] == {"name": "order", "locale": None, "version": "7", "meta": None}
    assert [(each["state"], each["reply"], each["enhanced_status_code"]) for each in shown["recipients"]] == [
        ("accepted", "250", "2.0.0"),
        ("refused", "550", "5.1.1"),
    ]
    assert [(each["outcome"], each["reply"]) for each in shown["attempts_log"]] == [("accepted", "250")]
    assert rows(house, "letters") == 0
    assert erase(house.process) == 0, "twice does no harm"


def test_only_what_ended_long_enough_ago_is_erased(house: House, smtp: ScriptedSMTP) -> None:
    waiting = house.take(from_="nobody@shop.example")
    recent = aged(house, sent(house, smtp), 89)
    house.change("mails", waiting, created_at=days_ago(1000))
    assert erase(house.process) == 0
    assert house.show(recent)["subject"] == PERSONAL["subject"]
    house.process.settings = house.process.settings.model_copy(update={"erase_after_days": 0})
    assert erase(house.process) == 1, "at once"
    assert house.show(waiting)["erased_at"] is None
    assert rows(house, "letters") == 1


def test_more_than_a_chunk_is_erased_in_one_run(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp), 91)
    with house.process.database.write() as connection:
        copy(connection, mail_id, 249)
    assert erase(house.process) == 250
    with house.process.database.write() as connection:
        connection.execute(mails.update().values(erased_at=days_ago(31)))
    assert prune(house.process) == 250
    assert (rows(house, "mails"), rows(house, "recipients"), rows(house, "attempts")) == (0, 0, 0)


def test_two_schedulers_share_the_work(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp), 91)
    with house.process.database.write() as connection:
        copy(connection, mail_id, 399)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: erase(house.process), range(2)))
    assert sum(found) + erase(house.process) == 400
    assert "needle" not in everything(house)


@on_postgresql
def test_whoever_resends_while_it_is_erased_waits_and_is_refused(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp, to="rcpt-550-5.1.1@client.example"), 91)

    def resend() -> None:
        with house.process.database.write() as connection:
            interventions.resend(connection, mail_id)

    def one_waits() -> bool:
        with house.process.database.read() as connection:
            return bool(connection.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted")).all())

    with ThreadPoolExecutor(1) as threads:
        with house.process.database.write() as connection:
            assert erase_mails(connection, locked([mail_id])) == 1
            resending = threads.submit(resend)
            wait_until(one_waits)
        with pytest.raises(Refused, match="content was erased"):
            resending.result(10)
    assert house.state(mail_id) == ("failed", None)


def copy(connection: Connection, mail_id: UUID, times: int) -> None:
    row = dict(connection.execute(select(mails).where(mails.c.id == mail_id)).mappings().one())
    connection.execute(insert(mails), [row | {"id": uuid7()} for _ in range(times)])


def test_a_mail_resent_meanwhile_is_left(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp, to="rcpt-550-5.1.1@client.example"), 91)
    with house.process.database.write() as connection:
        interventions.resend(connection, mail_id)
    assert erase(house.process) == 0
    assert house.show(mail_id)["subject"] == PERSONAL["subject"]
    assert rows(house, "letters") == 1


def test_an_erased_mail_is_not_sent_again(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp, to="rcpt-550-5.1.1@client.example"), 91)
    erase(house.process)
    for deed in (
        lambda connection: interventions.resend(connection, mail_id),
        lambda connection: interventions.resolve(connection, mail_id, "resend"),
        lambda connection: interventions.cancel(connection, mail_id),
    ):
        with house.process.database.write() as connection, pytest.raises(Refused, match="content was erased"):
            deed(connection)
    assert house.state(mail_id) == ("failed", None)
    assert house.show(mail_id)["recipients"][0]["state"] == "refused"


def test_a_key_is_known_until_its_row_is_pruned(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp, key="order-7"), 91)
    erase(house.process)
    assert house.take(**PERSONAL, key="order-7") == mail_id
    assert rows(house, "rejects") == 0
    house.take(**{**PERSONAL, "text": "another body"}, key="order-7")
    with house.process.database.read() as connection:
        [error] = connection.execute(select(rejects.c.error)).scalars()
    assert "used before with another body" in error
    assert (house.show(mail_id)["subject"], rows(house, "letters"), rows(house, "mails")) == ("", 0, 1)
    house.change("mails", mail_id, erased_at=days_ago(29))
    assert prune(house.process) == 0
    house.change("mails", mail_id, erased_at=days_ago(31))
    assert prune(house.process) == 1
    assert house.take(**{**PERSONAL, "text": "another body"}, key="order-7") == mail_id
    assert house.show(mail_id)["state"] == "queued"


def test_a_late_reply_writes_no_words_into_an_erased_mail(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = aged(house, sent(house, smtp), 91)
    erase(house.process)
    with house.process.database.write() as connection:
        attempt = connection.execute(select(attempts)).one()
        connection.execute(attempts.update().values(outcome="uncertain"))
        late = ledger.Record(
            mail_id=mail_id,
            claim=uuid7(),
            attempt_id=attempt.id,
            account_id=attempt.account_id,
            duration_seconds=1.0,
            outcome=Outcome.ACCEPTED,
            scope=None,
            rule=None,
            reply=f"250 2.0.0 <{ADDRESS}> taken",
            enhanced_status_code="2.0.0",
            recipients=(),
            next=Next(MailState.SENT),
        )
        ledger.turn(connection, [ledger.Turn(record=late)])
    [tried] = house.show(mail_id)["attempts_log"]
    assert (tried["outcome"], tried["reply"]) == ("accepted", "250")


@pytest.mark.parametrize(
    ("days", "replayed", "erase_after", "goes"),
    [(89, False, 90, False), (91, False, 90, True), (6, False, 0, False), (8, False, 0, True), (0.1, True, 0, True)],
)
def test_rejects_go_once_they_are_old(house: House, days: float, replayed: bool, erase_after: int, goes: bool) -> None:
    house.process.settings = house.process.settings.model_copy(update={"erase_after_days": erase_after})
    with house.process.database.write() as connection:
        row = {"id": uuid7(), "mail_id": uuid7(), "error": "to: needle", "sealed": b"PR1"}
        at = days_ago(days)
        connection.execute(insert(rejects).values(**row, created_at=at, replayed_at=at if replayed else None))
    assert prune(house.process) == goes
    assert rows(house, "rejects") == (not goes)


def test_counts_and_turns_that_are_over_go(house: House) -> None:
    clock = int(datetime.now(UTC).timestamp())
    account_id = uuid7()
    buckets = [("second", clock, 110, 130), ("minute", clock // 60, 24 * 60, 25 * 60 + 2)]
    with house.process.database.write() as connection:
        for span, bucket, young, old in buckets:
            for age in (0, young, old):
                row = {"account_id": account_id, "span": span, "bucket": bucket - age, "count": 1}
                connection.execute(insert(counts).values(row))
        for owner, days in (("", 0.9), ("crm-7", 1.1)):
            turn = {"account_id": account_id, "priority": 1, "owner": owner, "turn": 1, "given_at": days_ago(days)}
            connection.execute(insert(turns).values(turn))
    assert prune(house.process) == 3
    assert (rows(house, "counts"), rows(house, "turns")) == (4, 1)


@pytest.fixture
def many(house: House, smtp: ScriptedSMTP) -> House:
    """Hundreds of mails to one person among as many that stay, so that pages were split and moved."""
    account = house.add_account(smtp)
    ids = []
    for number in range(150):
        ids.append(house.enqueue(**PERSONAL, key=f"order-{number}"))
        ids.append(house.enqueue(to=f"bob-{number}@other.example"))
    house.accept(*ids)
    house.drain(account)
    return house


@on_sqlite
def test_no_trace_is_left_in_sqlites_files(many: House, data_dir: Path) -> None:
    with many.process.database.write() as connection:
        connection.execute(mails.update().where(mails.c.tags != "[]").values(ended_at=days_ago(91)))
        boxes = connection.execute(select(letters.c.sealed).join(mails).where(mails.c.tags != "[]")).scalars().all()

    def traces() -> set[str]:
        files = b"".join(path.read_bytes() for path in data_dir.glob("postroom.db*")).lower()
        sealed = ["a sealed letter"] if any(box[20:60].lower() in files for box in boxes) else []
        return {word for word in ("needle", "zinaida") if word.encode() in files} | set(sealed)

    assert traces() == {"needle", "zinaida", "a sealed letter"}
    assert erase(many.process) == 150
    assert traces() == set()
    with many.process.database.read() as connection:
        assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
