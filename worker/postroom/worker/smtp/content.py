"""A letter's bytes as SMTP carries them: line ends (RFC 5321 §2.3.8) and dots (§4.5.2)."""

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")


def wire_content(content: bytes) -> bytes:
    """The letter as SMTP carries it: CRLF at every line's end and nowhere else a CR or LF.

    A bare CR or LF that some server takes for a line's end is how one letter is made to pass for two
    (RFC 5321 §2.3.8; "SMTP smuggling", CVE-2023-51764).
    """
    lines = content.count(b"\r\n")
    if lines != content.count(b"\n") or lines != content.count(b"\r"):
        content = _LINE_END.sub(b"\r\n", content)
    return content if content.endswith(b"\r\n") or not content else content + b"\r\n"


def stuffed(content: bytes) -> bytes:
    """Content with a dot before each line that begins with one (RFC 5321 §4.5.2)."""
    if b"\r\n." in content:
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content
