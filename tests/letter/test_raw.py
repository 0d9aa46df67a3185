import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postroom.worker.letter.compose import compose, needs_smtputf8
from postroom.worker.letter.content import Letter
from postroom.worker.letter.raw import values

Make = Callable[..., Letter]

# Time is no verdict on a busy machine.
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ADDED = b"Message-ID: <0193e1c2@shop.example>\r\nDate: Tue, 24 Nov 2026 09:30:00 +0000\r\n"
COMPLETE = b"From: a@b.example\r\nMessage-ID: <own@b.example>\r\nDate: Mon, 23 Nov 2026 01:02:03 +0300\r\n"


@pytest.fixture(scope="session")
def sent(letter: Make) -> Callable[[bytes], bytes]:
    return lambda raw: compose(letter(raw=raw), eight_bit=True)


Sent = Callable[[bytes], bytes]


def test_complete_letter_is_kept_byte_for_byte(sent: Sent) -> None:
    raw = (
        COMPLETE + b"X-Odd:no space \r\nSubject: =?koi8-r?b?0NLJ18XU?=\r\n\t folded\r\n\r\n"
        b"Bcc: not a header\r\n.\r\nFrom x\r\n\xcf\xf0\xe8 " + b"y" * 2000 + b"\r\n\r\n"
    )
    assert sent(raw) == raw


def test_what_is_missing_is_added_at_the_end_of_the_headers(sent: Sent) -> None:
    assert sent(b"Subject: x\r\n\r\nbody\r\n") == b"Subject: x\r\n" + ADDED + b"\r\nbody\r\n"


def test_only_what_is_missing_is_added(sent: Sent) -> None:
    assert sent(b"date: today\r\n\r\n") == b"date: today\r\n" + ADDED.partition(b"\r\n")[0] + b"\r\n\r\n"


def test_fields_in_the_body_do_not_count(sent: Sent) -> None:
    raw = b"Subject: x\r\n\r\nMessage-ID: <quoted@b.example>\r\nDate: never\r\n"
    assert ADDED in sent(raw)


@pytest.mark.parametrize(
    "blind",
    [
        b"Bcc: secret@b.example\r\n",
        b"BCC:secret@b.example\r\n",
        b"bcc : secret@b.example\r\n",
        b"Resent-Bcc: secret@b.example\r\n",
        b"Bcc: one@b.example,\r\n secret@b.example,\r\n\tsecret@c.example\r\n",
        b"Bcc:\r\n \r\n secret@b.example\r\n",
        b"Bcc: secret@b.example\r\nBcc: secret@c.example\r\n",
        b"Bcc: secret@b.example\n",
        b"X: y\rBcc: secret@b.example\r",
    ],
)
@pytest.mark.parametrize("order", ["first", "last"])
def test_blind_copies_are_removed_with_their_folded_lines(sent: Sent, blind: bytes, order: str) -> None:
    head = blind + COMPLETE if order == "first" else COMPLETE + blind
    octets = sent(head + b"\r\nbody\r\n")
    assert b"secret" not in octets
    assert b"bcc" not in octets.lower()
    assert octets.replace(b"X: y\r\n", b"") == COMPLETE + b"\r\nbody\r\n"


def test_blind_copy_as_the_last_header_of_a_letter_without_body(sent: Sent) -> None:
    assert sent(COMPLETE + b"Bcc: secret@b.example") == COMPLETE + b"\r\n"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_line_ends_become_crlf(sent: Sent, end: bytes) -> None:
    raw = COMPLETE + b"\r\none\r\n\r\ntwo"
    assert sent(raw.replace(b"\r\n", end)) == raw + b"\r\n"


def test_first_line_that_is_no_field_begins_the_body(sent: Sent) -> None:
    assert sent(b"Subject: x\r\nHello there\r\nBcc: in the body\r\n") == (
        b"Subject: x\r\n" + ADDED + b"\r\nHello there\r\nBcc: in the body\r\n"
    )


@pytest.mark.parametrize("mark", [b"From a@b.example Tue Nov 24 09:30:00 2026\n", b">From x\r\n"])
def test_mailbox_mark_before_the_headers_is_no_part_of_the_letter(sent: Sent, mark: bytes) -> None:
    assert sent(mark + b"Bcc: secret@b.example\r\n" + COMPLETE + b"\r\nFrom x\r\n") == COMPLETE + b"\r\nFrom x\r\n"


def test_letter_without_headers(sent: Sent) -> None:
    assert sent(b"Hello\n\nthere\n") == ADDED + b"\r\nHello\r\n\r\nthere\r\n"
    assert sent(b"\nHello") == ADDED + b"\r\nHello\r\n"
    assert sent(b"  Hello: x\r\n") == ADDED + b"\r\n  Hello: x\r\n"
    assert sent(b"") == ADDED + b"\r\n"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"From: a@b.example\r\n\r\nFrom: c@d.example\r\n", ["a@b.example"]),
        (b"from : Anna\n <a@b.example>\nFROM:c@d.example\n", ["Anna <a@b.example>", "c@d.example"]),
        (b">From x\nFrom: a@b.example", ["a@b.example"]),
        (b"Subject: x\r\nno field\r\nFrom: a@b.example\r\n", []),
        (b"From: \xcf <a@b.example>\r\n", ["\ufffd <a@b.example>"]),
        (b"", []),
    ],
)
def test_what_a_field_says_is_read_where_the_field_is_written(raw: bytes, found: list[str]) -> None:
    assert values(raw, "From") == found


def test_smtputf8_is_left_to_the_envelope(letter: Make) -> None:
    assert not needs_smtputf8(letter(raw="To: иван@b.example\r\n\r\n".encode()))


pieces = st.lists(
    st.sampled_from(
        [b"Bcc", b"Date", b"To", b": a@b.example", b":", b" ", b"\t", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"x"]
    ),
    max_size=30,
).map(b"".join)


@drawn
@given(raw=pieces)
def test_whatever_comes_in_leaves_as_a_letter_without_blind_copies(sent: Sent, raw: bytes) -> None:
    octets = sent(raw)
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    head, _, _ = octets.partition(b"\r\n\r\n")
    assert not re.search(rb"(?im)^bcc[ \t]*:", head)
    assert len(re.findall(rb"(?im)^message-id[ \t]*:", head)) == 1
    assert re.search(rb"(?im)^date[ \t]*:", head)
    assert sent(octets) == octets
