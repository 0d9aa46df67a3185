"""Addresses: how they may be written, and how they are compared (design §10)."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, TypeAlias

import email_validator
import idna
from pydantic import BeforeValidator, Field, field_validator, model_validator

from postroom.producer.checking import Checked, Line, line
from postroom.producer.errors import InvalidMail

_MOST_RECIPIENTS: Final = 1000
_INSIDE_A_HOUSE: Final = re.compile(r"[@.](local|localhost|test)", re.IGNORECASE)
_OUTSIDE: Final = ".example"
_ATOM: Final = r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN: Final = re.compile(rf"({_ATOM}(?:\.{_ATOM})*@)([A-Za-z0-9.-]+)")
"""A dot-atom (RFC 5322 §3.2.3) without capitals, at a name in ASCII: email-validator takes it as it is written."""
_SHORT: Final = 200
"""Characters of an address that is surely no longer than the 254 that an address may have (RFC 5321 §4.5.3.1.3)."""
_BLANK: Final = " \t"
"""What may stand around an address and its name. A line break is never trimmed away: it is refused."""


def _checked(text: str) -> str:
    """The address with its domain as A-label.

    Checking a domain is nearly all of the cost, and mail goes to many addresses of few domains. So where the local part
    is plain, what email-validator said of the domain is enough.

    Raises:
        ValueError: it is no address.
    """
    plain = _PLAIN.fullmatch(text) if len(text) <= _SHORT else None
    domain = None if plain is None else _plain_domain(plain[2])
    return _validated(text) if plain is None or domain is None else plain[1] + domain


@lru_cache(maxsize=8192)
def _plain_domain(domain: str) -> str | None:
    """The domain as A-label; None if addresses in it must be looked at whole: it is wrong, or longer when decoded."""
    if "xn--" in domain.lower():
        return None
    try:
        return _validated(f"a@{domain}").removeprefix("a@")
    except ValueError:
        return None


@lru_cache(maxsize=8192)
def _validated(text: str) -> str:
    """The address with its domain as A-label, as email-validator says.

    It refuses names that are not on the public Internet, such as shop.local; mail servers inside a house have them.
    Such a name is checked as if it stood under a public one.
    """
    outside = _OUTSIDE if _INSIDE_A_HOUSE.fullmatch(text, max(text.rfind("@"), text.rfind("."))) else ""
    try:
        found = email_validator.validate_email(
            text + outside, check_deliverability=False, allow_quoted_local=True, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise ValueError(f"{text[:100]!r} is no e-mail address: {error}") from None
    return f"{found.local_part}@{found.ascii_domain.removesuffix(outside)}"


def address_key(address: str) -> str:
    """An address as it is compared: casefolded, its domain as A-label (RFC 5890)."""
    address = address.strip()
    if address.isascii():
        return address.lower()
    local, _, domain = address.rpartition("@")
    try:
        domain = idna.encode(domain, uts46=True).decode()
    except idna.IDNAError:
        domain = domain.casefold()
    return f"{local.casefold()}@{domain}" if local else domain


class Address(Checked):
    """An address and the name shown beside it. Also taken: ``"a@b.c"`` and ``"Name <a@b.c>"``."""

    address: str
    name: Line = ""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            raise ValueError("must be one address, not several")  # noqa: TRY004 - pydantic words a TypeError itself
        if not isinstance(value, str):
            return value
        text = value.strip(_BLANK)
        if "<" not in text or not text.endswith(">"):
            return {"address": text}
        name, _, address = text[:-1].rpartition("<")
        name = name.strip(_BLANK)
        if len(name) > 1 and name[0] == name[-1] == '"':
            name = re.sub(r"\\(.)", r"\1", name[1:-1])
        elif name == address:
            name = ""
        elif "@" in name and not set("\r\n\0") & set(name):  # those are refused below, and said as what they are
            # Such as "a@b.c, Name <d@e.f>": the first would get nothing, and nobody would know.
            raise InvalidMail([("name", "is another address, or must stand in double quotes since it holds an @")])
        return {"address": address, "name": name}

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        return _checked(line(value).strip(_BLANK))

    @property
    def key(self) -> str:
        """The address as it is compared."""
        return address_key(self.address)


def _several(value: Any) -> Any:
    """One address where several may stand is taken as a list of one."""
    return (value,) if isinstance(value, str | dict | Address) else value


Addresses = Annotated[tuple[Address, ...], BeforeValidator(_several), Field(max_length=_MOST_RECIPIENTS)]

AddressLike: TypeAlias = Address | str | Mapping[str, str]
"""How one address may be given."""

AddressesLike: TypeAlias = AddressLike | Sequence[AddressLike]
"""How several may be."""
