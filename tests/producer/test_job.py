"""The job, which a worker of another release may read: what was said comes back, and nothing else is taken."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.producer import InvalidMail, Mail
from postroom.producer.errors import NewerJob

Make = Callable[..., Mail]

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
EVERYTHING: dict[str, Any] = {
    "owner": "u7",
    "cc": ["c@client.example"],
    "bcc": ["b@client.example"],
    "reply_to": ["r@shop.example"],
    "template": {"name": "order", "locale": "ru", "version": "3", "meta": {"event": "SALE", "site": 1, "test": True}},
    "html": "<p>x",
    "headers": {"X-Shop": "7"},
    "attachments": [{"filename": "a.png", "content": b"\x89", "inline_id": "a"}],
    "priority": "bulk",
    "send_at": NOON,
    "expires_at": NOON + timedelta(days=1),
    "on_uncertain": "hold",
    "tags": ["order"],
}


def test_a_job_is_version_1_as_the_design_has_it(make: Make) -> None:
    mail = make(**EVERYTHING, key="order-7", subject="Заказ")
    job = mail.to_job()
    assert json.loads(job) == {
        "v": 1,
        "id": str(mail.id),
        "producer": "site",
        "key": "order-7",
        "owner": "u7",
        "from": {"address": "shop@shop.example"},
        "to": [{"address": "anna@client.example", "name": "Anna Needle"}],
        "cc": [{"address": "c@client.example"}],
        "bcc": [{"address": "b@client.example"}],
        "reply_to": [{"address": "r@shop.example"}],
        "template": EVERYTHING["template"],
        "subject": "Заказ",
        "text": "text-needle",
        "html": "<p>x",
        "headers": {"X-Shop": "7"},
        "attachments": [{"filename": "a.png", "content": "iQ==", "content_type": "image/png", "inline_id": "a"}],
        "priority": "bulk",
        "send_at": "2026-11-24T12:00:00Z",
        "expires_at": "2026-11-25T12:00:00Z",
        "on_uncertain": "hold",
        "tags": ["order"],
    }
    assert "Заказ".encode() in job
    assert Mail.from_job(job) == mail


def test_a_job_that_was_written_down_reads_the_same_for_ever() -> None:
    job = """{"v":1,"id":"01a20fec-46fa-71fd-ab1c-3cdb6dd9d36d","producer":"crm","from":"Shop <shop@shop.example>",
        "to":["anna@client.example"],"template":{"name":"order"},"context":{"n":[1,2.5,null]},"priority":"high"}"""
    read = Mail.from_job(job.encode())
    assert str(read.id) == "01a20fec-46fa-71fd-ab1c-3cdb6dd9d36d"
    assert (read.producer, read.priority, read.context) == ("crm", "high", {"n": [1, 2.5, None]})
    assert read.from_ is not None
    assert (read.from_.name, read.renders_template) == ("Shop", True)


def test_raw_is_base64_in_the_job(make: Make) -> None:
    letter = bytes(range(1, 256)) + b"Subject: \xff\r\n\r\n"
    mail = make(subject=..., text=..., raw=letter)
    assert base64.b64decode(json.loads(mail.to_job())["raw"]) == letter
    assert Mail.from_job(mail.to_job()).raw == letter


line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=30)
text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
address = st.builds(
    lambda local, domain, name: {"address": f"{local}@{domain}", "name": name},
    st.from_regex(r"[A-Za-z0-9+_-]{1,20}", fullmatch=True),
    st.sampled_from(["client.example", "почта.рф"]),
    line,
)
addresses = st.lists(address, min_size=1, max_size=3)
number = st.integers(-(2**62), 2**62) | st.floats(-1e18, 1e18)
value = st.none() | st.booleans() | number | text
time = st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001 - the zone is drawn apart
    datetime(2100, 1, 1),  # noqa: DTZ001
    timezones=st.builds(timezone, st.timedeltas(timedelta(hours=-12), timedelta(hours=14))),
)
template = st.fixed_dictionaries(
    {"name": st.text("abж", min_size=1, max_size=9)},
    optional={
        "locale": st.sampled_from(["ru", "en-GB"]),
        "version": st.none() | st.just("3"),
        "meta": st.dictionaries(line, st.none() | st.booleans() | number | line, max_size=4),
    },
)
attachments = st.fixed_dictionaries(
    {"filename": line.filter(str.strip), "content": st.binary(max_size=40)},
    optional={"content_type": st.just("text/plain; charset=utf-8"), "inline_id": st.none() | st.just("a@b")},
)
common = {
    "cc": addresses,
    "bcc": addresses,
    "key": st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20),
    "owner": st.from_regex(r"[A-Za-z0-9._:@-]{1,64}", fullmatch=True),
    "priority": st.sampled_from(["high", "normal", "bulk"]),
    "send_at": time,
    "on_uncertain": st.sampled_from([None, "resend", "hold"]),
    "tags": st.lists(line.filter(bool), max_size=3),
}
composed = {
    **common,
    "reply_to": addresses,
    "headers": st.dictionaries(st.from_regex(r"X-[A-Z]{1,9}", fullmatch=True), line, max_size=3),
    "attachments": st.lists(attachments, max_size=2, unique_by=lambda each: each.get("inline_id") or id(each)),
}
json_values = st.recursive(value, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))
rendered = st.fixed_dictionaries(
    {"from": address, "to": addresses, "subject": line, "text": text},
    optional={**composed, "html": text, "template": template},
)
rendered_here = st.fixed_dictionaries(
    {"to": addresses, "template": template},
    optional={**composed, "from": address, "context": st.dictionaries(text, json_values, max_size=4)},
)
raw = st.fixed_dictionaries(
    {
        "from": address,
        "to": addresses,
        "raw": st.binary(min_size=1, max_size=60).filter(lambda raw: raw.strip() and b"\0" not in raw),
    },
    optional={**common, "template": template},
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(rendered | rendered_here | raw)
def test_a_job_reads_back_as_the_same_mail(fields: dict[str, Any]) -> None:
    mail = Mail(**fields)
    again = Mail.from_job(mail.to_job())
    assert again == mail
    assert again.to_job() == mail.to_job()
    assert again.body() == mail.body() == Mail(**fields).body()
    assert json.loads(mail.to_job(), parse_constant=pytest.fail)["v"] == 1


def test_the_body_does_not_depend_on_who_asked_and_how_it_was_written(make: Make) -> None:
    asked = make(**EVERYTHING, key="1").body()
    assert make(**EVERYTHING, key="2").identified("crm").body() == asked
    assert make(**EVERYTHING, id="01a20fec-46fa-71fd-ab1c-3cdb6dd9d36d").body() == asked
    other_spelling = {
        **EVERYTHING,
        "to": [{"name": "Anna Needle", "address": "anna@CLIENT.example"}],
        "cc": "c@client.example",
        "send_at": "2026-11-24T15:00:00+03:00",
        "attachments": [{"inline_id": "a", "content": "iQ==", "content_type": "image/png", "filename": "a.png"}],
        "template": {
            "meta": {"test": True, "site": 1, "event": "SALE"},
            "version": "3",
            "locale": "ru",
            "name": "order",
        },
    }
    assert make(**dict(reversed(other_spelling.items()))).body() == asked
    assert make(priority="normal", tags=[], cc=(), headers={}).body() == make().body()


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "u8"},
        {"from_": "other@shop.example"},
        {"from_": "Shop <shop@shop.example>"},
        {"to": "b@client.example"},
        {"to": "Bella <anna@client.example>"},
        {"to": ["Anna Needle <anna@client.example>", "b@client.example"]},
        {"cc": ...},
        {"bcc": ..., "cc": ["b@client.example", "c@client.example"]},
        {"reply_to": "s@shop.example"},
        {"template": {**EVERYTHING["template"], "version": "4"}},
        {"template": {**EVERYTHING["template"], "meta": {"event": "SALE", "site": 2, "test": True}}},
        {"subject": "other"},
        {"text": "other"},
        {"text": ...},
        {"text": ""},
        {"html": "<p>y"},
        {"headers": {"X-Shop": "8"}},
        {"attachments": [{"filename": "a.png", "content": b"\x88", "inline_id": "a"}]},
        {"attachments": [{"filename": "b.png", "content": b"\x89", "inline_id": "a"}]},
        {"priority": "high"},
        {"send_at": NOON + timedelta(microseconds=1)},
        {"expires_at": ...},
        {"on_uncertain": "resend"},
        {"tags": ["order", "2"]},
    ],
)
def test_the_body_differs_with_whatever_was_asked(make: Make, changes: dict[str, Any]) -> None:
    assert make(**{**EVERYTHING, **changes}).body() != make(**EVERYTHING).body()


@pytest.mark.parametrize(
    ("job", "field"),
    [
        (b"", "job"),
        (b"\xff", "job"),
        (b"{'v': 1}", "job"),
        (b"[" * 100_000, "job"),
        (b'{"v": 1' + b"0" * 5000 + b"}", "job"),
        (b"[]", "job"),
        (b'"v"', "job"),
        (b"null", "job"),
        (b"{}", "v"),
        *((f'{{"v": {version}}}'.encode(), "v") for version in ("0", "-1", '"1"', "null", "true", "1.0", "[1]")),
        (b'{"v": 1}', "to"),
        (b'{"v": 1, "self": 1, "to": ["a@b.example"]}', "self"),
        (b'{"v": 1, "cls": 1, "to": ["a@b.example"]}', "cls"),
        (b'{"v": 1, "hologram": true, "to": ["a@b.example"]}', "hologram"),
        (b'{"v": 1, "to": [{"address": "a@b.example", "self": 1}]}', "to[0].self"),
    ],
)
def test_a_broken_job_is_refused(job: bytes, field: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        Mail.from_job(job)
    assert refused.value.field == field


@pytest.mark.parametrize("version", [2, 99])
def test_a_newer_job_is_told_from_a_broken_one_whatever_is_in_it(version: int) -> None:
    with pytest.raises(NewerJob, match=f"version {version}") as newer:
        Mail.from_job(json.dumps({"v": version, "hologram": True, "to": 7}).encode())
    assert not isinstance(newer.value, InvalidMail)
