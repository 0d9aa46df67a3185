"""A letter as a reader that did not write it finds it, what a mail says that he should find, and the rules for bytes.

The reader is the standard library's `email.parser` under `policy.default`. It is read past where it errs, and only
there:

- names beside addresses: it puts a space between two encoded words of a phrase (python/cpython#128110). So a name is
  read by `email.header.decode_header`, and must be the same as the parser's but for white space;
- local parts outside ASCII (RFC 6532): it takes headers for ASCII, so their bytes are read as UTF-8 afterwards;
- fields with a grammar of their own (`List-…`, `References`, …): it decodes what looks like an encoded word even inside
  a URL. What a producer wrote there in ASCII is compared with the field as it stands in the letter.
"""

import email
from collections.abc import Set as AbstractSet
from email import policy
from email.header import decode_header
from email.message import EmailMessage, MIMEPart
from email.utils import getaddresses
from typing import NamedTuple
from urllib.parse import unquote

from postroom.producer import Address, Mail
from postroom.producer.header import is_structured

WHOLE = policy.default.clone(refold_source="none", linesep="\r\n")


class File(NamedTuple):
    filename: str
    content_type: str
    content: bytes
    inline_id: str | None
    is_shown: bool


class Reading(NamedTuple):
    """What is found in a letter. Names come before addresses; texts have LF at their line ends.

    Where a text is all there is, whether its last line ends is not kept: a letter ends in CRLF.
    """

    shape: str
    from_: list[tuple[str, str]]
    to: list[tuple[str, str]]
    cc: list[tuple[str, str]]
    reply_to: list[tuple[str, str]]
    subject: str
    headers: dict[str, str]
    text: str | None
    html: str | None
    files: list[File]


def expected(mail: Mail, shown: AbstractSet[str]) -> Reading:
    """What is to be found in the letter of a mail whose HTML shows the files with these inline ids."""
    assert mail.from_ is not None
    alone = not mail.attachments and (mail.text is None or mail.html is None)
    texts = [None if text is None else lf(text) for text in (mail.text, mail.html)]
    files = [
        File(file.filename, plain_type(file.content_type), file.content, file.inline_id, file.inline_id in shown)
        for file in mail.attachments
    ]
    files.sort(key=lambda file: not file.is_shown)
    return Reading(
        shape=_shape_of(texts, files),
        from_=_people([mail.from_]),
        to=_people(mail.to),
        cc=_people(mail.cc),
        reply_to=_people(mail.reply_to),
        subject=mail.subject or "",
        headers={name: as_structured(value) if is_structured(name) else value for name, value in mail.headers.items()},
        text=_last_line(texts[0], alone),
        html=_last_line(texts[1], alone),
        files=files,
    )


def read(octets: bytes, names: AbstractSet[str]) -> Reading:
    """Read a letter, and of its other fields those with these names."""
    message = email.message_from_bytes(octets, policy=policy.default)
    leaves = [part for part in message.walk() if part.get_content_maintype() != "multipart"]
    leaves = [part for part in leaves if not any(part in whole.walk() for whole in _attached_letters(message))]
    bodies = [part for part in leaves if part["content-disposition"] is None]
    texts = {part.get_content_subtype(): lf(payload(part).decode(part.get_content_charset("utf-8"))) for part in bodies}
    assert len(texts) == len(bodies)
    alone = not message.is_multipart()
    return Reading(
        shape=shape(message),
        from_=people_in(message, "From"),
        to=people_in(message, "To"),
        cc=people_in(message, "Cc"),
        reply_to=people_in(message, "Reply-To"),
        subject=message["subject"],
        headers={name: _field(message, name) for name in names},
        text=_last_line(texts.get("plain"), alone),
        html=_last_line(texts.get("html"), alone),
        files=[_file(part) for part in leaves if part["content-disposition"] is not None],
    )


