"""Addresses: how they may be written, what is refused, and how they are compared."""

from collections.abc import Callable
from typing import Any

import idna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.producer import Address, InvalidMail, Mail, address
from postroom.producer.mail import address_key

Make = Callable[..., Mail]


@pytest.mark.parametrize(
    ("written", "address", "name"),
    [
        ("anna@client.example", "anna@client.example", ""),
        (" anna@client.example\t", "anna@client.example", ""),
        ("<anna@client.example>", "anna@client.example", ""),
        ("< anna@client.example >", "anna@client.example", ""),
        ("Anna <anna@client.example>", "anna@client.example", "Anna"),
        ("Anna<anna@client.example>", "anna@client.example", "Anna"),
        ("Анна Петрова <anna@client.example>", "anna@client.example", "Анна Петрова"),
        ('"Petrova, \\"Anna\\"" <anna@client.example>', "anna@client.example", 'Petrova, "Anna"'),
        ('"back\\\\slash" <anna@client.example>', "anna@client.example", "back\\slash"),
        ("Shop & Co., Ltd <anna@client.example>", "anna@client.example", "Shop & Co., Ltd"),
        ("Anna <nickname> <anna@client.example>", "anna@client.example", "Anna <nickname>"),
        ({"address": "anna@client.example"}, "anna@client.example", ""),
        ({"address": "anna@client.example", "name": "Anna"}, "anna@client.example", "Anna"),
        (Address(address="anna@client.example", name="Anna"), "anna@client.example", "Anna"),
        ("Anna@Client.Example", "Anna@client.example", ""),
        ("anna@почта.рф", "anna@xn--80a1acny.xn--p1ai", ""),
        ("anna@ПОЧТА.РФ", "anna@xn--80a1acny.xn--p1ai", ""),
        ("anna@xn--80a1acny.xn--p1ai", "anna@xn--80a1acny.xn--p1ai", ""),
        ("anna@bücher.example", "anna@xn--bcher-kva.example", ""),
        ("анна@почта.рф", "анна@xn--80a1acny.xn--p1ai", ""),
        ("anna@localhost", "anna@localhost", ""),
        ("anna@mail.local", "anna@mail.local", ""),
        ('"anna maria"@client.example', '"anna maria"@client.example', ""),
        ("o'hara+tag@client.example", "o'hara+tag@client.example", ""),
    ],
)
def test_an_address_may_be_written_in_several_ways(make: Make, written: Any, address: str, name: str) -> None:
    expected = Address(address=address, name=name)
    mail = make(from_=written, to=written, cc=[written], bcc=(written,), reply_to=iter([written]))
    assert mail.from_ == expected
    assert mail.to == mail.cc == mail.bcc == mail.reply_to == (expected,)
    assert Mail.from_job(mail.to_job()) == mail


def test_from_is_spelled_from_in_a_dict(make: Make) -> None:
    assert make(from_=..., **{"from": "Shop <a@b.example>"}).from_ == Address(address="a@b.example", name="Shop")


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "nobody", "@", "a@", "@b.example", "a@b@c.example", "a b@c.example"),
        *(".a@b.example", "a..b@c.example", "a.@b.example"),
        *("<>", "Anna <>", "Anna <anna>", "anna@client.example>", "<anna@client.example", "Anna anna@client.example"),
        *("a@b.example, c@d.example", "a@b.example;c@d.example", "Group: a@b.example;", "mailto:a@b.example, x"),
        *("a@-b.example", "a@b..example", "a@[127.0.0.1]", "a@b_c.example", "a@b.example.", f"{'a' * 300}@b.example"),
        *("a\r\n@b.example", "a@b.example\r\nBcc: c@d.example", "a\0@b.example", "a@b.exa\0mple", "\ud800@b.example"),
        *(
            "a@b.example\n",
            "\ra@b.example",
            "<a@b.example\r\n>",
            "<\na@b.example>",
            "A\n <a@b.example>",
            "\n<a@b.example>",
        ),
        *("a@b.example\r\nBcc: <c@d.example>", f"a@{'b' * 64}.example", f"a@{'b.' * 130}example"),
    ],
)
def test_what_is_no_address_is_refused_where_it_stands(make: Make, written: str) -> None:
    for fields, place in (
        ({"to": written}, "to[0]"),
        ({"to": ["a@b.example", written]}, "to[1]"),
        ({"cc": [{"address": written}]}, "cc[0]"),
        ({"bcc": ["a@b.example", "c@d.example", written]}, "bcc[2]"),
        ({"reply_to": written}, "reply_to[0]"),
        ({"from_": written}, "from_"),
        ({"from_": ..., "from": written}, "from"),
    ):
        with pytest.raises(InvalidMail) as refused:
            make(**fields)
        assert refused.value.field in {place, f"{place}.name"}
        assert "is no e-mail address" in refused.value.why or "line break" in refused.value.why


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"to": 7}, "to", "valid tuple"),
        ({"to": [7]}, "to[0]", "valid dictionary"),
        ({"to": [None]}, "to[0]", "valid dictionary"),
        ({"to": [{}]}, "to[0]", "required"),
        ({"to": [{"address": 7}]}, "to[0]", "valid string"),
        ({"to": [{"address": "a@b.example", "name": 7}]}, "to[0].name", "valid string"),
        ({"to": [{"address": "a@b.example", "phone": "7"}]}, "to[0].phone", "not permitted"),
        ({"to": [{7: "a@b.example"}]}, "to[0]", "required"),
        ({"to": ["a@b.example"] * 1001}, "to", "at most 1000"),
        ({"to": []}, "to", "no recipient"),
        ({"to": ..., "cc": [], "bcc": ()}, "to", "no recipient"),
        ({"from_": ["a@b.example"]}, "from_", "must be one address, not several"),
        ({"from_": ("a@b.example", "c@d.example")}, "from_", "must be one address, not several"),
        ({"to": [["a@b.example"]]}, "to[0]", "must be one address, not several"),
    ],
)
def test_what_holds_no_address_is_refused(make: Make, fields: dict[str, Any], field: str, why: str) -> None:
    with pytest.raises(InvalidMail) as refused:
        make(**fields)
    assert refused.value.field == field
    assert why in refused.value.why


