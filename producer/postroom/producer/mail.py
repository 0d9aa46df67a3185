"""The contract: `Mail`, checked when it is made, and its JSON form, the job (design §10, version 1)."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import Field, field_validator, model_validator

from postroom.producer import header, names
from postroom.producer.address import Address, Addresses, AddressesLike, AddressLike, address_key
from postroom.producer.attachment import Attachment
from postroom.producer.checking import Checked, Content, Identifier, Line, Text, Time, json_values, line
from postroom.producer.errors import InvalidMail, NewerJob
from postroom.producer.identifiers import keyed_id, uuid7

__all__ = ["Address", "Attachment", "Mail", "Template", "address_key"]

_SORTED_JSON: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_PRODUCER: Final = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_MOST_META: Final = 32
_LONGEST_META: Final = 200
_LARGEST_META: Final = 2**63


class Template(Checked):
    """Which template the mail was, or is to be, made from; recorded with it and shown in Flower: nothing personal.

    `meta` is free: event, site id, … (at most 32 values of at most 200 characters).
    """

    name: Annotated[Line, Field(min_length=1, max_length=100)]
    locale: Annotated[Line, Field(max_length=35)] | None = None
    version: Annotated[Line, Field(max_length=64)] | None = None
    meta: Annotated[dict[Line, Any], Field(max_length=_MOST_META)] = Field(default_factory=dict)

    @field_validator("meta")
    @classmethod
    def _meta_is_small_and_flat(cls, value: dict[str, Any]) -> dict[str, Any]:
        problems = [(name[:40], why) for name, each in value.items() if (why := _meta_problem(name, each))]
        if problems:
            raise InvalidMail(problems)
        return value


class Mail(Checked):
    """One letter to one or more recipients, checked when it is made.

    One of three: Postroom renders `template` with `context`; or `subject` with `text` and/or `html` came rendered, and
    `template` is metadata; or `raw` is a whole RFC 5322 letter.

    Attributes:
        id: UUIDv7 made here. A mail with a `key` gets another when it is handed over: the UUIDv5 of producer and key.
        from_: written ``from`` in JSON; left out only where the template gives it.
        raw: kept as it is but for Bcc; Message-ID and Date are added where they are missing.

    Raises:
        InvalidMail: with `.field` and `.why`.
    """

    if TYPE_CHECKING:  # more may be given than is kept; and a type checker without pydantic's plugin knows no `from_`

        def __init__(
            self,
            *,
            id: UUID | str = ...,  # noqa: A002 - the field has this name
            producer: str = ...,
            key: str | None = ...,
            owner: str | None = ...,
            from_: AddressLike | None = ...,
            to: AddressesLike = ...,
            cc: AddressesLike = ...,
            bcc: AddressesLike = ...,
            reply_to: AddressesLike = ...,
            template: Template | Mapping[str, Any] | None = ...,
            context: Mapping[str, Any] | None = ...,
            subject: str | None = ...,
            text: str | None = ...,
            html: str | None = ...,
            headers: Mapping[str, str] = ...,
            attachments: Sequence[Attachment | Mapping[str, Any]] = ...,
            priority: Literal["high", "normal", "bulk"] = ...,
            send_at: datetime | str | None = ...,
            expires_at: datetime | str | None = ...,
            on_uncertain: Literal["resend", "hold"] | None = ...,
            tags: Sequence[str] = ...,
            raw: bytes | None = ...,
        ) -> None: ...

    id: UUID = Field(default_factory=uuid7)
    producer: Identifier = "site"
    key: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    owner: Identifier | None = None
    from_: Address | None = Field(default=None, alias="from")
    to: Addresses = ()
    cc: Addresses = ()
    bcc: Addresses = ()
    reply_to: Addresses = ()
    template: Template | None = None
    context: dict[str, Any] | None = None
    subject: Line | None = None
    text: Text | None = None
    html: Text | None = None
    headers: dict[str, Line] = Field(default_factory=dict)
    attachments: tuple[Attachment, ...] = ()
    priority: Literal["high", "normal", "bulk"] = "normal"
    send_at: Time | None = None
    expires_at: Time | None = None
    on_uncertain: Literal["resend", "hold"] | None = None
    tags: Annotated[tuple[Annotated[Line, Field(min_length=1, max_length=64)], ...], Field(max_length=32)] = ()
    raw: Content | None = None

    @classmethod
    def from_job(cls, job: bytes) -> Self:
        """Read a job.

        Raises:
            InvalidMail: it is no valid job of a version that this release knows.
            NewerJob: a newer release made it.
        """
        try:
            fields = json.loads(job, object_pairs_hook=_once)
        except InvalidMail:
            raise
        except (ValueError, RecursionError):
            raise InvalidMail([("job", "is no JSON")]) from None
        if not isinstance(fields, dict):
            raise InvalidMail([("job", "must be a JSON object")])
        version = fields.pop("v", None)
        if type(version) is not int or version < 1:  # true is an int too
            raise InvalidMail([("v", f"must be the job's version, {names.JOB_VERSION}")])
        if version > names.JOB_VERSION:
            raise NewerJob(f"the job is of version {version}, this release knows {names.JOB_VERSION}")
        return cls(**fields)

    def to_job(self) -> bytes:
        """The job: JSON, UTF-8, what has its default left out."""
        # Joined by hand, as pydantic writes the rest three times as fast as `json` does.
        rest = self.model_dump_json(by_alias=True, exclude_defaults=True, exclude={"id", "producer"})
        return f'{{"v":{names.JOB_VERSION},"id":"{self.id}","producer":"{self.producer}",{rest[1:]}'.encode()

    def body(self) -> bytes:
        """All that was asked for, in one spelling: two mails under one key are the same if this is."""
        fields = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"id", "producer", "key"})
        return _SORTED_JSON.encode(fields).encode()

    def identified(self, producer: str) -> Self:
        """The mail as this producer hands it over: under its name, and with a `key` under the id of that key.

        Raises:
            InvalidMail: the name cannot be used.
        """
        if producer == self.producer and self.key is None:
            return self
        check_producer(producer)
        changes: dict[str, Any] = {"producer": producer}
        if self.key is not None:
            changes["id"] = keyed_id(producer, self.key)
        return self.model_copy(update=changes)

    @property
    def renders_template(self) -> bool:
        """Whether Postroom is to render the template."""
        return self.raw is None and self.subject is None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What a log line or traceback may show: nothing of the letter."""
        yield "id", self.id

    @field_validator("headers")
    @classmethod
    def _headers_are_free(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if why := header.name_problem(name):
                raise ValueError(why)
            if why := header.field_problem(name, text):
                raise InvalidMail([(name, why)])
        if len({name.lower() for name in value}) < len(value):
            raise ValueError("the same header stands twice")
        return value

    @field_validator("key")
    @classmethod
    def _key_is_printable(cls, value: str | None) -> str | None:
        if value is not None and _CONTROLS.search(value):
            raise ValueError("must not hold control characters")
        return value

    @field_validator("context")
    @classmethod
    def _context_is_json(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            json_values(value)
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = list(self._contradictions())
        if problems:
            raise InvalidMail(problems)
        return self

    def _contradictions(self) -> Iterable[tuple[str, str]]:
        if not (self.to or self.cc or self.bcc):
            yield "to", "no recipient: give one in to, cc or bcc"
        if self.raw is not None:
            yield from _raw_contradictions(self, self.raw)
        else:
            yield from _content_contradictions(self)
            yield from _inline_contradictions(self)
        if self.from_ is None and (self.raw is not None or self.subject is not None):
            yield "from", "is missing; only a template that Postroom renders may give it"
        if self.send_at and self.expires_at and self.expires_at <= self.send_at:
            yield "expires_at", "must be after send_at"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which each name stands once: of two, other programs might take the other."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise InvalidMail([("job", f"says {twice[:80]!r} twice")])
    return found


def check_producer(name: str) -> None:
    """Check the name of a producer.

    Raises:
        InvalidMail: it cannot be used.
    """
    if not _PRODUCER.fullmatch(name):
        raise InvalidMail([("producer", "must be 1 to 64 of A-Z a-z 0-9 . _ : @ -")])


def _meta_problem(name: str, value: object) -> str | None:
    if value is not None and not isinstance(value, str | int | float):
        return "must be text, a number, true, false or null"
    if isinstance(value, int | float) and not abs(value) < _LARGEST_META:  # NaN is not less either
        return "must be a number that others can read: less than 2**63"
    if len(name) > _LONGEST_META or (isinstance(value, str) and len(value) > _LONGEST_META):
        return f"name and value must have at most {_LONGEST_META} characters"
    try:
        line(value if isinstance(value, str) else "")
    except ValueError as error:
        return str(error)
    return None


def _raw_contradictions(mail: Mail, raw: bytes) -> Iterable[tuple[str, str]]:
    for field in ("subject", "text", "html", "context", "headers", "attachments", "reply_to"):
        if getattr(mail, field):
            yield field, "cannot be given with raw, which is a whole letter"
    if not raw.strip():
        yield "raw", "is empty"
    if b"\0" in raw:
        yield "raw", "must not hold NUL, which no letter may hold (RFC 5322 §3.5)"


def _content_contradictions(mail: Mail) -> Iterable[tuple[str, str]]:
    rendered = mail.text is not None or mail.html is not None
    if mail.subject is not None:
        if not rendered:
            yield "text", "give text, html or both with a subject"
        if mail.context is not None:
            yield "context", "is for a template that Postroom renders; this mail has a subject"
    elif rendered:
        yield "subject", "is missing"
    elif mail.template is None:
        yield "subject", "give a subject with text or html, a template to render, or raw"


def _inline_contradictions(mail: Mail) -> Iterable[tuple[str, str]]:
    seen: set[str] = set()
    for index, attachment in enumerate(mail.attachments):
        if attachment.inline_id is not None:
            if attachment.inline_id in seen:
                yield f"attachments[{index}].inline_id", "is another attachment's too; the HTML could show only one"
            seen.add(attachment.inline_id)
