"""Header fields that a producer may give: which names, and which values a line can hold (design §9)."""

import re
from typing import Final
from urllib.parse import quote

LONGEST_LINE_BYTES: Final = 998
"""No line of a letter may be longer, without CRLF (RFC 5322 §2.1.1)."""
PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
"""ASCII that stands for itself in a URL, whether or not a URL may hold it: what is escaped already stays as it is."""

_NAME: Final = re.compile(r"[!-9;-~]{1,76}")
"""RFC 5322 §3.6.8, ftext; the length leaves room on a line for a value."""
_OWN: Final = re.compile(
    r"from|sender|to|cc|bcc|return-path|message-id|date|received|subject|reply-to|(resent|mime|content|dkim)-.*",
    re.IGNORECASE,
)
# Fields whose value is a grammar of its own: an encoded word may stand for a phrase in it, never inside `<…>`.
_STRUCTURED: Final = re.compile(
    r"list-.*|references|in-reply-to|auto-submitted|archived-at|feedback-id|precedence|importance|"
    r"disposition-notification-to|return-receipt-to|errors-to",
    re.IGNORECASE,
)
_TOKENS: Final = re.compile(r"(?:<[^<>]*>|[^\s<]|<)+")
_SHORT_VALUE: Final = 70
"""No value of so many characters can become a word too long for a line, at 12 bytes for each."""


def is_structured(name: str) -> bool:
    """Tell whether the value of a field is a grammar of its own, such as a list of URLs, rather than free text."""
    return bool(_STRUCTURED.fullmatch(name))


def name_problem(name: str) -> str | None:
    """Say why this is no name of a header field, if it is none."""
    return None if _NAME.fullmatch(name) else f"{name[:80]!r} is no header name"


def field_problem(name: str, value: str) -> str | None:
    """Say why a field with a right name and a value without line breaks cannot be given, if it cannot.

    Free text folds anywhere, as encoded words do. What has a grammar of its own folds at its spaces alone.
    """
    if _OWN.fullmatch(name):
        return "is written by Postroom and cannot be given here"
    if len(value) <= _SHORT_VALUE or not is_structured(name):
        return None
    longest = LONGEST_LINE_BYTES - len(f"{name}: ")
    if max((len(quote(token, safe=PRINTABLE)) for token in _TOKENS.findall(value)), default=0) > longest:
        return f"holds a word of more than {longest} bytes, which no line of a letter can hold (RFC 5322 §2.1.1)"
    return None
