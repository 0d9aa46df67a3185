"""Header fields: encoded words (RFC 2047), addresses (RFC 5322, RFC 6532), folding. Values come in checked."""

import re
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import idna

from postroom.producer.header import LONGEST_LINE_BYTES, PRINTABLE, is_structured

FOLD_AT: Final = 78
"""Characters in a line, without CRLF, that a field is folded at where it can be (RFC 5322 2.1.1)."""

_LONGEST_ENCODED_WORD: Final = 75
"""RFC 2047 2."""
_ENCODED_WORD_FRAME: Final = len("=?utf-8?b??=")
_SHORTEST_ROOM: Final = 40
"""Encoded words are not cut shorter than this, however long the name of the field."""

# RFC 2047 5 (3): what may stand for itself in a word of a phrase, and so anywhere else too; less the slash, which
# begins a folder where a file's name is not decoded.
_Q_LITERAL: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-"
_Q: Final = {byte: chr(byte) if byte in _Q_LITERAL else f"={byte:02X}" for byte in range(256)} | {0x20: "_"}

_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~ ]+")
_AFTER_WORD: Final = re.compile(r"(?<=[^ ]) ")

# An atom of RFC 5322 3.2.3, widened by RFC 6532 3.2 to what is not ASCII.
_ATOM: Final = r"""[^\s\x00-\x1f\x7f-\x9f()<>@,;:\\".\[\]]+"""
_LOCAL_PART: Final = re.compile(rf"""{_ATOM}(?:\.{_ATOM})*|"(?:[^"\\\x00-\x1f\x7f-\x9f]|\\[ -~])*\"""")
_DOMAIN: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[!-Z^-~]+\]")
_LONGEST_ADDRESS_BYTES: Final = 64 + 1 + 255  # RFC 5321 4.5.3.1

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NO_OFFSET: Final = timedelta()
_MINUTE: Final = timedelta(minutes=1)

_IN_ANGLES: Final = re.compile(r"(<[^<>]*>)")


def fold(name: str, words: Sequence[str]) -> str:
    """Write a field: words parted by one space, a new line before each that would pass `FOLD_AT`.

    The first word stays beside the name, as some readers take an empty first line for an empty field.
    """
    line = f"{name}: {' '.join(words)}"
    if len(line) <= FOLD_AT:
        return f"{line.rstrip(' ')}\r\n"
    parts = [name, ": ", words[0]]
    column = len(name) + 2 + len(words[0])
    for word in words[1:]:
        column += 1 + len(word)
        if column > FOLD_AT:
            parts.append("\r\n")
            column = 1 + len(word)
        parts += (" ", word)
    parts.append("\r\n")
    return "".join(parts)


def encoded_words(text: str, room: int = _LONGEST_ENCODED_WORD) -> list[str]:
    """Encode a text of one character or more as RFC 2047 has it: UTF-8, B or Q by which is shorter.

    Args:
        text: what a reader shall see; spaces at its ends are kept.
        room: characters that one encoded word may take. A character is never split between two of them.
    """
    octets = text.encode()
    escaped = len(octets.translate(None, _Q_LITERAL + b" "))
    if len(octets) + 2 * escaped <= (len(octets) + 2) // 3 * 4:
        return q_words(text, room)
    step = (min(room, _LONGEST_ENCODED_WORD) - _ENCODED_WORD_FRAME) // 4 * 3
    words = []
    start = 0
    while start < len(octets):
        end = start + step
        while end < len(octets) and octets[end] & 0xC0 == 0x80:  # noqa: PLR2004 - UTF-8: inside a character
            end -= 1
        words.append(f"=?utf-8?b?{b2a_base64(octets[start:end], newline=False).decode()}?=")
        start = end
    return words


def q_words(text: str, room: int) -> list[str]:
    """Encode as `encoded_words` does, by Q always."""
    room = min(room, _LONGEST_ENCODED_WORD) - _ENCODED_WORD_FRAME
    words = []
    word = ""
    for character in text:
        encoded = "".join(map(_Q.__getitem__, character.encode()))
        if len(word) + len(encoded) > room:
            words.append(f"=?utf-8?q?{word}?=")
            word = ""
        word += encoded
    words.append(f"=?utf-8?q?{word}?=")
    return words


