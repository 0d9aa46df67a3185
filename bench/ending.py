"""A bench that is interrupted stops what it started, and says no more than that."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def ends_well() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as Ctrl-C does; a second signal does not disturb that."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, _frame: object) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(number)

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