def test_one_recipient_of_any_kind_will_do(make: Make) -> None:
    assert make(to=..., bcc="a@b.example").to == ()
    assert len(make(to=["a@b.example"] * 1000).to) == 1000


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Anna@Client.Example", "anna@client.example"),
        (" anna@client.example ", "anna@client.example"),
        ("anna@ПОЧТА.РФ", "anna@xn--80a1acny.xn--p1ai"),
        ("ЖУК@почта.рф", "жук@XN--80A1ACNY.xn--p1ai"),
        ("Straße@client.example", "STRASSE@client.example"),
    ],
)
def test_addresses_compare_casefolded_with_a_labels(one: str, other: str) -> None:
    assert address_key(one) == address_key(other) == Address(address=one).key == Address(address=other).key


locals_ = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}", fullmatch=True) | st.text("абвАБВß", min_size=1)
domains = st.sampled_from(["Client.Example", "почта.рф", "ПОЧТА.РФ", "bücher.example", "localhost", "MAIL.local"])


@settings(deadline=None, max_examples=60)
@given(locals_, domains, st.text(st.characters(codec="utf-8", exclude_characters='\r\n\0<>"@\\'), max_size=30))
def test_every_address_reads_back_and_has_one_key(local: str, domain: str, name: str) -> None:
    made = Address(address=f"{local}@{domain}", name=name)
    assert Address(address=made.address, name=made.name) == made
    assert made.key == address_key(f"{local}@{domain}") == address_key(made.key)
    assert made.key.rpartition("@")[2].isascii()
    assert Address.model_validate(f"{name} <{made.address}>") == Address(address=made.address, name=name.strip(" \t"))


@pytest.mark.parametrize(
    "written", ["a@b.example, D <d@e.example>", "A <a@b.example> <d@e.example>", "a@b.example; <d@e.example>"]
)
def test_two_addresses_in_one_text_lose_nobody(make: Callable[..., Mail], written: str) -> None:
    with pytest.raises(InvalidMail, match="another address") as refused:
        make(to=[written])
    assert refused.value.field == "to[0].name"


def test_a_name_with_an_at_sign_is_quoted(make: Callable[..., Mail]) -> None:
    assert make(to='"me@home" <d@e.example>').to[0].name == "me@home"
    assert make(to="d@e.example <d@e.example>").to[0].name == ""


LABEL = st.sampled_from(
    ["a", "client", "Client", "x-y", "-x", "x-", "", "1", "xn--80a1acny", "XN--P1AI", "xn--", "почта"]
)
DOMAIN = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
HOST = DOMAIN | st.sampled_from(
    ["local", "shop.local", "localhost", "a.test", "x" * 64 + ".example", "[127.0.0.1]", "a_b.c"]
)
WORD = st.sampled_from(
    ["anna", "Anna", "info", "Info", "a+b", "a'b", "жук", '"a b"', '"a"', "", " ", "@", "<", "e\u0301", "x" * 190]
)
LOCAL = st.lists(WORD, min_size=1, max_size=3).map(".".join)


@settings(deadline=None, max_examples=300)
@given(LOCAL, HOST)
def test_an_address_is_what_email_validator_says(local: str, host: str) -> None:
    def said(check: Callable[[str], str]) -> str:
        try:
            return check(f"{local}@{host}")
        except ValueError as error:
            return f"refused: {error}"

    assert said(address._checked) == said(address._validated)


def test_an_address_that_is_too_long_once_its_domain_is_decoded_is_refused() -> None:
    label = idna.encode("漢" * 30).decode()
    assert Address(address=f"a@{label}.{label}.example").address == f"a@{label}.{label}.example"
    written = f"{'x' * 80}@{label}.{label}.example"
    assert len(written) < 200
    with pytest.raises(InvalidMail, match="too long after normalization"):
        Address(address=written)
