"""Handing over to a real Redis: what lies there afterwards."""

import base64
import gc
import itertools
import json
import quopri
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from celery import Celery
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from postroom.producer import BrokerUnavailable, InvalidMail, Mail, MailTooLarge, Producer
from postroom.producer.identifiers import keyed_id
from postroom.producer.names import INBOX, INBOX_AT, QUEUE_ACCEPT, inbox_identity
from postroom.producer.sealing import PublicKey, open_box
from postroom.worker.nudges import CeleryNudges
from servers.redis_server import RedisServer

Make = Callable[..., Mail]
Nudges = Callable[[], list[dict[str, Any]]]

TEMPLATE = {"name": "order", "locale": "ru", "version": "3", "meta": {"event": "SALE_NEW_ORDER", "site": "s1"}}
PERSONAL: dict[str, Any] = {
    "from_": {"address": "from-needle@shop.example", "name": "Имя-отправителя"},
    "to": {"address": "to-needle@client.example", "name": "Имя-получателя"},
    "cc": "cc-needle@client.example",
    "bcc": "bcc-needle@client.example",
    "reply_to": "reply-needle@shop.example",
    "subject": "Тема-иголка",
    "text": "text-needle",
    "html": "<p>html-needle",
    "headers": {"X-Needle": "header-needle"},
    "attachments": [{"filename": "file-needle.pdf", "content": b"content-needle"}],
    "key": "key-needle",
    "tags": ["tag-needle"],
}
NEEDLES = [
    *("from-needle", "Имя-отправителя", "to-needle", "Имя-получателя", "cc-needle", "reply-needle", "Тема-иголка"),
    *("text-needle", "html-needle", "X-Needle", "header-needle", "file-needle", "content-needle", "key-needle"),
    *("tag-needle", "client.example"),
]


def fields_of(redis_server: RedisServer) -> set[str]:
    with redis_server.client() as client:
        found: Any = client.hkeys(INBOX)
    return {field.decode() for field in found}


def spellings(text: str) -> Iterator[bytes]:
    """A text in every encoding that something on the way might have used."""
    octets = text.encode()
    yield octets
    yield json.dumps(text)[1:-1].encode()
    yield repr(octets)[2:-1].encode()
    yield quote(text).encode()
    yield octets.hex().encode()
    yield quopri.encodestring(octets).strip()
    for before in range(3):
        # Base64 of a text that stands at any place of another: without what its neighbours have a share in.
        yield base64.b64encode(b"\0" * before + octets)[(0, 2, 3)[before] : -4]


def flat(message: dict[str, Any], within: str = "") -> dict[str, Any]:
    """What a message says, by the names that lead to it."""
    said: dict[str, Any] = {}
    for name, each in message.items():
        said |= flat(each, f"{within}{name}.") if isinstance(each, dict) and each else {f"{within}{name}": each}
    return said


def test_one_mail_is_in_the_inbox_and_nudged(
    producer: Producer, redis_server: RedisServer, private_key: X25519PrivateKey, make: Make, nudges: Nudges
) -> None:
    mail = make(template=TEMPLATE)
    before = time.time()
    mail_id = producer.enqueue(mail)
    assert mail_id == mail.id
    with redis_server.client() as client:
        jobs: Any = client.hgetall(INBOX)
        at: Any = client.zrange(INBOX_AT, 0, -1, withscores=True)
    ((field, box),) = jobs.items()
    assert field == str(mail_id).encode()
    assert Mail.from_job(open_box(private_key, box, inbox_identity(mail_id))) == mail
    ((dated, score),) = at
    assert dated == field
    assert before - 1 <= score <= time.time() + 1
    (message,) = nudges()
    assert message["body"][:2] == [[[str(mail_id)], [TEMPLATE]], {}]
    assert message["headers"]["task"] == "postroom.accept"
    assert message["properties"]["delivery_info"]["routing_key"] == "postroom.accept"
    assert (message["content-type"], message["content-encoding"]) == ("application/json", "utf-8")


def test_nothing_personal_is_on_the_nudge_nor_readable_in_redis(
    producer: Producer, redis_server: RedisServer, make: Make
) -> None:
    producer.enqueue(make(**PERSONAL, template=TEMPLATE, owner="owner-needle"))
    with redis_server.client() as client:
        names: Any = client.keys()
        dumps = [client.dump(name) or b"" for name in names]
        (raw,) = client.lrange(QUEUE_ACCEPT, 0, -1)
        everything = b"\n".join([*names, *dumps, raw, base64.b64decode(json.loads(raw)["body"])])
    assert b"SALE_NEW_ORDER" in everything
    for needle in [*NEEDLES, "owner-needle"]:
        assert [each for each in spellings(needle) if each in everything] == []


