"""Nothing that a mail says can begin a header of its own (design §9), wherever it is said."""

from collections.abc import Callable
from typing import Any

import pytest

from postroom.producer import Address, Attachment, InvalidMail, Mail, Template

Make = Callable[..., Mail]


def attachment(**changes: Any) -> dict[str, Any]:
    return {"attachments": [{"filename": "a.png", "content": b"", **changes}]}


def template(**changes: Any) -> dict[str, Any]:
    return {"template": {"name": "order", **changes}}


PLACES: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    "subject": (lambda bad: {"subject": bad}, "subject"),
    "name of From": (lambda bad: {"from_": {"address": "a@b.example", "name": bad}}, "from_.name"),
    "name of From as text": (lambda bad: {"from_": f"x{bad}x <a@b.example>"}, "from_.name"),
    "name of to": (lambda bad: {"to": ["a@b.example", {"address": "a@b.example", "name": bad}]}, "to[1].name"),
    "name of cc": (lambda bad: {"cc": f"x{bad}x <a@b.example>"}, "cc[0].name"),
    "name of bcc": (lambda bad: {"bcc": [f'"{bad}" <a@b.example>']}, "bcc[0].name"),
    "name of reply_to": (lambda bad: {"reply_to": {"address": "a@b.example", "name": bad}}, "reply_to[0].name"),
    "value of a header": (lambda bad: {"headers": {"X-Shop": bad}}, "headers.X-Shop"),
    "name of a header": (lambda bad: {"headers": {bad: "x"}}, "headers"),
    "filename": (lambda bad: attachment(filename=bad), "attachments[0].filename"),
    "inline_id": (lambda bad: attachment(inline_id=bad), "attachments[0].inline_id"),
    "content_type": (lambda bad: attachment(content_type=f"image/{bad}"), "attachments[0].content_type"),
    "parameter of content_type": (
        lambda bad: attachment(content_type=f'text/plain; name="{bad}"'),
        "attachments[0].content_type",
    ),
    "tag": (lambda bad: {"tags": ["ok", bad]}, "tags[1]"),
    "name of the template": (lambda bad: template(name=bad), "template.name"),
    "locale": (lambda bad: template(locale=bad), "template.locale"),
    "version": (lambda bad: template(version=bad), "template.version"),
    "value in meta": (lambda bad: template(meta={"event": bad}), "template.meta.event"),
    "name in meta": (lambda bad: template(meta={bad: "x"}), "template.meta"),
    "key": (lambda bad: {"key": bad}, "key"),
    "owner": (lambda bad: {"owner": bad}, "owner"),
    "producer": (lambda bad: {"producer": bad}, "producer"),
}

BREAKS = ["a\rb", "a\nb", "a\r\nBcc: eve@evil.example", "a\r\n\r\nbody", "a\0b", "a\n", "\na", "a\ud800"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", BREAKS, ids=repr)
def test_a_line_break_is_refused_in_every_place(make: Make, place: str, bad: str) -> None:
    fields, field = PLACES[place]
    with pytest.raises(InvalidMail) as refused:
        make(**fields(bad))
    assert refused.value.field == field or place == "name in meta"
    assert refused.value.field.startswith(field)


@pytest.mark.parametrize("place", PLACES)
def test_the_same_place_takes_what_is_harmless(make: Make, place: str) -> None:
    fields, _ = PLACES[place]
    assert make(**fields("harmless"))


@pytest.mark.parametrize(
    "name",
    [
        *("From", "from", "FROM", "Sender", "To", "Cc", "Bcc", "Subject", "Reply-To", "Return-Path"),
        *("Message-ID", "Date"),
        *("Received", "MIME-Version", "mime-anything", "Content-Type", "content-transfer-encoding", "Content-ID"),
        *("DKIM-Signature", "Resent-To", "Resent-Bcc", "resent-from"),
    ],
)
def test_what_postroom_writes_itself_cannot_be_given(make: Make, name: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        make(headers={"X-Shop": "7", name: "x"})
    assert refused.value.field == f"headers.{name}"
    assert "is written by Postroom" in refused.value.why


@pytest.mark.parametrize("name", ["", " ", "X Shop", "X-Shop:", "X-Shop ", "Ж", "X-\x7f", "X" * 77, "From ", "Bcc:"])
def test_what_is_no_header_name_is_refused(make: Make, name: str) -> None:
    with pytest.raises(InvalidMail, match="is no header name") as refused:
        make(headers={name: "x"})
    assert refused.value.field == "headers"


def test_a_header_stands_once(make: Make) -> None:
    with pytest.raises(InvalidMail, match="stands twice"):
        make(headers={"X-Shop": "7", "x-shop": "8"})


def test_headers_of_the_sites_own_are_taken(make: Make) -> None:
    given = {"X-Shop": "Магазин", "List-Unsubscribe": "<https://shop.example/u>", "References": "<a@b.example>"}
    assert make(headers=given).headers == given


@pytest.mark.parametrize(
    ("part", "fields", "field"),
    [
        (Address, {"address": "a@b.example", "name": "a\nb"}, "name"),
        (Address, {"address": "nobody"}, "address"),
        (Address, {}, "address"),
        (Attachment, {"filename": "a\nb", "content": b""}, "filename"),
        (Attachment, {"filename": "a", "content": "%"}, "content"),
        (Template, {"name": "a\nb"}, "name"),
        (Template, {"name": "a", "meta": {"b": "c\nd"}}, "meta.b"),
        (Template, {"name": "a", "colour": "red"}, "colour"),
    ],
)
def test_a_part_is_checked_when_it_is_made_too(
    part: type[Address | Attachment | Template], fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidMail) as made:
        part(**fields)
    with pytest.raises(InvalidMail) as read:
        part.model_validate(fields)
    assert made.value.field == read.value.field == field
