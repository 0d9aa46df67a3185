"""A reply as people paste it, out of a log, a bounce or a traceback → a `Reply`."""

import re
from collections.abc import Iterator
from typing import Final

from postroom.worker.smtp.replies import Reply, reply_of_texts

_READ_CHARACTERS: Final = 100_000
_LINE = re.compile(r"(?<![\w.])([2-5]\d\d)(?:[ -]|, ?b?['\"]|(?=\s*$))")
_CODE_FIRST = re.compile(r"\s*[2-5]\d\d(?:[ -]|\s*$)")
_ENHANCED = re.compile(r"(?<![\w.])([245])\.\d{1,3}\.\d{1,3}(?![\w.])")
_DIAGNOSTIC_CODE = re.compile(
    r"^[ \t>-]{0,9}Diagnostic-Code:[ \t]{0,9}[\w-]{1,20}[ \t]{0,9};(.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE
)
"""RFC 3464 §2.3.6, folded over lines."""
_LEAD = re.compile(
    r"(?:\b(?:said|returned|response|reason|got|from server)|-> client"
    r"|remote mail server after [a-z ]{1,30}(?::<[^>\n]{0,320}>)?(?: SIZE=\d{1,9})?)"
    r":? {0,2}\s?(?:host \S{1,255} \[[0-9a-f:.]{2,45}\]: ?)?['\"(]?(?=[2-5]\d\d[ -])",
    re.IGNORECASE,
)
"""What Postfix, Exim, Exchange and mailing libraries write before a server's reply."""
_COMMAND = re.compile(
    r"(?:in reply to|after|for|command:) (?:the )?(?:pipelined )?['\"]?"
    r"(initial connection|ehlo|helo|starttls|auth|mail from|rcpt to|end of data|data|text command)\b",
    re.IGNORECASE,
)
_COMMAND_OF_WORDS: Final = {
    "initial connection": "greeting",
    "mail from": "MAIL",
    "rcpt to": "RCPT",
    "end of data": ".",
    "text command": ".",
}
_CODE_OF_CLASS: Final = {"2": 250, "4": 450, "5": 550}


def parse_pasted(text: str) -> Reply:
    """The reply in a pasted text: one line or several, or an enhanced code alone.

    Its command is what the text says that it answered, such as "(in reply to RCPT TO command)", else empty.

    Raises:
        ValueError: no reply code is in it.
    """
    text = text[:_READ_CHARACTERS].replace("\\r\\n", "\n").replace("\\n", "\n")
    found = _COMMAND.search(text)
    words = found[1].lower() if found else ""
    command = _COMMAND_OF_WORDS.get(words, words.upper())
    for part in _likeliest_first(text):
        if (reply := _first_reply(part, command)) is not None:
            return reply
    if enhanced := _ENHANCED.search(text):
        return reply_of_texts(_CODE_OF_CLASS[enhanced[1]], [text[enhanced.start() :]], command)
    raise ValueError('no reply code in this text; paste it whole, such as "550 5.1.1 User unknown"')


def _likeliest_first(text: str) -> Iterator[str]:
    """Where the reply may stand: what comes before it is somebody's log, with ports, sizes and dates of its own."""
    if found := _DIAGNOSTIC_CODE.search(text):
        yield found[1]
    elif not _CODE_FIRST.match(text) and (found := _LEAD.search(text)):
        yield text[found.end() :]
    yield text


def _first_reply(text: str, command: str) -> Reply | None:
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    for number, line in enumerate(lines):
        if found := _LINE.search(line):
            code = int(found[1])
            first, others = line[found.end() :], lines[number + 1 :]
            bare = [re.sub(rf"^{code}[ -]", "", other) for other in others]  # each line of a reply repeats its code
            if bare == others:  # or they were joined on the way: "550-5.1.1 No 550 5.1.1 such user"
                bare = [part for each in (first, *others) for part in re.split(rf"\s{code}[ -](?=[245]\.\d)", each)]
                return reply_of_texts(code, bare, command)
            return reply_of_texts(code, [first, *bare], command)
    return None
