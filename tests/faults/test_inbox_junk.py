"""Junk in the inbox: each job that cannot be taken is on the reject list with why, and harms no neighbour."""

import base64
import json
import os
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from faults.conftest import Postroom
from postroom.config import rejects
from postroom.config.vault import public_key
from postroom.producer import names
from postroom.producer.identifiers import uuid7
from postroom.producer.sealing import PublicKey
from worker.conftest import House

Spoil = Callable[[House, UUID, dict[str, Any]], bytes]


def sealed(house: House, mail_id: UUID, job: bytes) -> bytes:
    return public_key(house.process.settings).seal(job, names.inbox_identity(mail_id))


def plain(text: Callable[[bytes], bytes]) -> Spoil:
    """Junk inside of a box that opens."""
    return lambda house, mail_id, job: sealed(house, mail_id, text(json.dumps(job).encode()))


def with_(**fields: Any) -> Spoil:
    return lambda house, mail_id, job: sealed(house, mail_id, json.dumps({**job, **fields}).encode())


def boxed(change: Callable[[bytes], bytes]) -> Spoil:
    """A true box that was changed on its way."""
    return lambda house, mail_id, job: change(sealed(house, mail_id, json.dumps(job).encode()))


def flipped(place: int) -> Spoil:
    return boxed(lambda box: box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :] if place >= 0 else _last(box))


def _last(box: bytes) -> bytes:
    return box[:-1] + bytes([box[-1] ^ 1])


def by_another_key(_house: House, mail_id: UUID, job: dict[str, Any]) -> bytes:
    stranger = PublicKey.of(X25519PrivateKey.generate())
    return stranger.seal(json.dumps(job).encode(), names.inbox_identity(mail_id))


def from_another_id(house: House, _mail_id: UUID, job: dict[str, Any]) -> bytes:
    return sealed(house, uuid7(), json.dumps(job).encode())


JUNK: list[tuple[str, Spoil, str]] = [
    ("broken JSON", plain(lambda job: job[:-1]), "job: is no JSON"),
    ("no JSON at all", plain(lambda _: os.urandom(64)), "job: is no JSON"),
    ("nothing", plain(lambda _: b""), "job: is no JSON"),
    ("a list", plain(lambda _: b"[]"), "job: must be a JSON object"),
    ("deep nesting", plain(lambda _: b'{"v":1,"a":' + b"[" * 200_000), "job: is no JSON"),
    ("nesting that JSON takes", with_(context=json.loads('{"a":' * 400 + "1" + "}" * 400)), "context: "),
    ("a name twice", plain(lambda job: job[:-1] + b', "to": ["eve@evil.example"]}'), "job: says 'to' twice"),
    ("no version", with_(v=None), "v: must be the job's version, 1"),
    ("version 0", with_(v=0), "v: must be"),
    ("version as text", with_(v="1"), "v: must be"),
    ("version as a fraction", with_(v=1.5), "v: must be"),
    ("a number too long to read", plain(lambda job: job[:-1] + b', "tags": ' + b"9" * 5000 + b"}"), "job: is no JSON"),
    ("endless number", plain(lambda job: job[:-1] + b', "context": {"a": 1e999}}'), "context: "),
    ("no number", plain(lambda job: job[:-1] + b', "context": {"a": NaN}}'), "context: "),
    ("unknown field", with_(password="x"), "password: extra inputs are not permitted"),
    ("unknown field of an attachment", with_(attachments=[{"filename": "a", "content": "", "x": 1}]), "attachments[0]"),
    ("NUL in the subject", with_(subject="a\0b"), "subject: must not hold a line break, NUL"),
    ("half a character", plain(lambda job: job.replace(b"Order 7", rb"\ud800")), "subject: must not hold"),
    ("content that is no base64", with_(attachments=[{"filename": "a", "content": "?"}]), "must be bytes, or"),
    ("a time without an offset", with_(send_at="2026-12-31T09:00:00"), "send_at: "),
    ("another id", with_(id=str(UUID(int=7))), "id: is 00000000-0000-0000-0000-000000000007, but the job lies"),
    ("11 MiB", with_(text="x" * 11 * 1024**2), "and the limit is 10,485,760 (POSTROOM_JOB_LIMIT_BYTES)"),
    ("magic changed", flipped(0), "is no sealed box"),
    ("key id changed", flipped(5), "which is not in the private ring (POSTROOM_KEYS_FILE)"),
    ("ephemeral key changed", flipped(20), "does not open: sealed for something else, or changed since"),
    ("ciphertext changed", flipped(60), "does not open"),
    ("tag changed", flipped(-1), "does not open"),
    ("cut off", boxed(lambda box: box[:-1]), "does not open"),
    ("cut short", boxed(lambda box: box[:50]), "is no sealed box"),
    ("something after it", boxed(lambda box: box + b"\0"), "does not open"),
    ("as base64", boxed(base64.b64encode), "is no sealed box"),
    ("empty", boxed(lambda _: b""), "is no sealed box"),
    ("by another key", by_another_key, "which is not in the private ring"),
    ("moved from another id", from_another_id, "does not open"),
]


