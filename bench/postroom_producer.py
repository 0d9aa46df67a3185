"""A site that hands its letters to Postroom, whose settings are in the environment."""

from collections.abc import Iterator

from bench.letter.rendering import Letter
from bench.producing import serve
from bench.system import Priority
from postroom.producer import Mail, Producer


def _mail(letter: Letter, priority: Priority) -> Mail:
    return Mail(
        from_=letter.sender,
        to=letter.to,
        subject=letter.subject,
        text=letter.text,
        html=letter.html,
        priority=priority,
    )


def main() -> None:
    """Serve as `bench.producing` tells."""
    with Producer() as producer:

        def single(letter: Letter, priority: Priority) -> None:
            producer.enqueue(_mail(letter, priority))

        def many(letters: Iterator[Letter], priority: Priority) -> None:
            producer.enqueue_many(_mail(letter, priority) for letter in letters)

        serve(single, many)


if __name__ == "__main__":
    main()
