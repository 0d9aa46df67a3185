import re
from collections.abc import Callable
from email.header import decode_header
from email.message import EmailMessage, MIMEPart

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from letter.reading import lf, payload, shape
from postroom.worker.letter.compose import compose
from postroom.worker.letter.content import Attachment, Letter

Make = Callable[..., Letter]
Read = Callable[..., EmailMessage]

# Time is no verdict on a busy machine.
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300) | st.text(
    "ab .=\t\r\nЖ🙂", max_size=300
)
filenames = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=80)
inline_ids = st.from_regex(r"[!-;=?-~]{1,60}", fullmatch=True).filter(lambda text: "=?" not in text)
BOTH = pytest.mark.parametrize("eight_bit", [False, True])

PIXEL = b"\x89PNG\r\n\x1a\n\x00\xff"


def text_of(part: MIMEPart) -> str:
    return lf(payload(part).decode())


@BOTH
@drawn
@given(text=texts)
@example(text="")
@example(text=".\n..\n.dots\n")
@example(text="From here\nFrom there\n")
@example(text="-- \ntrailing \t\n \n")
@example(text="x" * 5000)
@example(text="Ж" * 5000)
@example(text="Жx" * 3000 + "\n=\n")
@example(text="x" * 998 + "\n" + "y" * 998)
@example(text="x" * 999)
@example(text="bare\rcr\nlf\r\ncrlf\n\r")
@example(text="\u2028\x85\x0b\x0c")
def test_text_alone_comes_back(letter: Make, read: Read, text: str, eight_bit: bool) -> None:
    message = read(letter(text=text), eight_bit=eight_bit)
    assert message.get_content_type() == "text/plain"
    found = text_of(message)
    # A letter ends in CRLF: plain text that does not gets one.
    assert found == lf(text) or found == lf(text) + "\n"


@BOTH
@drawn
@given(text=texts, html=texts)
@example(text="", html="")
@example(text="x" * 1500, html="<p>Ж</p>" * 500)
def test_text_and_html_come_back_exactly(letter: Make, read: Read, text: str, html: str, eight_bit: bool) -> None:
    message = read(letter(text=text, html=html), eight_bit=eight_bit)
    assert shape(message) == "alternative(plain, html)"
    assert [text_of(part) for part in message.iter_parts()] == [lf(text), lf(html)]


@pytest.mark.parametrize(
    ("text", "with_8bit", "without"),
    [
        ("plain", "7bit", "7bit"),
        ("x" * 998, "7bit", "7bit"),
        ("x" * 999, "quoted-printable", "quoted-printable"),
        ("Привет", "8bit", "base64"),
        ("caffè latte and a cornetto", "8bit", "quoted-printable"),
        ("Ж" * 499, "8bit", "base64"),
        ("Ж" * 500, "base64", "base64"),
    ],
)
def test_the_narrowest_encoding_is_taken(letter: Make, read: Read, text: str, with_8bit: str, without: str) -> None:
    assert read(letter(text=text), eight_bit=True)["content-transfer-encoding"] == with_8bit
    assert read(letter(text=text), eight_bit=False)["content-transfer-encoding"] == without


def test_quoted_printable_stays_readable(letter: Make) -> None:
    octets = compose(letter(text="caffè and \n.\n" + "cornetti, " * 10 + "\n"), eight_bit=False)
    assert octets.partition(b"\r\n\r\n")[2] == (
        b"caff=C3=A8 and=20\r\n=2E\r\n" + b"cornetti, " * 7 + b"corne=\r\ntti, cornetti, cornetti,=20\r\n"
    )


def test_multipart_is_as_wide_as_its_parts(letter: Make, read: Read) -> None:
    it = letter(text="Привет", html="hi", attachments=(Attachment("a", "a/b", b""),))
    outer = read(it, eight_bit=True)
    (inner, _) = outer.iter_parts()
    assert outer["content-transfer-encoding"] == inner["content-transfer-encoding"] == "8bit"
    assert "content-transfer-encoding" not in read(it, eight_bit=False)


