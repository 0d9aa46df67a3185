import base64
import quopri
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email.message import EmailMessage

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from letter.reading import people_in
from postroom.worker.letter.compose import compose, needs_smtputf8
from postroom.worker.letter.content import Letter, Mailbox

Make = Callable[..., Letter]
Read = Callable[..., EmailMessage]

# Time is no verdict on a busy machine.
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

any_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=120)
awkward_line = st.text("абв Ж,;:<>@\"\\()[].'=?_ \tq🙂é", max_size=200)
ascii_line = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
lines = any_line | awkward_line | ascii_line
local_parts = st.from_regex(r"[a-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[a-z0-9]{1,20}){0,2}", fullmatch=True)
addresses = st.builds(
    "{}@{}".format, local_parts, st.sampled_from(["a.example", "mail.example", "xn--e1afmkfd.xn--p1ai"])
)


@drawn
@given(subject=lines)
@example(subject="")
@example(subject="   ")
@example(subject="Ваш заказ № 4711 собран и ждёт вас по адресу: Москва, ул. Тверская, д. 1 " * 4)
@example(subject="a=?utf-8?q?b?=")
@example(subject="trailing ")
@example(subject="two  spaces   kept, over a fold " + "  x" * 60)
@example(subject="w" * 3000)
@example(subject="👩‍👩‍👧‍👦" * 60)
def test_subject_comes_back(letter: Make, read: Read, subject: str) -> None:
    assert read(letter(subject=subject, text=""))["subject"] == subject


@drawn
@given(subject=lines, name=lines)
@example(subject="é" + "x" * 100, name="Иван Петров " * 30)
def test_every_encoded_word_stands_alone(letter: Make, subject: str, name: str) -> None:
    octets = compose(letter(subject=subject, from_=Mailbox("a@b.example", name), text=""), eight_bit=False)
    head = octets[: octets.index(b"\r\n\r\n")].decode()
    for word in re.findall(r"(?<![^ \r\n])=\?[^ \r\n]*\?=(?![^ \r\n])", head):
        assert len(word) <= 75
        _, charset, how, body, _ = word.split("?")
        assert charset == "utf-8"
        (base64.b64decode(body, validate=True) if how == "b" else quopri.decodestring(body, header=True)).decode()


def test_the_shorter_of_b_and_q_is_taken(letter: Make) -> None:
    assert b"Subject: =?utf-8?q?Caf=C3=A9_is_open?=\r\n" in compose(letter(subject="Café is open"), eight_bit=False)
    assert b"Subject: =?utf-8?b?0JfQsNC60LDQtw==?=\r\n" in compose(letter(subject="Заказ"), eight_bit=False)


def test_plain_ascii_is_left_alone(letter: Make) -> None:
    octets = compose(letter(subject="Order 4711 (ready)", from_=Mailbox("a@b.example", "Rosie Hall")), eight_bit=False)
    assert b"\r\nSubject: Order 4711 (ready)\r\n" in octets
    assert b"\r\nFrom: Rosie Hall <a@b.example>\r\n" in octets
    assert b"\r\nTo: ivan@mail.example\r\n" in octets


@drawn
@given(name=lines, address=addresses)
@example(name="Иван Петров", address="ivan@mail.example")
@example(name="Hall, Rosie", address="rosie@mail.example")
@example(name='Rosie "the boss" Hall', address="rosie@mail.example")
@example(name="back\\slash", address="rosie@mail.example")
@example(name="John Q. Public", address="john@mail.example")
@example(name="a@b.example", address="c@mail.example")
@example(name=" spaces  kept ", address="c@mail.example")
@example(name="=?utf-8?q?not_me?=", address="c@mail.example")
@example(name="Имя " * 75, address="c@mail.example")
@example(name="n" * 300, address="c@mail.example")
@example(name="nn " * 100 + "n", address="c@mail.example")
@example(name='", <' * 75, address="c@mail.example")
@example(name="🙂" * 75, address="c@mail.example")
def test_display_name_comes_back(letter: Make, read: Read, name: str, address: str) -> None:
    message = read(letter(from_=Mailbox(address, name), text=""))
    assert people_in(message, "from") == [(name, address)]


@drawn
@given(people=st.lists(st.tuples(addresses, lines), min_size=1, max_size=8))
def test_lists_come_back_in_order(letter: Make, read: Read, people: list[tuple[str, str]]) -> None:
    mailboxes = tuple(Mailbox(*person) for person in people)
    message = read(letter(to=mailboxes, cc=mailboxes[::-1], reply_to=mailboxes[:2], text=""))
    for field, wanted in (("to", people), ("cc", people[::-1]), ("reply-to", people[:2])):
        assert people_in(message, field) == [(name, address) for address, name in wanted]
        assert [mailbox.addr_spec for mailbox in message[field].addresses] == [address for address, _ in wanted]


