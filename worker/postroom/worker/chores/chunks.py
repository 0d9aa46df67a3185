"""Long work of a chore in short transactions: on SQLite, drains wait for each of them."""

import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from postroom.worker.process import Process

LONGEST_SECONDS: Final = 30.0


def in_chunks(process: Process, step: Callable[[Connection], int], *, chunk: int) -> int:
    """Take a step, each in a transaction of its own, until one finds less than a chunk or the chore's time is over.

    Returns:
        How much was found in all.
    """
    until = time.monotonic() + LONGEST_SECONDS
    total = 0
    while True:
        with process.database.write() as connection:
            found = step(connection)
        total += found
        if found < chunk or time.monotonic() >= until or process.stopping.is_set():
            return total