def test_letter_with_nothing_in_it_is_an_empty_text(letter: Make, read: Read) -> None:
    message = read(letter())
    assert message.get_content_type() == "text/plain"
    assert text_of(message) == ""


LOGO = Attachment("logo.png", "image/png", PIXEL, "logo@shop")
BANNER = Attachment("banner.png", "image/png", PIXEL, "banner")
INVOICE = Attachment("Счёт.pdf", "application/pdf", b"%PDF")
SHOWN = '<img src="cid:logo@shop">'


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ({"text": "t"}, "plain"),
        ({"html": "h"}, "html"),
        ({"text": "t", "html": "h"}, "alternative(plain, html)"),
        ({"text": "t", "attachments": (INVOICE,)}, "mixed(plain, pdf)"),
        ({"attachments": (INVOICE,)}, "mixed(plain, pdf)"),
        ({"html": SHOWN, "attachments": (LOGO,)}, "related(html, png)"),
        ({"html": "h", "attachments": (LOGO,)}, "mixed(html, png)"),
        ({"text": SHOWN, "attachments": (LOGO,)}, "mixed(plain, png)"),
        (
            {"text": "t", "html": SHOWN, "attachments": (LOGO, INVOICE, BANNER)},
            "mixed(alternative(plain, related(html, png)), pdf, png)",
        ),
        (
            {"text": "t", "html": SHOWN + '<img src="cid:banner">', "attachments": (LOGO, INVOICE, BANNER)},
            "mixed(alternative(plain, related(html, png, png)), pdf)",
        ),
    ],
)
def test_nesting(letter: Make, read: Read, parts: dict[str, object], wanted: str) -> None:
    assert shape(read(letter(**parts))) == wanted


def test_inline_image_and_attachment_as_a_reader_finds_them(letter: Make, read: Read) -> None:
    message = read(letter(text="t", html=SHOWN, attachments=(LOGO, INVOICE)))
    body = message.get_body(("related",))
    assert body is not None
    assert body.get_param("type") == "text/html"
    (_, image) = body.iter_parts()
    assert image["content-id"] == "<logo@shop>"
    assert image.get_content_disposition() == "inline"
    assert image.get_filename() == "logo.png"
    assert image.get_content() == PIXEL
    (invoice,) = message.iter_attachments()
    assert invoice.get_content_disposition() == "attachment"
    assert invoice.get_filename() == "Счёт.pdf"
    assert invoice.get_content() == b"%PDF"


@pytest.mark.parametrize(
    ("inline_id", "html", "shown"),
    [
        ("a", "<img src=cid:a>", True),
        ("a", "<td background='CID:a'>", True),
        ("a", "<div style=\"background: url('cid:a')\">", True),
        ("a", "<img src='cid:ab'><img src='cid:a@b'><img src='cid:a.b'>", False),
        ("a.b", "<img src='cid:aXb'>", False),
        ("a&b", "<img src='cid:a&amp;b'>", True),
        ("a%b", "<img src='cid:a%25b'>", True),
        ("&%00", "<img src='cid:&amp;%00'>", True),
        ("a(1)", "<img src='cid:a(1)'>", True),
        ("a", "<img src='a'>", False),
        ("a", "", False),
    ],
)
def test_inline_is_what_the_html_shows(letter: Make, read: Read, inline_id: str, html: str, shown: bool) -> None:
    (_, part) = read(letter(html=html, attachments=(Attachment("f", "image/png", PIXEL, inline_id),))).iter_parts()
    assert part.get_content_disposition() == ("inline" if shown else "attachment")
    assert part["content-id"] == f"<{inline_id}>"


