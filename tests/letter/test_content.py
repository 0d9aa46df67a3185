from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.producer.errors import InvalidMail
from postroom.worker.letter.content import Attachment, Letter, Mailbox

Make = Callable[..., Letter]

# Time is no verdict on a busy machine.
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

lines = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=40)
texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=80)
mailboxes = st.builds(Mailbox, st.sampled_from(["a@b.example", "иван@пример.рф", '"a b"@c.example']), lines)
attachments = st.builds(
    Attachment,
    lines,
    st.sampled_from(["image/png", "text/csv; charset=utf-8"]),
    st.binary(max_size=60) | st.just(b"\n\n"),
    st.none() | st.just("logo"),
)
offsets = st.integers(-86_399, 86_399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
dates = st.datetimes(timezones=offsets)
composed = st.builds(
    Letter,
    message_id=st.just("<id@shop.example>"),
    date=dates,
    from_=mailboxes,
    to=st.lists(mailboxes, max_size=3).map(tuple),
    cc=st.lists(mailboxes, max_size=3).map(tuple),
    reply_to=st.lists(mailboxes, max_size=2).map(tuple),
    subject=lines,
    text=texts,
    html=texts,
    headers=st.lists(st.tuples(st.sampled_from(["X-Note", "List-Id"]), lines), max_size=3).map(tuple),
    attachments=st.lists(attachments, max_size=3).map(tuple),
)
raw = st.builds(
    Letter, message_id=st.just("<id@shop.example>"), date=dates, from_=mailboxes, raw=st.binary(max_size=80)
)


@drawn
@given(it=composed | raw)
def test_serial_form_comes_back_exactly(it: Letter) -> None:
    again = Letter.from_content(it.to_content())
    assert again == it
    assert again.date.utcoffset() == it.date.utcoffset()


def test_serial_form_of_another_version_is_refused(letter: Make) -> None:
    with pytest.raises(ValueError, match="version 2"):
        Letter.from_content(letter().to_content().replace(b'{"v":1', b'{"v":2'))


def test_serial_form_cut_short_is_refused(letter: Make) -> None:
    content = letter(attachments=(Attachment("a", "a/b", b"12345"),)).to_content()
    with pytest.raises(ValueError, match="cut short"):
        Letter.from_content(content[:-1])


BREAKS = pytest.mark.parametrize("bad", ["a\r\nBcc: x@y.example", "a\nb", "a\rb", "a\0b", "a\ud800b"])


@BREAKS
@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("subject", lambda bad: {"subject": bad}),
        ("from.name", lambda bad: {"from_": Mailbox("a@b.example", bad)}),
        ("from.address", lambda bad: {"from_": Mailbox(f"{bad}@b.example")}),
        ("to[1].name", lambda bad: {"to": (Mailbox("a@b.example"), Mailbox("a@b.example", bad))}),
        ("to[0].address", lambda bad: {"to": (Mailbox(f"a@b.example{bad}"),)}),
        ("cc[0].name", lambda bad: {"cc": (Mailbox("a@b.example", bad),)}),
        ("reply_to[0].name", lambda bad: {"reply_to": (Mailbox("a@b.example", bad),)}),
        ("headers['X-Note']", lambda bad: {"headers": (("X-Note", bad),)}),
        ("headers['X-Note']", lambda bad: {"headers": (("X-Note", bad * 50),)}),
        ("attachments[0].filename", lambda bad: {"attachments": (Attachment(bad, "a/b", b""),)}),
        ("attachments[0].content_type", lambda bad: {"attachments": (Attachment("a", f"a/{bad}", b""),)}),
        ("attachments[0].content_type", lambda bad: {"attachments": (Attachment("a", f'a/b; c="{bad}"', b""),)}),
        ("attachments[0].inline_id", lambda bad: {"attachments": (Attachment("a", "a/b", b"", bad),)}),
        ("message_id", lambda bad: {"message_id": f"<{bad}@b.example>"}),
    ],
)
def test_line_breaks_are_refused_by_name(
    letter: Make, field: str, place: Callable[[str], dict[str, Any]], bad: str
) -> None:
    with pytest.raises(InvalidMail) as caught:
        letter(**place(bad))
    assert caught.value.field == field


