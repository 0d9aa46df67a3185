"""A site that hands its letters over, rendered."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import django

from bench.letter.rendering import Letter
from bench.producing import serve
from bench.system import Priority

_PRIORITIES: Final = {"high": "high", "normal": "medium", "bulk": "low"}
_BATCH: Final = 100


def _given(letter: Letter, priority: Priority) -> dict[str, Any]:
    return {
        "sender": letter.sender,
        "recipients": letter.to,
        "subject": letter.subject,
        "message": letter.text,
        "html_message": letter.html,
        "priority": _PRIORITIES[priority],
    }


def main() -> None:
    """Serve as `bench.producing` tells."""
    django.setup()
    from post_office import mail  # noqa: PLC0415 - it asks for a Django that is set up

    def single(letter: Letter, priority: Priority) -> None:
        mail.send(**_given(letter, priority))

    def many(letters: Iterator[Letter], priority: Priority) -> None:
        while batch := [_given(letter, priority) for letter in islice(letters, _BATCH)]:
            mail.send_many(batch)

    serve(single, many)


if __name__ == "__main__":
    main()
