"""File names as parameters: RFC 2231 for readers that know it, RFC 2047's words for Outlook and other old ones.

A name that ASCII can say is written plainly. Any other stands twice: percent-encoded and continued in `filename` of
Content-Disposition, and in encoded words in `name` of Content-Type: against the letter of RFC 2047, but what Outlook
reads, and what Thunderbird and others write.
"""

import re
from binascii import a2b_base64
from collections.abc import Iterator
from string import ascii_letters, digits
from typing import Final
from urllib.parse import quote

from postroom.worker.letter.headers import FOLD_AT, encoded_words, q_words

_LONGEST_PARAMETER: Final = FOLD_AT - len(" ;")
_WORD_ROOM: Final = FOLD_AT - len(' filename="";')
_SIMPLE: Final = re.compile(rf"[{ascii_letters}{digits} !#$&+.,;:@^_`{{|}}~()\[\]-]+")
_ATTRIBUTE_LITERAL: Final = "!#$&+-.^_`{|}~"
"""RFC 2231 7, less what RFC 5987 3.2.1 leaves out as well."""
_LONGEST_ON_DISK_BYTES: Final = 255
_LONGEST_SUFFIX: Final = 16


def name_parameter(filename: str) -> list[str]:
    """Return `name` of Content-Type; nothing for no name."""
    if not filename:
        return []
    return [f'name="{filename if _is_simple(filename) else _joined(_words(filename))}"']


def filename_parameter(filename: str) -> list[str]:
    """Return `filename` of Content-Disposition; nothing for no name.

    Tools that take encoded words for the name itself, such as munpack, could make no file of a very long one. For them
    a shortened one follows then; readers of RFC 2231 do not look at it.
    """
    if not filename:
        return []
    if _is_simple(filename):
        return [f'filename="{filename}"']
    sections = list(_percent_sections(filename))
    if len(sections) == 1:
        return [f"filename*=utf-8''{sections[0]}"]
    sections[0] = f"utf-8''{sections[0]}"
    parameters = [f"filename*{index}*={section}" for index, section in enumerate(sections)]
    words = _words(filename)
    return [*parameters, f'filename="{_joined(_shortened(filename))}"'] if _is_long(words) else parameters


def _is_simple(filename: str) -> bool:
    return bool(_SIMPLE.fullmatch(filename)) and len(f'filename="{filename}"') <= _LONGEST_PARAMETER


def _words(filename: str) -> list[str]:
    """Encode without `/`, which would begin a folder where the words are taken for the name."""
    words: list[str] = []
    for word in encoded_words(filename, _WORD_ROOM):
        if "/" in word:
            text = a2b_base64(word.removeprefix("=?utf-8?b?").removesuffix("?=")).decode()
            words += q_words(text, _WORD_ROOM)
        else:
            words.append(word)
    return words


def _joined(words: list[str]) -> str:
    return "\r\n ".join(words)


def _is_long(words: list[str]) -> bool:
    return len(_joined(words)) > _LONGEST_ON_DISK_BYTES


def _shortened(filename: str) -> list[str]:
    stem, dot, suffix = filename.rpartition(".")
    if not stem or len(suffix) > _LONGEST_SUFFIX:
        stem, dot, suffix = filename, "", ""
    words = _words(filename)
    while _is_long(words):
        stem = stem[: len(stem) * 7 // 8]
        words = _words(f"{stem}…{dot}{suffix}")
    return words


def _percent_sections(text: str) -> Iterator[str]:
    room = _LONGEST_PARAMETER - len("filename*000*=utf-8''")
    section = ""
    for character in text:
        encoded = quote(character, safe=_ATTRIBUTE_LITERAL)
        if len(section) + len(encoded) > room:  # a character is never split: not every reader joins bytes first
            yield section
            section = ""
        section += encoded
    yield section