def test_a_nudge_says_ids_and_template_metadata_and_no_more(producer: Producer, make: Make, nudges: Nudges) -> None:
    mail_id = str(producer.enqueue(make(**PERSONAL, template=TEMPLATE)))
    (message,) = nudges()
    known = {
        "lang": "py",
        "task": "postroom.accept",
        "id": message["headers"]["id"],
        "root_id": message["headers"]["id"],
        "argsrepr": repr(([mail_id], [TEMPLATE])),
        "kwargsrepr": "{}",
        "origin": "site",  # the producer's name, not the machine's
        "ignore_result": True,
        "timelimit": [None, None],
        "retries": 0,
    }
    said = {name: each for name, each in message["headers"].items() if each not in (None, {}, [], 0, False)}
    assert {name: each for name, each in said.items() if known.get(name, ...) != each} == {}


def test_a_second_job_under_an_id_lies_beside_the_first(
    producer: Producer, redis_server: RedisServer, private_key: X25519PrivateKey, make: Make, nudges: Nudges
) -> None:
    first = producer.enqueue(make(key="order-7", subject="first"))
    assert first == keyed_id("site", "order-7")
    assert producer.enqueue(make(key="order-7", subject="second")) == first
    fields = fields_of(redis_server)
    assert str(first) in fields
    (second,) = fields - {str(first)}
    assert second.partition("~")[:2] == (str(first), "~")
    with redis_server.client() as client:
        assert client.zcard(INBOX_AT) == 2
        for field, subject in ((str(first), "first"), (second, "second")):
            box: Any = client.hget(INBOX, field)
            assert Mail.from_job(open_box(private_key, box, inbox_identity(first))).subject == subject
    assert {field for each in nudges() for field in each["body"][0][0]} == fields


def test_handing_over_again_does_not_make_a_waiting_job_younger(
    producer: Producer, redis_server: RedisServer, make: Make
) -> None:
    field = str(producer.enqueue(make(key="order-7")))
    with redis_server.client() as client:
        client.zadd(INBOX_AT, {field: 1000.0})  # it has been waiting for years, and strays are found by age
        producer.enqueue(make(key="order-7"))
        assert client.zscore(INBOX_AT, field) == 1000.0


def test_the_same_mail_twice_in_one_batch(
    producer: Producer, redis_server: RedisServer, make: Make, nudges: Nudges
) -> None:
    mail = make()
    assert producer.enqueue_many([mail, make(), mail]).count(mail.id) == 2
    assert len(fields_of(redis_server)) == 3
    (message,) = nudges()
    assert set(message["body"][0][0]) == fields_of(redis_server)


def test_many_are_read_lazily_and_nudged_by_the_hundred(
    producer: Producer, redis_server: RedisServer, make: Make, nudges: Nudges
) -> None:
    in_inbox_when_read: list[int] = []

    def generate(client: Any) -> Iterator[Mail]:
        for number in range(250):
            in_inbox_when_read.append(client.hlen(INBOX))
            yield make(key=f"order-{number}", template={"name": "even" if number % 2 else "odd"})

    with redis_server.client() as client:
        ids = producer.enqueue_many(generate(client))
    assert ids == [keyed_id("site", f"order-{number}") for number in range(250)], "in the order given"
    assert in_inbox_when_read == [0] * 100 + [100] * 100 + [200] * 50
    fields, templates = zip(*(each["body"][0] for each in nudges()), strict=True)
    assert [len(each) for each in fields] == [100, 100, 50]
    assert [*itertools.chain(*fields)] == [str(each) for each in ids]
    assert [[each["name"] for each in batch] for batch in templates] == [["odd", "even"]] * 3


def test_many_are_let_go_as_they_are_handed_over(producer: Producer, make: Make) -> None:
    alive: list[int] = []

    def generate() -> Iterator[Mail]:
        for number in range(1000):
            yield make()
            if number % 100 == 50:
                alive.append(sum(isinstance(each, Mail) for each in gc.get_objects()))

    before = sum(isinstance(each, Mail) for each in gc.get_objects())
    producer.enqueue_many(generate())
    assert max(alive) - before < 110


def test_a_nudge_is_the_message_that_celery_would_send(
    producer: Producer, redis_server: RedisServer, make: Make, nudges: Nudges
) -> None:
    mail_id = str(producer.enqueue(make(template=TEMPLATE)))
    with Celery("site", broker=redis_server.url, set_as_current=False) as celery:
        celery.send_task("postroom.accept", args=[[mail_id], [TEMPLATE]], queue=QUEUE_ACCEPT, ignore_result=True)
    ours, theirs = (flat(message) for message in nudges())
    own = {f"headers.{name}" for name in ("id", "root_id", "origin", "argsrepr")}
    own |= {f"properties.{name}" for name in ("correlation_id", "delivery_tag", "reply_to")}
    assert {name for name in ours.keys() | theirs.keys() if ours.get(name, ...) != theirs.get(name, ...)} == own
    assert {name: type(ours[name]) for name in own} == {name: type(theirs[name]) for name in own}


