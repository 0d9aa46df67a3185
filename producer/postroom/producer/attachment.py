"""Attachments: files that go with a mail, and images that its HTML shows."""

import mimetypes
import re
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator

from postroom.producer.checking import Checked, Content, Line

OCTET_STREAM: Final = "application/octet-stream"

_WORD: Final = r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+"
_MEDIA_TYPE: Final = re.compile(rf"""{_WORD}/{_WORD}(?: *; *{_WORD}=(?:{_WORD}|"[ !#-\[\]-~]*"))*""")
"""RFC 2045 §5.1, with parameters such as ``text/calendar; method=REQUEST``."""
_LONGEST_MEDIA_TYPE: Final = 500
_LONGEST_FILENAME: Final = 1000
_INLINE_ID: Final = re.compile(r"(?!.*=\?)[!-;=?-~]{1,200}")
"""The rest of a Content-ID (RFC 2392); one with ``=?`` in it would be decoded by readers (RFC 2047)."""


def is_media_type(text: str) -> bool:
    """Tell whether this can stand as a Content-Type."""
    return len(text) <= _LONGEST_MEDIA_TYPE and bool(_MEDIA_TYPE.fullmatch(text))


def is_inline_id(text: str) -> bool:
    """Tell whether this can stand between the angle brackets of a Content-ID."""
    return bool(_INLINE_ID.fullmatch(text))


class Attachment(Checked):
    """A file that goes with the mail. With `inline_id` the HTML shows it by ``cid:``."""

    filename: Annotated[Line, Field(min_length=1)]
    content: Annotated[Content, Field(repr=False)]
    content_type: str = ""
    inline_id: str | None = None

    @classmethod
    def from_path(cls, path: str | Path, *, content_type: str = "", inline_id: str | None = None) -> Self:
        """Read a file.

        Raises:
            OSError: it cannot be read.
        """
        path = Path(path)
        return cls(filename=path.name, content=path.read_bytes(), content_type=content_type, inline_id=inline_id)

    @field_validator("filename")
    @classmethod
    def _filename_can_be_seen(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must hold more than spaces")
        if len(value) > _LONGEST_FILENAME:
            raise ValueError(f"must have at most {_LONGEST_FILENAME} characters")
        return value

    @field_validator("inline_id")
    @classmethod
    def _inline_id_is_plain(cls, value: str | None) -> str | None:
        if value is not None and not is_inline_id(value):
            raise ValueError("must be 1 to 200 characters of ASCII, without spaces, angle brackets and =?")
        return value

    @model_validator(mode="before")
    @classmethod
    def _guess_type(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("content_type") and isinstance(value.get("filename"), str):
            guessed, encoding = mimetypes.guess_type(value["filename"])
            return {**value, "content_type": guessed if guessed and not encoding else OCTET_STREAM}
        return value

    @field_validator("content_type")
    @classmethod
    def _type_is_a_media_type(cls, value: str) -> str:
        if not is_media_type(value):
            raise ValueError(f"must be a media type such as image/png, of at most {_LONGEST_MEDIA_TYPE} characters")
        return value