@pytest.mark.parametrize(
    ("longer", "written"),
    [("a:", "a:"), ("a&", "a&amp;"), ("a&", "a%26"), ("a%", "a%25"), ("a%", "a%"), ("a.b", "a.b")],
)
def test_of_two_ids_of_which_one_begins_the_other_the_longer_is_meant(
    letter: Make, read: Read, longer: str, written: str
) -> None:
    files = tuple(Attachment("f", "image/png", PIXEL, inline_id) for inline_id in ("a", longer, "b"))
    message = read(letter(html=f"<img src='cid:{written}'>", attachments=files))
    assert shape(message) == "mixed(related(html, png), png, png)"
    (related, *rest) = message.iter_parts()
    (_, shown) = related.iter_parts()
    assert [part["content-id"] for part in (shown, *rest)] == [f"<{longer}>", "<a>", "<b>"]


@drawn
@given(content=st.binary(max_size=400), filename=filenames, inline_id=inline_ids | st.none())
@example(content=b"", filename="a", inline_id=None)
@example(content=bytes(range(256)) * 50, filename="отчёт за год " * 16, inline_id=None)
@example(content=b"x", filename="n" * 300, inline_id=None)
@example(content=b"x", filename='quo"te\\back;semi,comma.txt', inline_id=None)
@example(content=b"x", filename=" ends ", inline_id=None)
@example(content=b"x", filename="50%'s=?utf-8?q?x?=.txt", inline_id="a%25b@c")
def test_files_come_back(letter: Make, read: Read, content: bytes, filename: str, inline_id: str | None) -> None:
    it = letter(html="h", attachments=(Attachment(filename, "application/x-thing", content, inline_id),))
    (_, part) = read(it).iter_parts()
    assert part.get_payload(decode=True) == content
    assert part["content-disposition"].params["filename"] == filename  # get_filename() strips its ends
    assert part["content-id"] == (inline_id and f"<{inline_id}>")
    for line in compose(it, eight_bit=False).decode().split("\r\n"):
        assert len(line) <= 78


def test_cyrillic_file_name_of_200_characters_also_stands_where_outlook_looks(letter: Make, read: Read) -> None:
    filename = "Коммерческое предложение №1 " * 8
    filename = filename[:196] + ".pdf"
    it = letter(attachments=(Attachment(filename, "application/pdf", b"%PDF"),))
    (_, part) = read(it).iter_parts()
    assert part.get_filename() == filename
    assert b"filename*0*=utf-8''" in compose(it, eight_bit=False)
    assert part["content-type"].params["name"] == filename


@pytest.mark.parametrize(
    ("filename", "shortened"),
    [
        ("Ж" * 300 + ".pdf", ".pdf"),
        ("🙂" * 1000, ""),
        ("п?" * 100 + ". долгий хвост без точки", ""),
        ("n" * 996 + ".txt", ".txt"),
    ],
)
def test_very_long_file_name_stands_once_more_shortened_for_tools_that_decode_nothing(
    letter: Make, read: Read, filename: str, shortened: str
) -> None:
    it = letter(attachments=(Attachment(filename, "a/b", b""),))
    (_, part) = read(it).iter_parts()
    assert part.get_filename() == part["content-type"].params["name"] == filename
    (as_it_stands,) = re.findall(r' filename="([^"]*)"', compose(it, eight_bit=False).decode())
    assert len(as_it_stands) <= 255
    assert "/" not in as_it_stands
    name = "".join(
        chunk if isinstance(chunk, str) else chunk.decode(charset or "ascii")
        for chunk, charset in decode_header("".join(as_it_stands.splitlines()))
    )
    stem = name.removesuffix(shortened).removesuffix("…")
    assert len(stem) > 20
    assert filename.startswith(stem)
    assert name == f"{stem}…{shortened}"


def test_file_name_of_usual_length_stands_once_in_each_field(letter: Make) -> None:
    octets = compose(letter(attachments=(Attachment("Счёт № 4711.pdf", "application/pdf", b""),)), eight_bit=False)
    assert octets.count(b"filename") == 1
    assert octets.count(b' name="=?utf-8?b?') == 1


