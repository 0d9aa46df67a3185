"""A mail is checked when it is made, and each error names its field and says what is wrong."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from postroom.producer import Attachment, InvalidMail, Mail, PostroomError
from postroom.producer.identifiers import keyed_id

Make = Callable[..., Mail]

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
RENDERED_HERE = {"from_": ..., "subject": ..., "text": ..., "template": {"name": "order"}}
RAW = {"subject": ..., "text": ..., "raw": b"Subject: x\r\n\r\ny"}
CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE


def attachment(**changes: Any) -> dict[str, Any]:
    return {"attachments": [{"filename": "ok", "content": b""}, {"filename": "a", "content": b"", **changes}]}


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    [
        ({"colour": "red"}, "colour", "not permitted"),
        ({"self": "x"}, "self", "not permitted"),
        ({"from": "other@shop.example"}, "from_", "not permitted"),
        ({"id": "7"}, "id", "invalid length"),
        ({"owner": "a b"}, "owner", "pattern"),
        ({"owner": ""}, "owner", "pattern"),
        ({"owner": "x" * 65}, "owner", "pattern"),
        ({"owner": "владелец"}, "owner", "pattern"),
        ({"producer": "a/b"}, "producer", "pattern"),
        ({"key": ""}, "key", "must not be empty"),
        ({"key": "x" * 201}, "key", "at most 200"),
        ({"key": "a\tb"}, "key", "control characters"),
        ({"subject": 7}, "subject", "valid string"),
        ({"text": 7}, "text", "valid string"),
        ({"text": "half \ud83d"}, "text", "half a character"),
        ({"html": "half \ude00"}, "html", "half a character"),
        ({"text": "n\0ul"}, "text", "NUL"),
        ({"html": "Ж\0"}, "html", "NUL"),
        ({"headers": {"List-Unsubscribe": f"<https://a.example/{'k' * 1000}>"}}, "headers.List-Unsubscribe", "word"),
        ({"headers": {"List-Unsubscribe": f"<https://a.example/{'ж ' * 200}>"}}, "headers.List-Unsubscribe", "word"),
        ({"headers": {"References": f"<{'k' * 990}@b.example>"}}, "headers.References", "986 bytes"),
        ({"headers": {"X-Shop": 7}}, "headers.X-Shop", "valid string"),
        ({"headers": [("X-Shop", "7")]}, "headers", "valid dictionary"),
        ({"priority": "urgent"}, "priority", "'high', 'normal' or 'bulk'"),
        ({"on_uncertain": "maybe"}, "on_uncertain", "'resend' or 'hold'"),
        ({"tags": "order"}, "tags", "valid tuple"),
        ({"tags": ["ok", ""]}, "tags[1]", "must not be empty"),
        ({"tags": ["x" * 65]}, "tags[0]", "at most 64"),
        ({"tags": ["x"] * 33}, "tags", "at most 32"),
        (attachment(filename=""), "attachments[1].filename", "must not be empty"),
        (attachment(filename="x" * 1001), "attachments[1].filename", "at most 1000"),
        (attachment(content="%%%"), "attachments[1].content", "must be bytes, or their base64 as text"),
        (attachment(content="чек"), "attachments[1].content", "must be bytes, or their base64 as text"),
        (attachment(content=7), "attachments[1].content", "valid bytes"),
        (attachment(content_type="pdf"), "attachments[1].content_type", "media type"),
        (attachment(content_type="a/b; c"), "attachments[1].content_type", "media type"),
        (attachment(filename=" \t\u2003"), "attachments[1].filename", "more than spaces"),
        (attachment(content_type="a/" + "b" * 500), "attachments[1].content_type", "at most 500"),
        (attachment(content_type="a/b;\r\n c=d"), "attachments[1].content_type", "media type"),
        (attachment(content_type="a/b;\u2028c=d"), "attachments[1].content_type", "media type"),
        (attachment(inline_id="=?utf-8?q?x?="), "attachments[1].inline_id", "=?"),
        (attachment(inline_id=""), "attachments[1].inline_id", "1 to 200 characters"),
        (attachment(inline_id="<a@b>"), "attachments[1].inline_id", "angle brackets"),
        (attachment(inline_id="логотип"), "attachments[1].inline_id", "ASCII"),
        (attachment(colour="red"), "attachments[1].colour", "not permitted"),
        ({"attachments": [b"bytes"]}, "attachments[0]", "valid dictionary"),
        ({"template": "order"}, "template", "valid dictionary"),
        ({"template": {}}, "template.name", "required"),
        ({"template": {"name": ""}}, "template.name", "must not be empty"),
        ({"template": {"name": "x" * 101}}, "template.name", "at most 100"),
        ({"template": {"name": "a", "locale": "x" * 36}}, "template.locale", "at most 35"),
        ({"template": {"name": "a", "version": "x" * 65}}, "template.version", "at most 64"),
        ({"template": {"name": "a", "version": 3}}, "template.version", "valid string"),
        ({"template": {"name": "a", "meta": {"x": [1]}}}, "template.meta.x", "must be text, a number"),
        ({"template": {"name": "a", "meta": {"ok": 1, "x": NOON}}}, "template.meta.x", "must be text, a number"),
        ({"template": {"name": "a", "meta": {"x": "y" * 201}}}, "template.meta.x", "at most 200"),
        ({"template": {"name": "a", "meta": {"x" * 201: "y"}}}, f"template.meta.{'x' * 40}", "at most 200"),
        ({"template": {"name": "a", "meta": {"x": float("nan")}}}, "template.meta.x", "number"),
        ({"template": {"name": "a", "meta": {"x": float("-inf")}}}, "template.meta.x", "number"),
        ({"template": {"name": "a", "meta": {"x": 10**5000}}}, "template.meta.x", "number"),
        ({"template": {"name": "a", "meta": {str(n): n for n in range(33)}}}, "template.meta", "at most 32"),
        ({**RENDERED_HERE, "context": {"a": object()}}, "context", "JSON"),
        ({**RENDERED_HERE, "context": {"a": NOON}}, "context", "JSON"),
        ({**RENDERED_HERE, "context": {"a": [float("inf")]}}, "context", "JSON"),
        ({**RENDERED_HERE, "context": {"a": {"b": "\ud800"}}}, "context", "half a character"),
        ({**RENDERED_HERE, "context": CIRCLE}, "context", "JSON"),
        ({**RENDERED_HERE, "context": [1]}, "context", "valid dictionary"),
        ({"send_at": "2026-11-24T12:00:00"}, "send_at", "timezone"),
        ({"send_at": datetime(2026, 11, 24, 12)}, "send_at", "timezone"),  # noqa: DTZ001 - what is refused
        ({"send_at": 1_800_000_000}, "send_at", "a time with its offset"),
        ({"send_at": "1800000000"}, "send_at", "a time with its offset"),
        ({"send_at": "2026-11-24"}, "send_at", "a time with its offset"),
        ({"send_at": "24:11:2026"}, "send_at", "invalid character in year"),
        ({"send_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))}, "send_at", "too far away"),
        ({"send_at": NOON, "expires_at": NOON}, "expires_at", "after send_at"),
        ({"send_at": NOON, "expires_at": "2026-11-24T14:00:00+03:00"}, "expires_at", "after send_at"),
    ],
)
def test_bad_input_is_refused_with_its_field(make: Make, changes: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        make(**changes)
    assert refused.value.field == field
    assert why in refused.value.why
    assert str(refused.value).startswith(f"{field}: {refused.value.why}")


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    [
        ({"from_": ...}, "from", "is missing"),
        ({"to": ...}, "to", "no recipient"),
        ({"subject": ...}, "subject", "is missing"),
        ({"text": ...}, "text", "give text, html or both"),
        ({"subject": ..., "text": ...}, "subject", "give a subject with text or html, a template to render, or raw"),
        ({"subject": ..., "template": {"name": "order"}}, "subject", "is missing"),
        ({"context": {"a": 1}}, "context", "this mail has a subject"),
        ({"template": {"name": "order"}, "context": {}}, "context", "this mail has a subject"),
        ({**RAW, "from_": ...}, "from", "is missing"),
        ({**RAW, "raw": b""}, "raw", "is empty"),
        ({**RAW, "raw": b" \r\n"}, "raw", "is empty"),
        ({**RAW, "raw": b"Subject: a\0b\r\n\r\n"}, "raw", "NUL"),
        (
            {"attachments": [{"filename": name, "content": b"", "inline_id": "logo"} for name in "abc"]},
            "attachments[1].inline_id",
            "another attachment's too",
        ),
        ({**RAW, "subject": "x"}, "subject", "cannot be given with raw"),
        ({**RAW, "text": "x"}, "text", "cannot be given with raw"),
        ({**RAW, "html": "x"}, "html", "cannot be given with raw"),
        ({**RAW, "context": {"a": 1}}, "context", "cannot be given with raw"),
        ({**RAW, "headers": {"X-A": "b"}}, "headers", "cannot be given with raw"),
        ({**RAW, "reply_to": "a@b.example"}, "reply_to", "cannot be given with raw"),
        ({**RAW, **attachment()}, "attachments", "cannot be given with raw"),
    ],
)
def test_contradictions_are_refused(make: Make, changes: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        make(**changes)
    assert refused.value.field == field
    assert why in refused.value.why


@pytest.mark.parametrize(
    ("changes", "renders"),
    [
        ({}, False),
        ({"subject": "", "text": ""}, False),
        ({"text": ..., "html": "<p>x"}, False),
        ({"template": {"name": "order"}}, False),
        (RENDERED_HERE, True),
        ({**RENDERED_HERE, "context": {"number": 7, "lines": [{"a": None}, 1.5, True]}}, True),
        ({**RENDERED_HERE, "from_": "shop@shop.example", "headers": {"X-A": "b"}, **attachment()}, True),
        (RAW, False),
        ({**RAW, "template": {"name": "order"}, "tags": ["a"]}, False),
    ],
)
def test_the_three_kinds(make: Make, changes: dict[str, Any], renders: bool) -> None:
    assert make(**changes).renders_template is renders


def test_all_that_is_wrong_is_told_at_once(make: Make) -> None:
    with pytest.raises(InvalidMail) as refused:
        make(to=["a@b.example", "nobody"], subject="a\nb", priority="urgent")
    assert [field for field, _ in refused.value.problems] == ["to[1]", "subject", "priority"]
    assert all(f"{field}: {why}" in str(refused.value) for field, why in refused.value.problems)


def test_the_error_is_a_value_error_of_postrooms_own() -> None:
    with pytest.raises(ValueError, match="to: no recipient") as refused:
        Mail()
    assert isinstance(refused.value, PostroomError)
    assert not isinstance(refused.value, ValidationError)


@pytest.mark.parametrize(
    "noon",
    [
        "2026-11-24T12:00:00Z",
        "2026-11-24 15:00:00+03:00",
        NOON.astimezone(timezone(timedelta(hours=-9, minutes=-30))),
        NOON.astimezone(timezone(timedelta(hours=2, minutes=30, seconds=17))),
        NOON.astimezone(ZoneInfo("Europe/Moscow")),
    ],
    ids=str,
)
def test_a_time_of_any_zone_is_the_same_time(make: Make, noon: datetime | str) -> None:
    mail = make(send_at=noon, expires_at=NOON + timedelta(hours=1))
    assert mail.send_at == NOON
    assert mail.send_at is not None
    assert mail.send_at.utcoffset() == timedelta(0)
    assert mail.body() == make(send_at=NOON, expires_at=NOON + timedelta(hours=1)).body()


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [
        ("a.pdf", "application/pdf"),
        ("чек.PNG", "image/png"),
        ("a.tar.gz", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_an_attachments_type_is_guessed_from_its_name(tmp_path: Path, filename: str, content_type: str) -> None:
    path = tmp_path / filename
    path.write_bytes(b"\0\xff")
    for read in (Attachment.from_path(path), Attachment.from_path(str(path), content_type="")):
        assert (read.filename, read.content_type, read.content) == (filename, content_type, b"\0\xff")
    given = Attachment.from_path(path, content_type='text/calendar; method=REQUEST; name="a b"', inline_id="a@b")
    assert (given.content_type, given.inline_id) == ('text/calendar; method=REQUEST; name="a b"', "a@b")
    with pytest.raises(FileNotFoundError):
        Attachment.from_path(tmp_path / "none")


def test_a_mail_has_an_id_of_its_own_and_with_a_key_the_keys(make: Make) -> None:
    first, second = make(), make()
    assert first.id != second.id
    assert first.identified("crm").id == first.id
    keyed = make(key="order-7")
    assert keyed.identified("crm").id == keyed_id("crm", "order-7") != keyed.identified("site").id
    assert keyed.identified("crm").producer == "crm"


@pytest.mark.parametrize("producer", ["", "a b", "site\n", "x" * 65, "сайт"])
def test_a_producer_that_cannot_be_one_is_refused(make: Make, producer: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        make().identified(producer)
    assert refused.value.field == "producer"


def test_a_mail_in_hand_does_not_change(make: Make) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make().subject = "other"  # type: ignore[misc]


def test_what_a_log_line_shows_of_a_mail_is_its_id(make: Make) -> None:
    mail = make(attachments=[{"filename": "a", "content": b"content-needle"}])
    shown = f"{mail!r} {mail}"
    assert str(mail.id) in shown
    assert "needle" not in shown
    assert "example" not in shown
    assert "content-needle" not in repr(mail.attachments)
