"""A whole letter that came from outside: kept as it is, but for Bcc, line ends, and Message-ID and Date if missing."""

import re
from datetime import datetime
from typing import Final

from postroom.worker.letter.headers import date_value

# RFC 5322 4.5.8: old letters may have space before the colon.
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
# RFC 4155: mbox writes this line before a letter. Taken for the body's first, it would let Bcc stand.
_MBOX_MARK: Final = re.compile(rb">?From .*\r\n")
_BLIND: Final = {b"bcc", b"resent-bcc"}


def whole(raw: bytes, *, message_id: str, date: datetime) -> bytes:
    """Make a raw letter ready to leave. Neither its encodings nor its long lines are touched.

    The header block ends at the first empty line or, as mail servers have it, before the first line that is no field.
    A line that mbox put before the letter is dropped.

    Args:
        raw: with any line ends.
        message_id: used where the letter has none.
        date: aware; used where the letter has none.
    """
    fields, body = _parted(raw)
    kept = [octets for name, octets in fields if name not in _BLIND]
    seen = {name for name, _ in fields}
    if b"message-id" not in seen:
        kept.append(f"Message-ID: {message_id}\r\n".encode())
    if b"date" not in seen:
        kept.append(f"Date: {date_value(date)}\r\n".encode())
    return b"".join((*kept, b"\r\n", body))


def values(raw: bytes, name: str) -> list[str]:
    """Return what all header fields of a name say in a raw letter, unfolded, just as `whole` finds the fields."""
    return [
        _FIELD.sub(b"", octets, count=1).replace(b"\r\n", b"").strip().decode(errors="replace")
        for found, octets in _parted(raw)[0]
        if found == name.lower().encode()
    ]


def _parted(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the header fields, each as its name in small letters and its lines, and the body; all with CRLF."""
    letter = _with_crlf(raw)
    fields: list[tuple[bytes, list[bytes]]] = []
    mark = _MBOX_MARK.match(letter)
    start = mark.end() if mark else 0
    while start < len(letter):
        end = letter.index(b"\r\n", start) + 2
        line = letter[start:end]
        if fields and line.startswith((b" ", b"\t")):
            fields[-1][1].append(line)
        elif field := _FIELD.match(line):
            fields.append((field[1].lower(), [line]))
        else:
            start = end if line == b"\r\n" else start
            break
        start = end
    return [(name, b"".join(lines)) for name, lines in fields], letter[start:]


def _with_crlf(raw: bytes) -> bytes:
    """Return the letter with CRLF line ends, and one at its end."""
    if not raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r"):
        raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return raw if raw.endswith(b"\r\n") else raw + b"\r\n"