def test_simple_file_name_is_written_simply(letter: Make) -> None:
    octets = compose(letter(attachments=(Attachment("price list.csv", "text/csv", b"1;2"),)), eight_bit=False)
    assert b'Content-Type: text/csv; name="price list.csv"\r\n' in octets
    assert b'Content-Disposition: attachment; filename="price list.csv"\r\n' in octets


def test_parameters_of_the_content_type_are_kept_but_name(letter: Make, read: Read) -> None:
    invite = Attachment(
        "i.ics", 'text/calendar; method=REQUEST; name="x"; name*=utf-8\'\'y; charset="utf-8"', b"BEGIN:VCALENDAR"
    )
    (_, part) = read(letter(attachments=(invite,))).iter_parts()
    assert dict(part["content-type"].params) == {"method": "REQUEST", "charset": "utf-8", "name": "i.ics"}


def test_file_without_a_name_has_no_name(letter: Make, read: Read) -> None:
    (_, part) = read(letter(attachments=(Attachment("", "application/pdf", b"%PDF"),))).iter_parts()
    assert part.get_filename() is None


FORWARDED = b"From: a@b.example\nSubject: inner\n\nfirst line\r\nsecond\n"


def test_attached_letter_is_not_base64(letter: Make, read: Read) -> None:
    (_, part) = read(letter(attachments=(Attachment("fwd.eml", "message/rfc822", FORWARDED),))).iter_parts()
    assert part["content-transfer-encoding"] == "7bit"
    inner = part.get_content()
    assert inner["subject"] == "inner"
    assert inner.get_content().splitlines() == ["first line", "second"]


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("message/rfc822", FORWARDED + b"x" * 999),
        ("message/rfc822", FORWARDED + b"\0"),
        ("message/rfc822", b""),
        ("message/delivery-status", "Reporting-MTA: dns; ж\n".encode()),
        ("multipart/mixed; boundary=x", b"--x--"),
    ],
)
def test_what_may_not_be_base64_and_cannot_stand_as_it_is_becomes_a_plain_file(
    letter: Make, read: Read, content_type: str, content: bytes
) -> None:
    it = letter(attachments=(Attachment("fwd.eml", content_type, content),))
    (_, part) = read(it, eight_bit=True).iter_parts()
    assert part.get_content_type() == "application/octet-stream"
    assert part["content-transfer-encoding"] == "base64"
    assert part.get_content() == content
    assert part.get_filename() == "fwd.eml"


def test_attached_letter_with_8bit_in_it_stands_as_it_is_where_the_server_takes_it(letter: Make, read: Read) -> None:
    content = FORWARDED + "Привет\n".encode()
    it = letter(attachments=(Attachment("fwd.eml", "message/rfc822", content),))
    assert "Привет\r\n".encode() in compose(it, eight_bit=True)
    (_, part) = read(it, eight_bit=False).iter_parts()
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_content() == content


def test_international_letter_may_be_base64(letter: Make) -> None:
    it = letter(attachments=(Attachment("fwd.eml", "message/global", "Привет".encode()),))
    octets = compose(it, eight_bit=False)
    assert b'Content-Type: message/global; name="fwd.eml"\r\nContent-Transfer-Encoding: base64\r\n' in octets


def test_boundary_is_in_no_part_even_when_the_letter_quotes_itself(letter: Make, read: Read) -> None:
    once = compose(letter(text="one", html="two"), eight_bit=False).decode()
    again = letter(text=once, html=once, attachments=(Attachment("f.eml", "message/rfc822", once.encode()),))
    (alternative, attached) = read(again).iter_parts()
    assert [text_of(part) for part in alternative.iter_parts()] == [lf(once), lf(once)]
    assert shape(attached.get_content()) == "alternative(plain, html)"


def test_boundaries_differ_between_letters(letter: Make, read: Read) -> None:
    first = read(letter(text="a", html="b")).get_boundary()
    assert first != read(letter(text="a", html="b", message_id="<other@shop.example>")).get_boundary()