def hold_rules(octets: bytes, *, eight_bit: bool) -> None:
    """Check what every letter must keep, whatever is in it (RFC 5321, 5322, 6152)."""
    assert octets.endswith(b"\r\n")
    assert octets.count(b"\r\n") == octets.count(b"\n") == octets.count(b"\r")
    assert b"\0" not in octets
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    if not eight_bit:
        assert octets.isascii()
    head = octets[: octets.index(b"\r\n\r\n")].decode()
    for line in head.split("\r\n"):
        value = line if line.startswith(" ") else line.partition(": ")[2]
        assert len(line) <= 78 or " " not in value.strip(), f"could be folded: {line}"
        assert line.strip(), "a line of nothing ends the headers for some readers"
        assert not line.lower().startswith("bcc")


def lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def plain_type(content_type: str) -> str:
    """The type that a file is sent under: of letters, `message/rfc822` alone stands as it is."""
    media_type = content_type.partition(";")[0].strip().lower()
    return "application/octet-stream" if media_type.startswith("multipart/") else media_type


def as_structured(value: str) -> str:
    """A field with a grammar of its own, but for white space and percent-encoding, which may be added to it."""
    return "".join(unquote(value).split())


def shape(part: MIMEPart) -> str:
    kind = part.get_content_subtype()
    if part.get_content_maintype() != "multipart":
        return kind
    return f"{kind}({', '.join(shape(inner) for inner in part.iter_parts())})"


def payload(part: MIMEPart) -> bytes:
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets


def people_in(message: EmailMessage, field: str) -> list[tuple[str, str]]:
    values = [value for name, value in message.raw_items() if name.lower() == field.lower()]
    if not values or values == ["undisclosed-recipients:;"]:
        return []
    (value,) = (_utf8("".join(value.splitlines())) for value in values)
    found = [(_decoded(name), address) for name, address in getaddresses([value])]
    read_by_parser = [(_utf8(mailbox.display_name), _utf8(mailbox.addr_spec)) for mailbox in message[field].addresses]
    assert [("".join(name.split()), address) for name, address in read_by_parser] == [
        ("".join(name.split()), address) for name, address in found
    ]
    return found


def _shape_of(texts: list[str | None], files: list[File]) -> str:
    shown = [file.content_type.partition("/")[2] for file in files if file.is_shown]
    rest = [file.content_type.partition("/")[2] for file in files if not file.is_shown]
    kinds = [kind for kind, text in zip(("plain", "html"), texts, strict=True) if text is not None]
    if shown:
        kinds[-1] = f"related({', '.join(['html', *shown])})"
    body = f"alternative({', '.join(kinds)})" if len(kinds) > 1 else kinds[0]
    return f"mixed({', '.join([body, *rest])})" if rest else body


def _people(addresses: list[Address] | tuple[Address, ...]) -> list[tuple[str, str]]:
    return [(address.name, address.address) for address in addresses]


def _last_line(text: str | None, alone: bool) -> str | None:
    return text.removesuffix("\n") if text is not None and alone else text


def _attached_letters(message: EmailMessage) -> list[MIMEPart]:
    wholes = [part for part in message.walk() if part.get_content_maintype() == "message"]
    return [inner for whole in wholes for inner in whole.iter_parts()]


def _file(part: MIMEPart) -> File:
    parameters = part["content-disposition"].params
    assert part["content-type"].params["name"] == parameters["filename"]
    inline_id = part["content-id"]
    if part.get_content_maintype() == "message":
        (letter,) = part.iter_parts()
        content = letter.as_bytes(policy=WHOLE)
    else:
        content = payload(part)
    return File(
        filename=parameters["filename"],
        content_type=part.get_content_type(),
        content=content,
        inline_id=inline_id and inline_id.removeprefix("<").removesuffix(">"),
        is_shown=part.get_content_disposition() == "inline",
    )


def _field(message: EmailMessage, name: str) -> str:
    (value,) = (raw for found, raw in message.raw_items() if found == name)
    if not is_structured(name):
        return str(message[name])
    as_it_stands = as_structured(value)
    return as_it_stands if "=?utf-8?" not in value else as_structured(str(message[name]))


def _decoded(phrase: str) -> str:
    return "".join(
        chunk if isinstance(chunk, str) else chunk.decode(charset or "ascii")
        for chunk, charset in decode_header(phrase)
    )


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode()
