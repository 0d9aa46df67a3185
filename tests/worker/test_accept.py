"""Accept: what lies in the inbox reaches the ledger or the reject list, and nothing is lost on the way."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, func, select

from postroom.config import rejects
from postroom.config.tables import mails
from postroom.config.vault import public_key
from postroom.producer import names
from postroom.producer.identifiers import uuid7
from postroom.worker import accept as accept_module
from postroom.worker.chores.release import release
from postroom.worker.chores.strays import strays
from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House


def lay(house: House, job: object, mail_id: UUID | None = None) -> UUID:
    """Lay a job into the inbox as a producer of any kind might."""
    mail_id = mail_id or uuid7()
    text = job if isinstance(job, bytes) else json.dumps(job).encode()
    box = public_key(house.process.settings).seal(text, names.inbox_identity(mail_id))
    house.process.redis.hset(names.INBOX, str(mail_id), box)
    house.process.redis.zadd(names.INBOX_AT, {str(mail_id): 1.0})
    return mail_id


def rejected(house: House) -> list[dict[str, object]]:
    with house.process.database.read() as connection:
        return rejects.newest(connection, limit=50)


def count(house: House) -> int:
    with house.process.database.read() as connection:
        return connection.execute(select(func.count()).select_from(mails)).scalar_one()


def job(**fields: object) -> dict[str, object]:
    return {"v": 1, "from": "shop@shop.example", "to": ["anna@client.example"], "subject": "x", "text": "y", **fields}


def inbox_is_empty(house: House) -> bool:
    return not house.process.redis.exists(names.INBOX, names.INBOX_AT, "postroom:inbox:hand", "postroom:inbox:tries")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{not json", "job: is no JSON"),
        ([1], "job: must be a JSON object"),
        ({"to": "a@b.c"}, "v: must be the job's version"),
        (job(unknown=1), "unknown: extra inputs are not permitted"),
        (job(to=["anna@client.example", "nobody"]), "to[1]: 'nobody' is no e-mail address"),
        (job(subject="a\r\nBcc: x@y.z"), "subject: must not hold a line break"),
        (job(subject=None, text=None, template={"name": "order"}, context={}), "there is no template 'order'"),
    ],
)
def test_a_job_that_cannot_be_taken_is_rejected_with_its_field(house: House, content: object, error: str) -> None:
    mail_id = uuid7()
    lay(house, {**content, "id": str(mail_id)} if isinstance(content, dict) else content, mail_id)
    house.accept(mail_id)
    (reject,) = rejected(house)
    assert error in str(reject["error"])
    assert reject["mail_id"] == str(mail_id)
    assert inbox_is_empty(house)
    assert count(house) == 0


def test_a_forged_or_moved_box_is_rejected(house: House) -> None:
    first, second = house.enqueue(), house.enqueue()
    box = house.process.redis.hget(names.INBOX, str(first))
    house.process.redis.hset(names.INBOX, str(second), box)
    third = uuid7()
    house.process.redis.hset(names.INBOX, str(third), b"PR1 this is no box at all")
    house.accept(first, second, third)
    assert {str(each["mail_id"]) for each in rejected(house)} == {str(second), str(third)}
    assert house.state(first) == ("held", "no_account")
    assert inbox_is_empty(house)


def test_a_job_under_another_id_than_its_own_is_rejected(house: House) -> None:
    mail_id = lay(house, job(id=str(uuid4())))
    house.accept(mail_id)
    assert "but the job lies in the inbox as" in str(rejected(house)[0]["error"])


def test_a_job_of_a_newer_version_stays_for_a_newer_worker(house: House) -> None:
    mail_id = uuid7()
    lay(house, {"v": 2, "id": str(mail_id), "hologram": True}, mail_id)
    house.accept(mail_id)
    assert rejected(house) == []
    assert house.process.redis.hexists(names.INBOX, str(mail_id))


def test_a_box_of_a_newer_release_stays_for_a_newer_worker(house: House) -> None:
    good, newer = house.enqueue(), uuid7()
    house.process.redis.hset(names.INBOX, str(newer), b"PR3" + bytes(100))
    house.accept(newer, good)
    assert rejected(house) == []
    assert house.state(good) == ("held", "no_account")
    assert house.process.redis.hkeys(names.INBOX) == [str(newer).encode()]
    assert not house.process.redis.exists("postroom:inbox:hand")


def test_a_job_of_an_older_producer_is_taken(house: House) -> None:
    mail_id = uuid7()
    lay(house, job(id=str(mail_id)), mail_id)
    box: Any = house.process.redis.hget(names.INBOX, str(mail_id))
    assert box.startswith(b"PR1")
    house.accept(mail_id)
    assert house.state(mail_id) == ("held", "no_account")


def test_one_bad_job_does_not_stop_its_batch(house: House) -> None:
    good = [house.enqueue() for _ in range(3)]
    bad = lay(house, b"garbage")
    house.accept(good[0], bad, *good[1:])
    assert count(house) == 3
    assert len(rejected(house)) == 1


def test_the_same_key_with_another_body_is_refused_while_it_lies_in_the_inbox(house: House) -> None:
    first = house.enqueue(key="order-7", subject="Order 7")
    assert house.enqueue(key="order-7", subject="Another order") == first
    assert house.process.redis.hlen(names.INBOX) == 2, "neither body is lost"
    fields = [str(field, "ascii") for field in house.process.redis.hkeys(names.INBOX) if isinstance(field, bytes)]
    house.accept(*sorted(fields))
    assert house.show(first)["subject"] == "Order 7"
    assert "'order-7' was used before with another body" in str(rejected(house)[0]["error"])
    assert inbox_is_empty(house)


def test_what_another_accept_records_meanwhile_is_known_when_all_is_begun_anew(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = house.take(key="order-7", subject="Order 7")
    house.enqueue(key="order-7", subject="Order 7")
    house.enqueue(key="order-7", subject="Another order")
    fresh = house.enqueue()
    asked: list[int] = []
    usual = accept_module._clock_and_known

    def too_early(connection: Connection, ids: Any) -> Any:
        clock, known = usual(connection, ids)
        asked.append(len(ids))
        return clock, known if len(asked) > 1 else {}

    monkeypatch.setattr(accept_module, "_clock_and_known", too_early)
    fields: Any = house.process.redis.hkeys(names.INBOX)
    house.accept(*sorted(field.decode() for field in fields))
    assert asked == [3, 3], "in one transaction, then in another"
    assert (count(house), house.show(first)["subject"], house.state(fresh)[0]) == (2, "Order 7", "held")
    assert [each["error"] for each in rejected(house)] == ["key: 'order-7' was used before with another body"]
    assert inbox_is_empty(house)


def test_the_same_key_with_another_body_is_refused_after_it_was_recorded(house: House) -> None:
    first = house.take(key="order-7", subject="Order 7")
    house.take(key="order-7", subject="Another order")
    assert house.show(first)["subject"] == "Order 7"
    assert len(rejected(house)) == 1


def test_the_same_key_and_body_again_changes_nothing(house: House) -> None:
    first = house.take(key="order-7")
    assert house.take(key="order-7") == first
    assert (count(house), rejected(house)) == (1, [])


@pytest.mark.parametrize("at", [1.0, 4e9], ids=["old", "by a clock far ahead"])
def test_strays_are_found_and_accepted(house: House, at: float) -> None:
    fresh, stray = house.enqueue(), house.enqueue()
    house.process.redis.zadd(names.INBOX_AT, {str(stray): at})
    assert strays(house.process) == 1
    assert house.nudges.accepts == [str(stray)]
    house.accept(*house.nudges.accepts)
    assert house.state(stray) == ("held", "no_account")
    assert house.process.redis.hexists(names.INBOX, str(fresh))


def test_a_job_that_kills_its_worker_five_times_is_rejected_and_its_neighbour_is_not(house: House) -> None:
    neighbour, killer = house.enqueue(), house.enqueue()
    for _ in range(5):
        house.process.inbox.take([str(killer)])  # a worker took it in hand, and died
        house.process.inbox.count_try(str(killer))
    house.process.inbox.take([str(neighbour)])
    house.accept(neighbour, killer)
    assert house.state(neighbour) == ("held", "no_account")
    (reject,) = rejected(house)
    assert (reject["mail_id"], reject["error"]) == (str(killer), "a worker died 5 times with this job in hand")


def test_a_database_that_is_away_leaves_all_in_the_inbox(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    mail_id = house.enqueue()

    def away() -> None:
        raise OSError("no database")

    with monkeypatch.context() as broken:
        broken.setattr(house.process.database, "write", away)
        with pytest.raises(OSError, match="no database"):
            house.accept(mail_id)
    assert house.process.redis.hexists(names.INBOX, str(mail_id))
    assert not house.process.redis.exists("postroom:inbox:hand"), "nothing was wrong with it: no crash is counted"
    house.accept(mail_id)
    assert house.state(mail_id) == ("held", "no_account")


def test_a_reject_is_replayed_once_its_cause_is_gone(house: House, smtp: ScriptedSMTP) -> None:
    mail_id = house.enqueue()
    ring = house.process.settings.ring_file
    kept = ring.read_text()
    ring.write_text(kept.replace(kept.split()[1], "A" * 43 + "="))
    house.accept(mail_id)
    (reject,) = rejected(house)
    assert "not in the private ring" in str(reject["error"])

    ring.write_text(kept)
    del house.process.ring  # as a restarted worker would read it
    with house.process.database.read() as connection:
        field, box = rejects.sealed_job(connection, UUID(str(reject["id"])))
    house.process.inbox.return_job(str(field), box)
    house.accept(field)
    assert house.state(mail_id) == ("held", "no_account")
    account = house.add_account(smtp)
    release(house.process)
    house.drain(account)
    assert house.state(mail_id) == ("sent", None)


def test_a_raw_letter_is_kept_as_it_is_and_its_subject_made_fit_for_the_ledger(
    house: House, smtp: ScriptedSMTP
) -> None:
    account = house.add_account(smtp)
    head = b"From: Shop <shop@shop.example>\r\nSubject: =?utf-8?b?AGFcbg==?= =?utf-8?b?DQp4?=\r\n"
    raw = head + b"Bcc: x@y.example\r\nX-Own: 1\r\n\r\nbody\r\n"
    mail_id = house.take(subject=None, text=None, raw=raw)
    house.drain(account)
    assert house.state(mail_id) == ("sent", None)
    assert not any(character in house.show(mail_id)["subject"] for character in "\0\r\n")
    (arrived,) = smtp.accepted
    assert b"X-Own: 1\r\n" in arrived.content
    assert arrived.content.endswith(b"\r\n\r\nbody\r\n")
    assert b"Bcc" not in arrived.content


def test_a_job_that_breaks_accept_is_rejected_and_its_neighbours_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbours, bad = [house.enqueue() for _ in range(2)], house.enqueue(subject="bad")
    compose_row = accept_module._mail_row

    def breaks(process: Any, each: Any, *more: Any) -> Any:
        if each.mail.subject == "bad":
            raise KeyError("anything")
        return compose_row(process, each, *more)

    monkeypatch.setattr(accept_module, "_mail_row", breaks)
    house.accept(neighbours[0], bad, neighbours[1])
    assert [house.state(each)[0] for each in neighbours] == ["held", "held"]
    (reject,) = rejected(house)
    assert (reject["mail_id"], reject["error"]) == (str(bad), "cannot be taken: KeyError")
    assert inbox_is_empty(house)


def test_a_time_at_the_end_of_time_is_no_trouble(house: House) -> None:
    mail_id = house.take(send_at="9999-12-31T12:00:00+00:00")
    assert house.state(mail_id) == ("held", "no_account")


def test_a_field_that_is_no_id_is_rejected(house: House) -> None:
    house.process.redis.hset(names.INBOX, "nonsense", b"PR1 nonsense")
    good = house.enqueue()
    house.accept("nonsense", good)
    assert house.state(good) == ("held", "no_account")
    assert len(rejected(house)) == 1
    assert inbox_is_empty(house)


def test_a_job_laid_while_another_under_its_id_was_taken_stays(house: House) -> None:
    mail_id = house.enqueue(key="order-7")
    taken = house.process.inbox.take([str(mail_id)])
    house.process.inbox.done(taken)
    house.enqueue(key="order-7", subject="Other")
    house.process.inbox.done(taken)
    assert house.process.redis.hexists(names.INBOX, str(mail_id))


@pytest.mark.parametrize(
    "header",
    [
        "From: The Boss <boss@shop.example>",
        "From: shop@shop.example\r\nSender: b@c.example",
        "From: shop@shop.example\r\nFrom : boss@shop.example",
        "From: shop@shop.example, boss@shop.example",
    ],
)
def test_a_raw_letter_may_not_say_another_from(house: House, header: str) -> None:
    house.take(subject=None, text=None, raw=f"{header}\r\nSubject: x\r\n\r\ny".encode())
    assert "From or Sender" in str(rejected(house)[0]["error"])
    assert count(house) == 0


@pytest.mark.parametrize(
    "header",
    ["From: shop@shop.example\r\nFrom: shop@shop.example", "From: shop@shop.example, Shop <shop@shop.example>"],
)
def test_a_raw_letter_has_one_from(house: House, header: str) -> None:
    house.take(subject=None, text=None, raw=f"{header}\r\nSubject: x\r\n\r\ny".encode())
    assert "must have one From" in str(rejected(house)[0]["error"])
    assert count(house) == 0
