"""The body of a letter: its parts, their transfer encodings, and how they nest (RFC 2045, 2046, 2183, 2231, 2387)."""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Sequence
from hashlib import blake2b
from html import unescape
from itertools import count
from typing import Final, NamedTuple
from urllib.parse import unquote

from postroom.producer.attachment import OCTET_STREAM
from postroom.producer.header import LONGEST_LINE_BYTES
from postroom.worker.letter.content import Attachment, Letter
from postroom.worker.letter.filenames import filename_parameter, name_parameter
from postroom.worker.letter.headers import fold

_BASE64_COLUMNS: Final = 76
_QP_LITERAL: Final = bytes(byte for byte in range(0x20, 0x7F) if byte != ord("=")) + b"\t\n"

_CONTENT_PARAMETER: Final = re.compile(r""";\s*([^\s=;]+)=("[^"]*"|[^\s;]+)""")


class Part(NamedTuple):
    """One part. `head` is its MIME fields, each with its CRLF; `body` is encoded and ends where the content ends."""

    head: bytes
    encoding: str
    body: bytes


def body(letter: Letter, *, eight_bit: bool) -> Part:
    """Build the body: mixed(alternative(text, related(html, inline images)), attachments), each only where needed.

    Args:
        letter: not a raw one.
        eight_bit: the server takes 8BITMIME (RFC 6152).
    """
    shown_ids = _shown_ids(letter)
    inline = [item for item in letter.attachments if item.inline_id in shown_ids]
    attached = [item for item in letter.attachments if item.inline_id not in shown_ids]
    inline_parts = [_attachment_part(item, "inline", eight_bit=eight_bit) for item in inline]
    attached_parts = [_attachment_part(item, "attachment", eight_bit=eight_bit) for item in attached]
    text = html = None
    if letter.text is not None or letter.html is None:
        text = _text_part(letter.text or "", "plain", eight_bit=eight_bit)
    if letter.html is not None:
        html = _text_part(letter.html, "html", eight_bit=eight_bit)

    leaves = [part for part in (text, html, *inline_parts, *attached_parts) if part]
    if len(leaves) == 1:
        return leaves[0]
    tag = _boundary_tag(letter.message_id, leaves)
    if html and inline_parts:
        html = _multipart("related", [html, *inline_parts], f"=_r{tag}", 'type="text/html"')
    shown = [part for part in (text, html) if part]
    root = shown[0] if len(shown) == 1 else _multipart("alternative", shown, f"=_a{tag}")
    return _multipart("mixed", [root, *attached_parts], f"=_m{tag}") if attached_parts else root


def _shown_ids(letter: Letter) -> set[str]:
    """Return the inline ids that the HTML shows (RFC 2392). Some readers would hide the others, if they stood with it.

    Where one id begins another, the longer one is meant.
    """
    ids = sorted((item.inline_id for item in letter.attachments if item.inline_id is not None), key=len, reverse=True)
    if not ids or letter.html is None:
        return set()
    link = re.compile(rf"(?i:cid:)({'|'.join(map(re.escape, ids))})(?![\w@.%-])")
    written = unescape(letter.html)  # an id may stand percent-encoded in its URL or, as many do it, not
    return {found for text in (written, unquote(written)) for found in link.findall(text)}


def _boundary_tag(message_id: str, leaves: Sequence[Part]) -> str:
    """Return what the boundaries are made of: the same for every copy of a letter, and in none of its parts.

    `=_` cannot occur in quoted-printable, nor `_` in base64 (RFC 2045 6.7, 6.8): only the other parts are searched.
    """
    as_they_are = [part.body for part in leaves if part.encoding in {"7bit", "8bit"}]
    for turn in count():
        tag = blake2b(f"{turn}{message_id}".encode(), digest_size=12).hexdigest()
        if not any(tag.encode() in text for text in as_they_are):
            return tag
    raise AssertionError  # pragma: no cover - count() does not end


