"""A site that hands its letters to the task. Celery has no way to publish many at once."""

from collections.abc import Iterator
from dataclasses import asdict

from bench.letter.rendering import Letter
from bench.producing import serve
from bench.rivals.naive_celery.tasks import send
from bench.system import Priority


def single(letter: Letter, _priority: Priority) -> None:
    """Publish one task."""
    send.delay(asdict(letter))


def many(letters: Iterator[Letter], priority: Priority) -> None:
    """Publish one task after another."""
    for letter in letters:
        single(letter, priority)


if __name__ == "__main__":
    serve(single, many)
