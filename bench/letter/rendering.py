"""Renders the letter with Jinja, which the scratch environment has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from bench.letter import context, recipient, sender

_JINJA: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["html"]), undefined=StrictUndefined
)
_SUBJECT, _TEXT, _PAGE = (_JINJA.get_template(name) for name in ("subject.txt", "text.txt", "page.html"))


@dataclass(frozen=True, slots=True)
class Letter:
    """What one recipient gets."""

    sender: str
    to: str
    subject: str
    text: str
    html: str


def rendered(number: int, senders: tuple[int, int]) -> Letter:
    """The letter of this number, from one of the senders with these numbers and those between."""
    values = context(number)
    first, last = senders
    by = sender(first + number % (last - first + 1))
    return Letter(by, recipient(number), _SUBJECT.render(values), _TEXT.render(values), _PAGE.render(values))