def test_what_comes_in_is_accepted_before_what_was_left_lying_and_that_before_bulk(
    producer: Producer, redis_server: RedisServer, make: Make
) -> None:
    """In the order in which a worker's own library takes what lies in the queue."""
    bulk = list(producer.enqueue_many(make(priority="bulk") for _ in range(250)))
    with Celery("care", broker=redis_server.url, set_as_current=False) as celery:
        CeleryNudges(celery).accept(["left lying"])
    mixed = list(producer.enqueue_many([make(priority="bulk"), make(priority="high")]))
    normal = producer.enqueue(make())
    taken: list[list[str]] = []
    with Celery("worker", broker=redis_server.url, set_as_current=False) as celery, celery.connection() as connection:
        queue = connection.SimpleQueue(QUEUE_ACCEPT)
        for _ in range(6):
            message = queue.get(timeout=5)
            taken.append(message.payload[0][0])
            message.ack()
        queue.close()
    assert taken[:3] == [[str(each) for each in mixed], [str(normal)], ["left lying"]]
    assert [each for fields in taken[3:] for each in fields] == [str(each) for each in bulk]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101])
def test_every_mail_of_any_number_is_handed_over_once(
    producer: Producer, redis_server: RedisServer, make: Make, nudges: Nudges, count: int
) -> None:
    ids = producer.enqueue_many(make() for _ in range(count))
    assert len(ids) == count
    assert fields_of(redis_server) == {str(each) for each in ids}
    assert len(nudges()) == (count + 99) // 100


def test_large_mails_are_handed_over_in_smaller_batches(producer: Producer, make: Make, nudges: Nudges) -> None:
    megabytes = 9
    large = make(text="x" * megabytes * 1024 * 1024)
    producer.enqueue_many([large, make(), large, make(), make()])
    sizes = [len(each["body"][0][0]) for each in nudges()]
    assert sum(sizes) >= 5
    assert len(sizes) == 2


def test_a_wrong_mail_among_many_tells_what_was_handed_over(
    producer: Producer, redis_server: RedisServer, make: Make
) -> None:
    made: list[Mail] = []

    def generate() -> Iterator[Mail]:
        while len(made) < 150:
            made.append(make())
            yield made[-1]
        make(to="nobody")

    with pytest.raises(InvalidMail) as refused:
        producer.enqueue_many(generate())
    told: Sequence[UUID] = refused.value.handed_over  # type: ignore[attr-defined]
    assert told == [mail.id for mail in made]
    assert fields_of(redis_server) == {str(each) for each in told}


def test_a_broker_lost_among_many_tells_what_was_handed_over(public_key: PublicKey, make: Make) -> None:
    with RedisServer() as server, Producer(server.url, public_key=public_key) as producer:

        def generate() -> Iterator[Mail]:
            for number in range(150):
                if number == 120:
                    server.kill()
                yield make()

        with pytest.raises(BrokerUnavailable) as away:
            producer.enqueue_many(generate())
        told: Sequence[UUID] = away.value.handed_over  # type: ignore[attr-defined]
        server.start()
        assert len(told) == 100
        assert fields_of(server) == {str(each) for each in told}


def test_a_job_over_the_limit_is_refused_and_the_message_says_both_sizes(
    redis_server: RedisServer, public_key: PublicKey, make: Make
) -> None:
    limit = len(make(text="x" * 4000).to_job())
    with Producer(redis_server.url, public_key=public_key, job_limit_bytes=limit) as producer:
        producer.enqueue(make(text="x" * 4000))
        with pytest.raises(MailTooLarge, match=rf"{limit + 1:,} bytes.*{limit:,}.*POSTROOM_JOB_LIMIT_BYTES"):
            producer.enqueue(make(text="x" * 4001))
        with pytest.raises(MailTooLarge) as refused:
            producer.enqueue_many([make(), make(text="x" * 4001), make()])
    told: Sequence[UUID] = refused.value.handed_over  # type: ignore[attr-defined]
    assert len(told) == 1
    assert len(fields_of(redis_server)) == 2


def test_a_job_is_sealed_for_its_id_alone(
    producer: Producer, redis_server: RedisServer, private_key: X25519PrivateKey, make: Make
) -> None:
    one, other = producer.enqueue(make()), producer.enqueue(make())
    with redis_server.client() as client:
        box: Any = client.hget(INBOX, str(one))
    assert open_box(private_key, box, inbox_identity(one))
    with pytest.raises(ValueError, match="does not open"):
        open_box(private_key, box, inbox_identity(other))


def test_a_producer_may_be_used_again_after_it_was_closed(
    producer: Producer, redis_server: RedisServer, make: Make
) -> None:
    producer.enqueue(make())
    producer.close()
    producer.close()
    producer.enqueue(make())
    assert len(fields_of(redis_server)) == 2
