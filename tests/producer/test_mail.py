"""A mail is checked when it is made, and each error names its field."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.producer import Address, Attachment, InvalidMail, Mail, Template
from postroom.producer.errors import NewerJob
from postroom.producer.identifiers import keyed_id
from postroom.producer.mail import address_key

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def fields(**changes: Any) -> dict[str, Any]:
    given = {"from_": "shop@shop.example", "to": ["anna@client.example"], "subject": "Order", "text": "Thank you"}
    return {name: value for name, value in {**given, **changes}.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    [
        ({"to": ["anna@client.example", "nobody"]}, "to[1]", "is no e-mail address"),
        ({"to": "a@b.example, c@d.example"}, "to[0]", "is no e-mail address"),
        ({"to": []}, "to", "no recipient"),
        ({"to": [7]}, "to[0]", "valid dictionary"),
        ({"cc": {"address": "a@b.example", "name": "x\r\nBcc: y@z.example"}}, "cc[0].name", "line break"),
        ({"bcc": ["a@b.example", "b@"]}, "bcc[1]", "is no e-mail address"),
        ({"to": ["a\n@b.example"]}, "to[0]", "is no e-mail address"),
        ({"from_": "shop"}, "from_", "is no e-mail address"),
        ({"from_": ...}, "from", "is missing"),
        ({"reply_to": ["x"]}, "reply_to[0]", "is no e-mail address"),
        ({"subject": "a\nb"}, "subject", "line break"),
        ({"subject": "a\0b"}, "subject", "NUL"),
        ({"subject": ...}, "subject", "is missing"),
        ({"text": ...}, "text", "give text, html or both"),
        ({"subject": ..., "text": ...}, "subject", "give a subject"),
        ({"context": {"a": 1}}, "context", "this mail has a subject"),
        ({"headers": {"X-Shop": "a\r\nBcc: b@c.example"}}, "headers.X-Shop", "line break"),
        ({"headers": {"X Shop": "a"}}, "headers", "is no header name"),
        ({"headers": {"X-Shop\r\nBcc": "a"}}, "headers", "is no header name"),
        ({"headers": {"X-Shop": "a", "x-shop": "b"}}, "headers", "stands twice"),
        *(
            ({"headers": {name: "x"}}, f"headers.{name}", "is written by Postroom")
            for name in [
                *("From", "sender", "TO", "Cc", "Bcc", "Return-Path", "Message-ID", "Date", "MIME-Version", "Received"),
                *("Content-Type", "content-transfer-encoding", "DKIM-Signature", "Subject", "Reply-To", "Resent-Bcc"),
            ]
        ),
        ({"attachments": [{"filename": "a\nb", "content": b""}]}, "attachments[0].filename", "line break"),
        ({"attachments": [{"filename": "", "content": b""}]}, "attachments[0].filename", "at least 1"),
        ({"attachments": [{"filename": "a", "content": "%%%"}]}, "attachments[0].content", "base64"),
        (
            {"attachments": [{"filename": "a", "content": b"", "content_type": "text/html\r\nX: y"}]},
            "attachments[0].content_type",
            "media type",
        ),
        ({"attachments": [{"filename": "a", "content": b"", "inline_id": "<a>"}]}, "attachments[0].inline_id", "ASCII"),
        ({"owner": "a b"}, "owner", "pattern"),
        ({"owner": "x" * 65}, "owner", "pattern"),
        ({"key": ""}, "key", "at least 1"),
        ({"key": "a\nb"}, "key", "control characters"),
        ({"priority": "urgent"}, "priority", "'high', 'normal' or 'bulk'"),
        ({"on_uncertain": "maybe"}, "on_uncertain", "'resend' or 'hold'"),
        ({"send_at": "2026-11-24T12:00:00"}, "send_at", "timezone"),
        ({"send_at": NOON, "expires_at": NOON}, "expires_at", "after send_at"),
        ({"tags": ["ok", ""]}, "tags[1]", "1"),
        ({"tags": ["x"] * 33}, "tags", "32"),
        ({"template": {"name": ""}}, "template.name", "1"),
        ({"template": {"name": "a", "meta": {"x": [1]}}}, "template.meta.x", "must be"),
        ({"template": {"name": "a", "meta": {"x": "y" * 201}}}, "template.meta.x", "200"),
        ({"raw": b"Subject: x\r\n\r\ny"}, "subject", "cannot be given with raw"),
        ({"subject": ..., "text": ..., "raw": b" "}, "raw", "is empty"),
        ({"colour": "red"}, "colour", "extra inputs are not permitted"),
    ],
)
def test_bad_input_is_refused_with_its_field(changes: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        Mail(**fields(**changes))
    assert refused.value.field == field
    assert why in refused.value.why
    assert field in str(refused.value)


@pytest.mark.parametrize(
    ("given", "address", "name"),
    [
        ("anna@client.example", "anna@client.example", ""),
        (" anna@client.example ", "anna@client.example", ""),
        ("Анна Петрова <anna@client.example>", "anna@client.example", "Анна Петрова"),
        ('"Petrova, \\"Anna\\"" <anna@client.example>', "anna@client.example", 'Petrova, "Anna"'),
        ("Shop & Co., Ltd <anna@client.example>", "anna@client.example", "Shop & Co., Ltd"),
        ("<anna@client.example>", "anna@client.example", ""),
        ({"address": "anna@client.example", "name": "Anna"}, "anna@client.example", "Anna"),
        (Address(address="anna@client.example"), "anna@client.example", ""),
        ("anna@почта.рф", "anna@xn--80a1acny.xn--p1ai", ""),
        ("anna@localhost", "anna@localhost", ""),
        ('"anna maria"@client.example', '"anna maria"@client.example', ""),
        ("o'hara+tag@client.example", "o'hara+tag@client.example", ""),
    ],
)
def test_an_address_may_be_written_in_several_ways(given: Any, address: str, name: str) -> None:
    for to in (given, [given]):
        (read,) = Mail(**fields(to=to)).to
        assert (read.address, read.name) == (address, name)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Anna@Client.Example", "anna@client.example"), ("anna@ПОЧТА.РФ", "anna@xn--80a1acny.xn--p1ai")],
)
def test_addresses_compare_casefolded_with_a_labels(one: str, other: str) -> None:
    assert address_key(one) == address_key(other) == Address(address=one).key


def test_from_is_spelled_from_in_a_dict() -> None:
    assert Mail(**{**fields(from_=...), "from": "a@b.example"}).from_ == Address(address="a@b.example")


def test_the_three_kinds() -> None:
    assert not Mail(**fields(template={"name": "order"})).renders_template
    rendered = fields(from_=..., subject=..., text=..., template={"name": "order"}, context={"number": 7})
    assert Mail(**rendered).renders_template
    assert not Mail(**fields(subject=..., text=..., raw=b"Subject: x\r\n\r\ny")).renders_template


def test_an_attachments_type_is_guessed_from_its_name(tmp_path: Path) -> None:
    path = tmp_path / "чек.pdf"
    path.write_bytes(b"%PDF")
    read = Attachment.from_path(path)
    assert (read.filename, read.content_type, read.content) == ("чек.pdf", "application/pdf", b"%PDF")
    assert Attachment(filename="a.tar.gz", content=b"").content_type == "application/octet-stream"


def test_a_mail_has_an_id_of_its_own_and_with_a_key_the_keys() -> None:
    first, second = Mail(**fields()), Mail(**fields())
    assert first.id != second.id
    assert first.identified("crm").id == first.id
    keyed = Mail(**fields(key="order-7"))
    assert keyed.identified("crm").id == keyed_id("crm", "order-7")
    with pytest.raises(InvalidMail, match="producer"):
        keyed.identified("a b")


line = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=40)
text = st.text(st.characters(codec="utf-8"), max_size=80)


@given(
    subject=line,
    name=line,
    text=text,
    html=st.none() | text,
    content=st.binary(max_size=50),
    priority=st.sampled_from(["high", "normal", "bulk"]),
    wait=st.none() | st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=30)),
    tags=st.lists(st.text("abc", min_size=1, max_size=5), max_size=3),
)
def test_a_job_reads_back_as_the_same_mail(  # noqa: PLR0917
    subject: str,
    name: str,
    text: str,
    html: str | None,
    content: bytes,
    priority: str,
    wait: timedelta | None,
    tags: list[str],
) -> None:
    mail = Mail(
        **fields(
            from_={"address": "a@b.example", "name": name},
            subject=subject,
            text=text,
            html=html,
            attachments=[{"filename": "x", "content": content}],
            priority=priority,
            send_at=None if wait is None else NOON + wait,
            tags=tags,
        )
    )
    again = Mail.from_job(mail.to_job())
    assert again == mail
    assert again.body() == mail.body()


def test_raw_and_attachments_are_base64_in_the_job() -> None:
    mail = Mail(**fields(subject=..., text=..., raw=b"Subject: \xff\r\n\r\n"))
    job = json.loads(mail.to_job())
    assert base64.b64decode(job["raw"]) == b"Subject: \xff\r\n\r\n"
    assert Mail.from_job(mail.to_job()) == mail


def test_the_body_is_what_was_asked_for_and_not_who_asked() -> None:
    asked = Mail(**fields(key="1", template=Template(name="a", meta={"b": 1, "a": 2})))
    same = Mail(**fields(key="2", template=Template(name="a", meta={"a": 2, "b": 1}))).identified("crm")
    assert asked.body() == same.body()
    for changes in ({"subject": "Other"}, {"to": "b@client.example"}, {"priority": "high"}, {"owner": "u7"}):
        assert Mail(**fields(**changes)).body() != Mail(**fields()).body()


@pytest.mark.parametrize(
    ("job", "field"),
    [(b"", "job"), (b"\xff", "job"), (b"[]", "job"), (b"{}", "v"), (b'{"v": "1"}', "v"), (b'{"v": 0}', "v")],
)
def test_a_broken_job_is_refused(job: bytes, field: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        Mail.from_job(job)
    assert refused.value.field == field


def test_a_newer_job_is_told_from_a_broken_one() -> None:
    with pytest.raises(NewerJob):
        Mail.from_job(b'{"v": 2, "hologram": true}')
