"""A letter before it is written: what stands in it, checked, and the serial form that the ledger keeps sealed."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from postroom.producer import header
from postroom.producer.attachment import is_inline_id, is_media_type
from postroom.producer.errors import InvalidMail
from postroom.worker.letter import headers as fields

_VERSION: Final = 1

_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_UNSAFE: Final = re.compile("[\r\n\0\ud800-\udfff]")
_UNSAFE_IN_TEXT: Final = re.compile("[\0\ud800-\udfff]")
_MESSAGE_ID: Final = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")
_LONGEST_MESSAGE_ID: Final = 900


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address with the name shown beside it; an empty name shows none."""

    address: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with the letter; with `inline_id` the HTML shows it by `cid:`."""

    filename: str
    content_type: str
    content: bytes
    inline_id: str | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter, the same for every recipient; there is no Bcc in it, as only the envelope knows those.

    Attributes:
        message_id: with its angle brackets; the same for every copy.
        date: aware.
        headers: further fields, (name, value).
        raw: a whole RFC 5322 letter. Then of the rest only `message_id` and `date` are used, where `raw` lacks them.

    Raises:
        InvalidMail: at construction; a value cannot stand in a letter, such as a name with a line break in it.
    """

    message_id: str
    date: datetime
    from_: Mailbox
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    raw: bytes | None = None

    def __post_init__(self) -> None:
        # `Mail` has checked all this before. Header injection is worth a second lock.
        problems = list(_problems(self))
        if problems:
            raise InvalidMail(problems)

    def to_content(self) -> bytes:
        """Return the serial form: one line of JSON, then the bytes of the attachments or of `raw`, end to end."""
        head = {
            "v": _VERSION,
            "message_id": self.message_id,
            "date": self.date.isoformat(),
            "from": (self.from_.address, self.from_.name),
            "to": [(mailbox.address, mailbox.name) for mailbox in self.to],
            "cc": [(mailbox.address, mailbox.name) for mailbox in self.cc],
            "reply_to": [(mailbox.address, mailbox.name) for mailbox in self.reply_to],
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "headers": self.headers,
            "attachments": [
                (attachment.filename, attachment.content_type, len(attachment.content), attachment.inline_id)
                for attachment in self.attachments
            ],
            "raw": self.raw is not None,
        }
        line = _JSON.encode(head).encode()
        return b"".join((line, b"\n", *(attachment.content for attachment in self.attachments), self.raw or b""))

    @classmethod
    def from_content(cls, content: bytes) -> Self:
        """Read the serial form of any version so far.

        Raises:
            ValueError: it is no such form, is of another version, or was cut short.
        """
        end = content.find(b"\n")
        head = json.loads(content[:end])
        if head["v"] != _VERSION:
            raise ValueError(f"the letter's content is of version {head['v']}, this worker reads {_VERSION}")
        attachments = []
        start = end + 1
        for filename, content_type, size_bytes, inline_id in head["attachments"]:
            attachments.append(
                Attachment(filename, content_type, content[start : start + size_bytes], inline_id),
            )
            start += size_bytes
        if start > len(content):
            raise ValueError("the letter's content was cut short")
        return cls(
            message_id=head["message_id"],
            date=datetime.fromisoformat(head["date"]),
            from_=Mailbox(*head["from"]),
            to=tuple(Mailbox(*mailbox) for mailbox in head["to"]),
            cc=tuple(Mailbox(*mailbox) for mailbox in head["cc"]),
            reply_to=tuple(Mailbox(*mailbox) for mailbox in head["reply_to"]),
            subject=head["subject"],
            text=head["text"],
            html=head["html"],
            headers=tuple((name, value) for name, value in head["headers"]),
            attachments=tuple(attachments),
            raw=content[start:] if head["raw"] else None,
        )


def _problems(letter: Letter) -> Iterator[tuple[str, str]]:
    if not _MESSAGE_ID.fullmatch(letter.message_id) or len(letter.message_id) > _LONGEST_MESSAGE_ID:
        yield "message_id", "must be <…@…>, in ASCII, without spaces"
    if letter.date.tzinfo is None:
        yield "date", "must carry an offset"
    yield from _mailbox_problems("from", letter.from_)
    for field, mailboxes in (("to", letter.to), ("cc", letter.cc), ("reply_to", letter.reply_to)):
        for index, mailbox in enumerate(mailboxes):
            yield from _mailbox_problems(f"{field}[{index}]", mailbox)
    yield from _value_problems("subject", letter.subject)
    for field, text in (("text", letter.text), ("html", letter.html)):
        yield from _text_problems(field, text or "")
    for name, value in letter.headers:
        yield from _header_problems(name, value)
    for index, attachment in enumerate(letter.attachments):
        yield from _attachment_problems(f"attachments[{index}]", attachment)
    if letter.raw is not None and (letter.text is not None or letter.html is not None or letter.attachments):
        yield "raw", "is a whole letter: text, html and attachments cannot be added to it"


def _value_problems(field: str, value: str) -> Iterator[tuple[str, str]]:
    if _UNSAFE.search(value):
        yield field, "must not hold a line break, NUL or half a character"


def _text_problems(field: str, text: str) -> Iterator[tuple[str, str]]:
    if "\0" in text or (not text.isascii() and _UNSAFE_IN_TEXT.search(text)):
        yield field, "must not hold NUL or half a character"


def _mailbox_problems(field: str, mailbox: Mailbox) -> Iterator[tuple[str, str]]:
    yield from _value_problems(f"{field}.name", mailbox.name)
    if _UNSAFE.search(mailbox.address):
        yield from _value_problems(f"{field}.address", mailbox.address)
        return
    try:
        fields.addr_spec(mailbox.address)
    except ValueError as error:
        yield f"{field}.address", str(error)


def _header_problems(name: str, value: str) -> Iterator[tuple[str, str]]:
    field = f"headers[{name!r}]"
    if why := header.name_problem(name):
        yield field, why
    elif _UNSAFE.search(value):
        yield from _value_problems(field, value)
    elif why := header.field_problem(name, value):
        yield field, why


def _attachment_problems(field: str, attachment: Attachment) -> Iterator[tuple[str, str]]:
    yield from _value_problems(f"{field}.filename", attachment.filename)
    if not is_media_type(attachment.content_type):
        yield f"{field}.content_type", "must be type/subtype, such as application/pdf"
    if attachment.inline_id is not None and not is_inline_id(attachment.inline_id):
        yield f"{field}.inline_id", "must be ASCII without spaces, < and >"