def _multipart(subtype: str, parts: Sequence[Part], boundary: str, parameter: str = "") -> Part:
    words = [f"multipart/{subtype};", *([f"{parameter};"] if parameter else []), f'boundary="{boundary}"']
    head = fold("Content-Type", words)
    encoding = "8bit" if any(part.encoding == "8bit" for part in parts) else "7bit"
    if encoding == "8bit":  # RFC 2045 6.4: a multipart is as wide as its widest part
        head += "Content-Transfer-Encoding: 8bit\r\n"
    delimiter = f"--{boundary}".encode()
    pieces: list[bytes] = []
    for part in parts:
        pieces += (delimiter, b"\r\n", part.head, b"\r\n", part.body, b"\r\n")
    return Part(head.encode(), encoding, b"".join((*pieces, delimiter, b"--")))


def _text_part(text: str, subtype: str, *, eight_bit: bool) -> Part:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    octets = text.encode()
    encoding = _narrowest(octets, eight_bit=eight_bit)
    if encoding:
        encoded = octets.replace(b"\n", b"\r\n")
    else:
        escaped = len(octets.translate(None, _QP_LITERAL))
        if len(octets) + 2 * escaped <= len(octets) * 4 // 3:
            encoding, encoded = "quoted-printable", b2a_qp(octets, istext=True).replace(b"\n", b"\r\n")
        else:
            encoding, encoded = "base64", _base64(octets.replace(b"\n", b"\r\n"))
    head = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n"
    return Part(head.encode(), encoding, encoded)


def _narrowest(octets: bytes, *, eight_bit: bool) -> str | None:
    """Return the encoding under which text with LF line ends can stand as it is, if any (RFC 2045 2.7, 2.8)."""
    ascii_only = octets.isascii()
    if not (ascii_only or eight_bit) or b"\0" in octets:
        return None
    if len(octets) > LONGEST_LINE_BYTES and max(map(len, octets.split(b"\n"))) > LONGEST_LINE_BYTES:
        return None
    return "7bit" if ascii_only else "8bit"


def _base64(octets: bytes) -> bytes:
    encoded = b2a_base64(octets, newline=False)
    return b"\r\n".join(
        [encoded[start : start + _BASE64_COLUMNS] for start in range(0, len(encoded), _BASE64_COLUMNS)],
    )


def _attachment_part(attachment: Attachment, disposition: str, *, eight_bit: bool) -> Part:
    content_type = attachment.content_type
    media_type = content_type.partition(";")[0].strip().lower()
    composite = media_type.startswith(("message/", "multipart/")) and media_type != "message/global"
    verbatim = _verbatim(media_type, attachment.content, eight_bit=eight_bit) if composite else None
    if verbatim:
        encoding, encoded = verbatim
    else:
        encoding, encoded = "base64", _base64(attachment.content)
        if composite:  # base64 is forbidden in these (RFC 2046 5.1, 5.2.1): a plain file keeps every byte instead
            content_type = OCTET_STREAM
    head = _content_type(content_type, attachment.filename)
    head += f"Content-Transfer-Encoding: {encoding}\r\n"
    if attachment.inline_id is not None:
        head += fold("Content-ID", [f"<{attachment.inline_id}>"])
    head += _field_with_parameters("Content-Disposition", disposition, filename_parameter(attachment.filename))
    return Part(head.encode(), encoding, encoded)


def _verbatim(media_type: str, content: bytes, *, eight_bit: bool) -> tuple[str, bytes] | None:
    """Return encoding and bytes of a letter if it can be attached as it is, but for its line ends."""
    if media_type.startswith("multipart/") or not content:
        return None
    lines = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    encoding = _narrowest(lines, eight_bit=eight_bit and media_type == "message/rfc822")
    return (encoding, lines.replace(b"\n", b"\r\n")) if encoding else None


def _content_type(content_type: str, filename: str) -> str:
    value, semicolon, rest = content_type.partition(";")
    given = [
        f"{name}={value}"
        for name, value in _CONTENT_PARAMETER.findall(semicolon + rest)
        if name.lower().partition("*")[0] != "name"
    ]
    return _field_with_parameters("Content-Type", value.strip(), [*given, *name_parameter(filename)])


def _field_with_parameters(name: str, value: str, parameters: Sequence[str]) -> str:
    words = [value, *parameters]
    return fold(name, [f"{word};" for word in words[:-1]] + words[-1:])
