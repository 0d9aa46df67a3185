"""Handing over to a real Redis: what lies there afterwards, and what happens when it cannot."""

import base64
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
from celery import Celery, current_app
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import postroom.producer
from postroom.producer import BrokerUnavailable, InvalidMail, KeyUnusable, Mail, MailTooLarge, Producer, SettingsInvalid
from postroom.producer.names import INBOX, INBOX_AT, QUEUE_ACCEPT, inbox_identity
from postroom.producer.sealing import PublicKey, open_box
from servers.redis_server import RedisServer

SECRETS = ["anna@client.example", "Anna Needle", "shop@shop.example", "subject-needle", "text-needle"]


def a_mail(**changes: Any) -> Mail:
    given = {
        "from_": "shop@shop.example",
        "to": "Anna Needle <anna@client.example>",
        "subject": "subject-needle",
        "text": "text-needle",
    }
    return Mail(**{**given, **changes})


@pytest.fixture
def producer(redis_server: RedisServer, public_key: PublicKey) -> Iterator[Producer]:
    with Producer(redis_server.url, public_key=public_key) as made:
        yield made


def messages(client: redis.Redis) -> list[dict[str, Any]]:
    """The Celery messages waiting for accept, oldest first, their bodies decoded."""
    found: Any = client.lrange(QUEUE_ACCEPT, 0, -1)
    read = [json.loads(each) for each in reversed(found)]
    return [{**each, "body": json.loads(base64.b64decode(each["body"]))} for each in read]


def test_one_mail_is_in_the_inbox_and_nudged(
    producer: Producer, redis_server: RedisServer, private_key: X25519PrivateKey
) -> None:
    template = {"name": "order", "locale": "ru", "version": "3", "meta": {"event": "SALE"}}
    mail = a_mail(template=template)
    mail_id = producer.enqueue(mail)
    client = redis_server.client()
    jobs: Any = client.hgetall(INBOX)
    assert list(jobs) == [str(mail_id).encode()]
    job = open_box(private_key, jobs[str(mail_id).encode()], inbox_identity(mail_id))
    assert Mail.from_job(job) == mail.identified("site")
    at: Any = client.zscore(INBOX_AT, str(mail_id))
    assert abs(time.time() - at) < 60
    (message,) = messages(client)
    assert message["headers"]["task"] == "postroom.accept"
    assert message["body"][0] == [[str(mail_id)], [template]]


def test_nothing_personal_is_on_the_nudge_nor_readable_in_redis(producer: Producer, redis_server: RedisServer) -> None:
    producer.enqueue(a_mail(template={"name": "order"}))
    client = redis_server.client()
    (message,) = messages(client)
    raw: Any = client.lrange(QUEUE_ACCEPT, 0, -1)
    jobs: Any = client.hvals(INBOX)
    everything = json.dumps(message) + repr(raw) + repr(jobs)
    for secret in SECRETS:
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode()[:-4] not in everything


def test_a_second_body_under_a_key_lies_beside_the_first(producer: Producer, redis_server: RedisServer) -> None:
    first = producer.enqueue(a_mail(key="order-7"))
    box = redis_server.client().hget(INBOX, str(first))
    assert producer.enqueue(a_mail(key="order-7", subject="other")) == first
    client = redis_server.client()
    fields = {str(field, "ascii") for field in client.hkeys(INBOX) if isinstance(field, bytes)}
    assert {field.partition("~")[0] for field in fields} == {str(first)}
    assert len(fields) == client.zcard(INBOX_AT) == 2
    assert client.hget(INBOX, str(first)) == box
    assert {field for each in messages(client) for field in each["body"][0][0]} == fields


def test_many_are_read_lazily_and_nudged_by_the_hundred(producer: Producer, redis_server: RedisServer) -> None:
    client = redis_server.client()
    in_redis_when_read: list[int] = []

    def generate() -> Iterator[Mail]:
        for number in range(250):
            in_redis_when_read.append(int(client.hlen(INBOX)))
            yield a_mail(subject=str(number), template={"name": "even" if number % 2 else "odd"})

    ids = producer.enqueue_many(generate())
    assert len(set(ids)) == 250
    assert ids == sorted(ids), "in the order given"
    assert in_redis_when_read[99:101] == [0, 100]
    sent = messages(client)
    assert [len(each["body"][0][0]) for each in sent] == [100, 100, 50]
    assert [each["body"][0][1] for each in sent] == [
        [{"name": name, "locale": None, "version": None, "meta": {}} for name in ("odd", "even")]
    ] * 3


def test_a_bad_mail_among_many_tells_what_was_handed_over(producer: Producer, redis_server: RedisServer) -> None:
    def generate() -> Iterator[Mail]:
        for _ in range(150):
            yield a_mail()
        yield a_mail(to="nobody")

    with pytest.raises(InvalidMail) as refused:
        producer.enqueue_many(generate())
    handed_over: list[UUID] = refused.value.handed_over  # type: ignore[attr-defined]
    assert len(handed_over) == redis_server.client().hlen(INBOX) == 100


def test_a_job_over_the_limit_is_refused(redis_server: RedisServer, public_key: PublicKey) -> None:
    with Producer(redis_server.url, public_key=public_key, job_limit_bytes=5000) as producer:
        producer.enqueue(a_mail(text="x" * 4000))
        with pytest.raises(MailTooLarge, match="POSTROOM_JOB_LIMIT_BYTES"):
            producer.enqueue(a_mail(text="x" * 5000))
    assert redis_server.client().hlen(INBOX) == 1