@BREAKS
def test_line_break_in_the_name_of_a_header_is_refused(letter: Make, bad: str) -> None:
    with pytest.raises(InvalidMail, match="is no header name"):
        letter(headers=((bad, "x"),))


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r", "\0"])
@pytest.mark.parametrize(
    "place",
    [
        lambda end: {"message_id": f"<a@b.example>{end}"},
        lambda end: {"from_": Mailbox(f"a@b.example{end}")},
        lambda end: {"headers": ((f"X-Note{end}", "x"),)},
        lambda end: {"attachments": (Attachment("a", f"a/b{end}", b""),)},
        lambda end: {"attachments": (Attachment("a", f"a/b;{end} c=d", b""),)},
        lambda end: {"attachments": (Attachment("a", "a/b", b"", f"logo{end}"),)},
    ],
)
def test_line_break_at_an_end_or_in_white_space_is_refused(
    letter: Make, place: Callable[[str], dict[str, Any]], break_: str
) -> None:
    with pytest.raises(InvalidMail):
        letter(**place(break_))


@pytest.mark.parametrize(
    "name",
    ["From", "sender", "TO", "Cc", "Bcc", "Resent-Bcc", "Reply-To", "Subject", "Return-Path", "Message-ID", "Date",
     "MIME-Version", "Content-Type", "DKIM-Signature", "Received"],
)  # fmt: skip
def test_fields_that_postroom_writes_are_refused(letter: Make, name: str) -> None:
    with pytest.raises(InvalidMail, match=name):
        letter(headers=((name, "x"),))


@pytest.mark.parametrize("name", ["", "X Note", "X-Note:", "X-Имя", "x" * 77])
def test_names_that_are_none_are_refused(letter: Make, name: str) -> None:
    with pytest.raises(InvalidMail, match="is no header name"):
        letter(headers=((name, "x"),))


@pytest.mark.parametrize(
    "address",
    ["", "a", "@b.example", "a@", "a b@c.example", "a@b.example>, <evil@c.example", "a@b.example, c@d.example",
     "a..b@c.example", 'a"b@c.example', "a@b c.example", "a@-\u2028.example", "a\xa0b@c.example", "a@" + "b" * 320,
     "ж" * 170 + "@b.example"],
)  # fmt: skip
def test_addresses_that_would_break_a_header_are_refused(letter: Make, address: str) -> None:
    with pytest.raises(InvalidMail, match=r"cc\[0\]\.address"):
        letter(cc=(Mailbox(address),))


def test_structured_value_that_no_line_holds_is_refused(letter: Make) -> None:
    with pytest.raises(InvalidMail, match="List-Unsubscribe"):
        letter(headers=(("List-Unsubscribe", f"<https://a.example/{'k' * 1000}>"),))


@pytest.mark.parametrize("field", ["text", "html"])
@pytest.mark.parametrize("bad", ["n\0ul", "half \ud83d"])
def test_what_no_text_can_hold_is_refused_by_name(letter: Make, field: str, bad: str) -> None:
    with pytest.raises(InvalidMail) as caught:
        letter(**{field: bad})
    assert caught.value.field == field


def test_date_without_offset_is_refused(letter: Make) -> None:
    with pytest.raises(InvalidMail, match="date"):
        letter(date=datetime(2026, 11, 24, tzinfo=UTC).replace(tzinfo=None))


def test_raw_letter_takes_no_parts(letter: Make) -> None:
    with pytest.raises(InvalidMail, match="raw"):
        letter(raw=b"Subject: x\r\n\r\n", text="more")


def test_all_problems_are_told(letter: Make) -> None:
    with pytest.raises(InvalidMail) as caught:
        letter(subject="a\nb", to=(Mailbox("a@b.example", "c\rd"),))
    assert [field for field, _ in caught.value.problems] == ["to[0].name", "subject"]
