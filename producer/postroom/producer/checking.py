"""What every part of a mail is built on: it is checked when it is made, and an error names the field.

Fields are named as their writer knows them: ``to[1]``, ``attachments[0].filename``, ``headers.X-Shop``.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
)

from postroom.producer.errors import InvalidMail

_NOT_IN_A_LINE: Final = re.compile("[\r\n\0\ud800-\udfff]")
_NOT_IN_A_TEXT: Final = re.compile("[\0\ud800-\udfff]")


class Checked(BaseModel):
    """Base of `Mail` and its parts: unknown fields are refused, and nothing changes after the check.

    Raises:
        InvalidMail: with `.field` and `.why`; never pydantic's own error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    if not TYPE_CHECKING:  # type checkers see the fields of each class, by pydantic's plugin

        def __init__(self, /, **fields: Any) -> None:
            """Check all fields."""
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise invalid(error) from None

        # Parts inside a mail are then checked without a detour through here, which keeps their place in the error.
        __init__.__pydantic_base_init__ = True

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Check what may be this, such as a dict or, for an address, text."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as error:
            raise invalid(error) from None


def invalid(error: ValidationError) -> InvalidMail:
    """Say pydantic's findings in Postroom's words."""
    return InvalidMail([problem for each in error.errors(include_url=False) for problem in _problems(each)])


def _problems(error: Any) -> Iterator[tuple[str, str]]:
    field = _field(error["loc"])
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidMail):
        for inner, why in cause.problems:
            yield f"{field}.{inner}" if field else inner, why
    else:
        yield field or "mail", str(cause) if cause is not None else _in_words(error)


def _in_words(error: Any) -> str:
    if error["type"] in {"too_short", "string_too_short"} and error["ctx"]["min_length"] == 1:
        return "must not be empty"
    said: str = error["msg"]
    return said[:1].lower() + said[1:]


def _field(place: tuple[int | str, ...]) -> str:
    field = ""
    for part in place:
        if isinstance(part, int):
            field += f"[{part}]"
        elif part != "[key]":
            field += f".{part}" if field else part
    return field.removesuffix(".address")


def line(text: str) -> str:
    """Check that this can stand in a line.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if _NOT_IN_A_LINE.search(text):
        raise ValueError("must not hold a line break, NUL or half a character")
    return text


def _text(text: str) -> str:
    if ("\0" in text or not text.isascii()) and _NOT_IN_A_TEXT.search(text):
        raise ValueError("must not hold NUL or half a character")
    return text


def _bytes(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise ValueError("must be bytes, or their base64 as text") from None
    return value


def _time(value: Any) -> Any:
    # A number, as such or as text, would be guessed to be seconds or milliseconds.
    if not isinstance(value, datetime) and not (isinstance(value, str) and ":" in value):
        raise ValueError("must be a time with its offset, such as 2026-12-31T09:00:00+03:00")
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is too far away") from None


def json_values(fields: Mapping[str, Any]) -> None:
    """Check that JSON can say all of this.

    Raises:
        ValueError: it cannot: a date, a decimal, NaN, half a character, or a circle.
    """
    try:
        json.dumps(fields, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("must not hold half a character") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"must hold JSON values alone: {error}") from None


Line = Annotated[str, AfterValidator(line)]
"""Text that stands in a header: a line break in it could begin another header (RFC 5322 §2.2)."""

Text = Annotated[str, AfterValidator(_text)]
"""Any text that UTF-8 can say, but NUL, which no letter may hold (RFC 5322 §3.5)."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:@-]{1,64}$")]
"""An owner's or producer's name."""

Time = Annotated[AwareDatetime, BeforeValidator(_time), AfterValidator(_in_utc)]
"""A time, given with its offset, kept in UTC."""

Content = Annotated[
    bytes, BeforeValidator(_bytes), PlainSerializer(lambda value: base64.b64encode(value).decode(), when_used="json")
]
"""Bytes in Python; base64 in JSON."""