def test_defaults_come_from_the_environment(
    redis_server: RedisServer, public_key: PublicKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_BROKER_URL", redis_server.url)
    monkeypatch.setenv("POSTROOM_DATA_DIR", str(tmp_path))
    with pytest.raises(KeyUnusable, match="keygen"):
        Producer()
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "public.key").write_text(public_key.to_text())
    monkeypatch.setenv("POSTROOM_JOB_LIMIT_BYTES", "many")
    with pytest.raises(SettingsInvalid, match="POSTROOM_JOB_LIMIT_BYTES"):
        Producer()
    monkeypatch.setenv("POSTROOM_JOB_LIMIT_BYTES", "1000")
    with Producer() as producer:
        producer.enqueue(a_mail())
        with pytest.raises(MailTooLarge):
            producer.enqueue(a_mail(text="x" * 2000))


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis+socket:///tmp/postroom-no-such/redis.sock"])
def test_redis_that_is_not_there(url: str, public_key: PublicKey) -> None:
    with (
        Producer(url, public_key=public_key, timeout_seconds=1) as producer,
        pytest.raises(BrokerUnavailable, match="postroom up"),
    ):
        producer.enqueue(a_mail())


def test_redis_that_hangs_is_waited_for_no_longer_than_said(public_key: PublicKey) -> None:
    with RedisServer() as server, Producer(server.url, public_key=public_key, timeout_seconds=0.5) as producer:
        producer.enqueue(a_mail())
        server.pause()
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match="did not answer in time"):
            producer.enqueue(a_mail())
        assert time.monotonic() - began < 5
        server.resume()
        producer.enqueue(a_mail())


def test_redis_that_is_full_keeps_nothing_half(public_key: PublicKey) -> None:
    with RedisServer(maxmemory="2mb") as server, Producer(server.url, public_key=public_key) as producer:
        handed_over = iter(range(1000))

        def enqueue_until_full() -> None:
            while True:
                producer.enqueue(a_mail(text="x" * 50_000))
                next(handed_over)

        with pytest.raises(BrokerUnavailable, match="full"):
            enqueue_until_full()
        client = server.client()
        assert client.hlen(INBOX) == client.zcard(INBOX_AT) == next(handed_over) > 0


def test_redis_with_another_password(public_key: PublicKey) -> None:
    with RedisServer(port="0") as server:
        server.client().config_set("requirepass", "right")
        url = server.url.replace("redis+socket://", "redis+socket://:wrong@")
        with Producer(url, public_key=public_key) as producer, pytest.raises(BrokerUnavailable, match="password"):
            producer.enqueue(a_mail())
        server.client().close()


def test_a_nudge_that_cannot_be_published_is_no_error(
    redis_server: RedisServer, public_key: PublicKey, caplog: pytest.LogCaptureFixture
) -> None:
    client = redis_server.client()
    client.acl_setuser("site", enabled=True, passwords="+pw", keys="*", categories=["+@all"], commands=["-lpush"])
    url = redis_server.url.replace("redis+socket://", "redis+socket://site:pw@")
    with Producer(url, public_key=public_key) as producer, caplog.at_level(logging.WARNING):
        mail_id = producer.enqueue(a_mail())
    assert client.hexists(INBOX, str(mail_id))
    assert messages(client) == []
    assert "the mail waits in the inbox" in caplog.text
    assert not any(secret in caplog.text for secret in SECRETS)


def test_threads_share_a_producer(producer: Producer, redis_server: RedisServer) -> None:
    threads = [threading.Thread(target=lambda: [producer.enqueue(a_mail()) for _ in range(10)]) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert redis_server.client().hlen(INBOX) == 160


def test_a_forked_child_has_connections_of_its_own(redis_server: RedisServer, public_key: PublicKey) -> None:
    script = f"""
import os
from postroom.producer import Mail, Producer
producer = Producer({redis_server.url!r}, public_key={public_key.to_text()!r})
mail = dict(from_="a@b.example", to="c@d.example", subject="x", text="y")
producer.enqueue(Mail(**mail))
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        for _ in range(20):
            producer.enqueue(Mail(**mail))
        os._exit(0)
    children.append(pid)
for _ in range(20):
    producer.enqueue(Mail(**mail))
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert redis_server.client().hlen(INBOX) == 81


def test_the_sites_own_celery_is_left_alone(redis_server: RedisServer, public_key: PublicKey) -> None:
    own = Celery("site", broker="redis://site.example/0", set_as_current=True)
    with Producer(redis_server.url, public_key=public_key) as producer:
        producer.enqueue(a_mail())
    assert current_app._get_current_object() is own
    assert own.conf.broker_url == "redis://site.example/0"


def test_the_public_names() -> None:
    assert sorted(postroom.producer.__all__) == [
        "Address",
        "Attachment",
        "BrokerUnavailable",
        "InvalidMail",
        "KeyUnusable",
        "Mail",
        "MailTooLarge",
        "PostroomError",
        "Producer",
        "SettingsInvalid",
        "Template",
    ]
    assert all(hasattr(postroom.producer, name) for name in postroom.producer.__all__)


def test_importing_it_pulls_no_database_and_no_web_server() -> None:
    unwanted = [
        "sqlalchemy",
        "alembic",
        "pydantic_settings",
        "typer",
        "flower",
        "tornado",
        "fastapi",
        "structlog",
        "rich",
    ]
    script = f"import sys, postroom.producer; print([name for name in {unwanted} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": ""}
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert told.stdout.strip() == "[]"