def lay(house: House, spoil: Spoil) -> UUID:
    mail_id = uuid7()
    job = {
        "v": 1,
        "id": str(mail_id),
        "producer": "site",
        "from": "shop@shop.example",
        "to": ["anna@client.example"],
        "subject": "Order 7",
        "text": "Thank you",
    }
    house.process.redis.hset(names.INBOX, str(mail_id), spoil(house, mail_id, job))
    house.process.redis.zadd(names.INBOX_AT, {str(mail_id): 1.0})
    return mail_id


def rejected(house: House) -> dict[str, str]:
    with house.process.database.read() as connection:
        return {each["mail_id"]: each["error"] for each in rejects.newest(connection, limit=100)}


def test_each_piece_of_junk_is_rejected_with_why_and_its_neighbours_go_on(house: House) -> None:
    first, last = house.enqueue(), house.enqueue()
    junk = {lay(house, spoil): (name, error) for name, spoil, error in JUNK}
    house.accept(first, *junk, last)
    found = rejected(house)
    assert len(found) == len(junk)
    for mail_id, (name, error) in junk.items():
        assert error in found[str(mail_id)], name
    assert house.state(first) == house.state(last) == ("held", "no_account")
    assert not house.process.redis.exists(names.INBOX, names.INBOX_AT, "postroom:inbox:hand", "postroom:inbox:tries")


def test_no_error_on_the_reject_list_quotes_a_letter(house: House) -> None:
    junk = [lay(house, spoil) for _, spoil, _ in JUNK]
    house.accept(*junk)
    for error in rejected(house).values():
        assert len(error) < 500
        assert "Thank you" not in error


@pytest.mark.parametrize("version", [2, 10**30])
def test_a_job_of_a_newer_version_is_left_and_its_neighbour_goes_on(house: House, version: int) -> None:
    newer, good = lay(house, with_(v=version, hologram=True)), house.enqueue()
    house.accept(newer, good)
    assert rejected(house) == {}
    assert house.state(good) == ("held", "no_account")
    assert house.process.redis.hkeys(names.INBOX) == [str(newer).encode()]
    assert not house.process.redis.exists("postroom:inbox:hand", "postroom:inbox:tries")


def test_the_reject_list_shows_junk_and_replays_it(house: House, postroom: Postroom) -> None:
    mail_id = lay(house, with_(text="x" * 2048))
    small = house.process.settings.model_copy(update={"job_limit_bytes": 1024})
    ours, house.process.settings = house.process.settings, small
    house.accept(mail_id)
    [reject] = json.loads(postroom("reject", "list", "--json").out)
    assert reject["mail_id"] == str(mail_id)
    assert "POSTROOM_JOB_LIMIT_BYTES" in postroom("reject", "show", reject["id"]).out
    house.process.settings = ours  # its cause is gone
    done = postroom("reject", "replay", reject["id"])
    assert done.code == 0, done.err
    (field,) = house.process.redis.hkeys(names.INBOX)
    house.accept(str(field, "ascii") if isinstance(field, bytes) else field)
    assert house.state(mail_id) == ("held", "no_account")