def unstructured(name: str, value: str, longest_word: int | None = None) -> str:
    """Write a field of free text (RFC 5322 2.2.1), encoded as a whole if any of it must be.

    Args:
        name: of the field.
        value: without CR, LF and NUL.
        longest_word: characters that a word may have and still stand for itself. Default: what keeps to `FOLD_AT`.
    """
    room = _room(name)
    words = _AFTER_WORD.split(value)
    for_itself = (
        value.isascii()
        and value.isprintable()
        and value == value.strip()
        and "=?" not in value
        and max(map(len, words)) <= (longest_word or room)
    )
    return fold(name, words if for_itself else encoded_words(value, room))


def free_field(name: str, value: str) -> str:
    """Write a field that a producer named, whose value may be free text or, by its name, structured.

    In a structured one white space is one space, and what is not ASCII is percent-encoded inside `<…>` (RFC 3987 3.1)
    and encoded words outside. An encoded word that a producer wrote itself stays one.

    Args:
        name: of the field.
        value: in which `postroom.producer.header.field_problem` finds nothing.
    """
    if not is_structured(name):
        return unstructured(name, value, LONGEST_LINE_BYTES - len(f"{name}: "))
    value = " ".join(value.split())
    if not (value.isascii() and value.isprintable()):
        value = " ".join("".join(_structured_pieces(value, _room(name))).split())
    return fold(name, value.split(" "))


def _structured_pieces(value: str, room: int) -> Iterable[str]:
    for piece in _IN_ANGLES.split(value):
        if piece.startswith("<"):
            yield quote(piece, safe=PRINTABLE)
        elif piece.isascii() and piece.isprintable():
            yield piece
        else:
            yield f" {' '.join(encoded_words(piece.strip(), room))} "


def _room(name: str) -> int:
    return max(FOLD_AT - len(name) - len(": "), _SHORTEST_ROOM)


def mailbox_field(name: str, mailboxes: Sequence[tuple[str, str]]) -> str:
    """Write an address field (RFC 5322 3.6.2, 3.6.3).

    Args:
        name: of the field.
        mailboxes: (address, display name or empty); one or more.

    Raises:
        ValueError: an address cannot stand in a header.
    """
    words: list[str] = []
    for address, display_name in mailboxes:
        spec = addr_spec(address)
        if display_name:
            words += _phrase(display_name, _room(name))
            spec = f"<{spec}>"
        words.append(f"{spec},")
    words[-1] = words[-1][:-1]
    return fold(name, words)


def _phrase(text: str, room: int) -> list[str]:
    words = text.split(" ")
    if not (text.isascii() and text.isprintable() and all(words) and "=?" not in text and max(map(len, words)) < room):
        return encoded_words(text, room)
    if _ATOMS.fullmatch(text):
        return words
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'.split(" ")


def addr_spec(address: str) -> str:
    """Return an address as it stands in a header: the domain as A-labels, a local part not ASCII as it is (RFC 6532).

    Raises:
        ValueError: it is no address of RFC 5322, or its domain has no A-label form.
    """
    local, _, domain = address.rpartition("@")
    if not domain.isascii():
        domain = _a_labels(domain)
    if not (_LOCAL_PART.fullmatch(local) and _DOMAIN.fullmatch(domain)):
        raise ValueError("is no address that can stand in a header")
    spec = f"{local}@{domain}"
    if len(spec.encode()) > _LONGEST_ADDRESS_BYTES:
        raise ValueError(f"is longer than {_LONGEST_ADDRESS_BYTES} bytes")
    return spec


@lru_cache(maxsize=1024)
def _a_labels(domain: str) -> str:
    return idna.encode(domain, uts46=True).decode()


def date_value(date: datetime) -> str:
    """Return an aware time as `Date` has it (RFC 5322 3.3). An offset with seconds in it becomes UTC."""
    offset = date.utcoffset()
    if offset is None or offset % _MINUTE:
        date, offset = date.astimezone(UTC), _NO_OFFSET
    hours, minutes = divmod(abs(offset) // _MINUTE, 60)
    zone = f"{'-' if offset < _NO_OFFSET else '+'}{hours:02}{minutes:02}"
    day, month = _DAYS[date.weekday()], _MONTHS[date.month - 1]
    return f"{day}, {date.day:02} {month} {date.year:04} {date.hour:02}:{date.minute:02}:{date.second:02} {zone}"
