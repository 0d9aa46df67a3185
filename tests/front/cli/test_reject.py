"""`postroom reject …`: a job that could not be taken is seen, and replayed once its cause is gone."""

from typing import Any

from postroom.producer import names
from postroom.producer.errors import InvalidMail
from postroom.producer.identifiers import uuid7
from postroom.worker.accept import accept
from servers.scripted_smtp import ScriptedSMTP


def _reject(house: Any) -> Any:
    """A job of a template that is not there, rejected by a worker."""
    mail_id = house.take(from_=None, subject=None, text=None, template={"name": "order"})
    [reject] = house.run("reject", "list", "--json").json
    assert reject["mail_id"] == str(mail_id)
    return reject


def test_a_rejected_job_is_listed_and_shown(house: Any) -> None:
    reject = _reject(house)
    assert reject.keys() >= {"id", "mail_id", "producer", "error", "created_at", "replayed_at"}
    assert "order" in reject["error"]
    assert house.run("reject", "show", reject["id"], "--json").json == reject
    assert reject["id"] in house.run("reject", "list").out
    assert reject["error"] in house.run("reject", "show", reject["id"]).out


def test_a_replayed_job_goes_its_way(house: Any, smtp: ScriptedSMTP, monkeypatch: Any) -> None:
    house.add_account(smtp)
    with monkeypatch.context() as patch:
        patch.setattr("postroom.worker.accept._from", _refuse)
        mail_id = house.take()
    [reject] = house.run("reject", "list", "--json").json
    house.redis.hset(names.INBOX, str(mail_id), b"another job under the same id")
    replayed = house.run("reject", "replay", reject["id"], "--json").json
    assert replayed["replayed_at"] is not None
    [(task, [fields, _])] = house.nudged(names.QUEUE_ACCEPT)
    assert task == names.TASK_ACCEPT
    assert house.redis.hget(names.INBOX, str(mail_id)) == b"another job under the same id"
    accept(house.process, fields)
    assert house.mail(mail_id)["state"] == "queued"


def _refuse(_: object) -> Any:
    raise InvalidMail([("from", "is not liked today")])


def test_replaying_needs_redis_and_notes_nothing_without_it(house: Any, monkeypatch: Any) -> None:
    reject = _reject(house)
    with monkeypatch.context() as patch:
        patch.setenv("POSTROOM_BROKER_URL", "redis+socket:///tmp/postroom-no-such.sock")
        assert house.run("reject", "replay", reject["id"]).code == 1
    assert house.run("reject", "show", reject["id"], "--json").json["replayed_at"] is None


def test_a_reject_that_is_not_there(house: Any) -> None:
    for command in ("show", "replay"):
        assert house.run("reject", command, "42").code == 2
        assert house.run("reject", command, str(uuid7())).code == 1
    assert house.run("reject", "list", "--json").json == []
