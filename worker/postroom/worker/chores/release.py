"""Release: held mail whose cause is gone leaves by itself, and what waits in a lane that cannot send it is chosen anew.

It moves them in small transactions, so that other lanes go on, and each part in its turn, so that a few mails do not
wait for many thousand others.
"""

import time
from collections import deque
from typing import Final
from uuid import UUID

from postroom.worker import lanes, misplaced
from postroom.worker.misplaced import Part
from postroom.worker.process import Process

_LONGEST_SECONDS: Final = 1.5
_LEAST_AT_ONCE: Final = 20


def release(process: Process) -> int:
    """Choose anew until nothing is left, or for a bounded time and then ask for itself again; returns how many moved.

    One at a time in a process; two processes may do it at once.
    """
    if not process.releasing.acquire(blocking=False):
        return 0
    try:
        return _release(process)
    finally:
        process.releasing.release()


def _release(process: Process) -> int:
    with process.database.read() as connection:
        parts = misplaced.find(connection)
    until = time.monotonic() + _LONGEST_SECONDS
    moved = 0
    while parts and time.monotonic() < until and not process.stopping.is_set():
        ids, parts = _next(process, parts)
        if not ids:
            continue
        with process.database.write() as connection:
            placed = lanes.place(connection, ids)
        moved += placed.moved
        for account_id in placed.accounts:
            process.nudges.drain(account_id)
    if parts and moved and not process.stopping.is_set():
        process.nudges.release()
    return moved


def _next(process: Process, parts: list[Part]) -> tuple[list[UUID], list[Part]]:
    """The mails of one transaction, and what is left: parts that go on have to wait for the others."""
    share = max(_LEAST_AT_ONCE, lanes.MOST_AT_ONCE // len(parts))
    ids: list[UUID] = []
    waiting = deque(parts)
    go_on: list[Part] = []
    with process.database.read() as connection:
        while waiting and len(ids) + share <= lanes.MOST_AT_ONCE:
            found, part = waiting.popleft().take(connection, share)
            ids += found
            if part is not None:
                go_on.append(part)
    return ids, [*waiting, *go_on]
