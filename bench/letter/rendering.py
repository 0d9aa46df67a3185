"""Renders the letter with Jinja, which the scratch environment has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from bench.letter import context, recipient

_JINJA: Final = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(["html"]), undefined=StrictUndefined
)
_SUBJECT, _TEXT, _PAGE = (_JINJA.get_template(name) for name in ("subject.txt", "text.txt", "page.html"))


@dataclass(frozen=True, slots=True)
class Letter:
    """What one recipient gets."""

    to: str
    subject: str
    text: str
    html: str


def rendered(number: int) -> Letter:
    """The letter of this number."""
    values = context(number)
    return Letter(recipient(number), _SUBJECT.render(values), _TEXT.render(values), _PAGE.render(values))