def test_fifty_recipients_fold_between_addresses(letter: Make, read: Read) -> None:
    people = tuple(Mailbox(f"person.number.{number}@mail.example") for number in range(50))
    assert [found.addr_spec for found in read(letter(to=people))["to"].addresses] == [one.address for one in people]


def test_letter_to_blind_recipients_alone_names_nobody(letter: Make, read: Read) -> None:
    message = read(letter(to=()))
    assert message["to"] == "undisclosed-recipients:;"
    assert not message["to"].addresses
    assert "to" not in read(letter(to=(), cc=(Mailbox("a@b.example"),)))


def test_domain_becomes_a_labels(letter: Make, read: Read) -> None:
    it = letter(from_=Mailbox("shop@Пример.РФ", "Магазин"))
    assert read(it)["from"].addresses[0].addr_spec == "shop@xn--e1afmkfd.xn--p1ai"
    assert not needs_smtputf8(it)


@pytest.mark.parametrize("field", ["from_", "to", "cc", "reply_to"])
def test_local_part_that_is_not_ascii_stays_and_asks_for_smtputf8(letter: Make, field: str) -> None:
    mailbox = Mailbox("иван@пример.рф", "Иван")
    it = letter(**{field: mailbox if field == "from_" else (mailbox,)})
    assert needs_smtputf8(it)
    assert "<иван@xn--e1afmkfd.xn--p1ai>".encode() in compose(it, eight_bit=True)
    assert not needs_smtputf8(letter())


def test_quoted_local_part_is_kept(letter: Make) -> None:
    octets = compose(letter(from_=Mailbox('"a b"@mail.example')), eight_bit=False)
    assert b'\r\nFrom: "a b"@mail.example\r\n' in octets


@drawn
@given(
    date=st.datetimes(
        min_value=datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis wants bounds without a zone
        max_value=datetime(2100, 1, 1),  # noqa: DTZ001
        timezones=st.integers(-43_200, 50_400).map(lambda seconds: timezone(timedelta(seconds=seconds))),
    ),
)
@example(date=datetime(2026, 11, 24, 12, 0, tzinfo=timezone(timedelta(hours=3))))
def test_date_comes_back(letter: Make, read: Read, date: datetime) -> None:
    assert read(letter(date=date))["date"].datetime == date.replace(microsecond=0)


def test_date_and_message_id_as_they_should_look(letter: Make) -> None:
    octets = compose(letter(date=datetime(2026, 11, 4, 9, 5, 1, tzinfo=UTC)), eight_bit=False)
    assert b"Date: Wed, 04 Nov 2026 09:05:01 +0000\r\n" in octets
    assert b"\r\nMessage-ID: <0193e1c2@shop.example>\r\n" in octets
    assert b"\r\nMIME-Version: 1.0\r\n" in octets


@drawn
@given(value=lines)
def test_free_text_header_comes_back(letter: Make, read: Read, value: str) -> None:
    assert read(letter(headers=(("X-Note", value),)))["x-note"] == value


def test_long_token_in_a_free_header_is_not_encoded_while_a_line_holds_it(letter: Make) -> None:
    token = "t" * 900
    assert f"X-Token: {token}\r\n".encode() in compose(letter(headers=(("X-Token", token),)), eight_bit=False)


def test_unsubscribe_fields_keep_their_urls_whole(letter: Make, read: Read) -> None:
    url = "<https://shop.example/unsubscribe/" + "k" * 150 + "?a=?utf-8?q?>"
    fields = (
        ("List-Unsubscribe", f"<mailto:leave@shop.example?subject=leave>, {url}"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ("Auto-Submitted", "auto-generated"),
    )
    octets = compose(letter(headers=fields), eight_bit=False)
    assert f"\r\n {url}\r\n".encode() in octets
    message = read(letter(headers=fields))
    assert [(name, message[name]) for name, _ in fields] == list(fields)


def test_structured_field_that_is_not_ascii(letter: Make, read: Read) -> None:
    fields = (
        ("List-Unsubscribe", "<https://shop.example/отписка?a=1%20>, <mailto:a@b.example>"),
        ("List-Id", "Новости магазина <news.shop.example>"),
    )
    octets = compose(letter(headers=fields), eight_bit=False)
    assert b"<https://shop.example/%D0%BE%D1%82%D0%BF%D0%B8%D1%81%D0%BA%D0%B0?a=1%20>," in octets
    assert b" <news.shop.example>\r\n" in octets
    assert read(letter(headers=fields))["list-id"] == fields[1][1]


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("  <a@b.example>\t  <c@d.example> ", "<a@b.example> <c@d.example>"),
        ("a" + " " * 2000 + "b", "a b"),
        ("", ""),
    ],
)
def test_white_space_in_a_structured_field_is_one_space(letter: Make, read: Read, written: str, read_as: str) -> None:
    assert read(letter(headers=(("References", written),)))["references"] == read_as


def test_references_fold_between_ids(letter: Make, read: Read) -> None:
    references = " ".join(f"<message.{number}@mail.example>" for number in range(40))
    assert read(letter(headers=(("References", references),)))["references"] == references
