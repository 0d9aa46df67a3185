"""Asking a `care` worker for what only a worker can do: what is asked lies sealed in Redis, a nudge says so, and what
the worker says comes back as it goes on.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar
from uuid import UUID

from postroom.front.access import Access
from postroom.front.nudges import broker_answers
from postroom.producer import names
from postroom.producer.errors import BrokerUnavailable, Refused

_LOOK_SECONDS: Final = 1.0

T = TypeVar("T")


@contextmanager
def asked(
    access: Access, task: str, request_id: UUID, *, request_key: str, answers_key: str, sealed: bytes, seconds: int
) -> Iterator[None]:
    """Ask within the block; afterwards a late worker finds nothing to do.

    Args:
        access: where Redis and the workers are.
        task: the worker's task, which gets the id.
        request_id: of this request.
        request_key: the Redis key under which `sealed` is laid, for so many seconds.
        answers_key: the Redis key where the worker answers.
        sealed: what is asked.
        seconds: how long a worker may find it.

    Raises:
        BrokerUnavailable: Redis did not answer.
    """
    with broker_answers():
        access.redis.set(request_key, sealed, ex=seconds)
        try:
            access.nudges.ask(task, names.QUEUE_CARE, [str(request_id)], expires_seconds=seconds)
            yield
        finally:
            with suppress(BrokerUnavailable), broker_answers():
                access.redis.delete(request_key, answers_key)


def answers(
    access: Access,
    request_key: str,
    look: Callable[[float], Sequence[T]],
    *,
    worker_seconds: float,
    silent_seconds: float,
    not_taken: Refused,
    silent: Refused,
) -> Iterator[T]:
    """What the worker says, until the caller has heard enough.

    Args:
        access: where Redis is.
        request_key: what a worker takes away when it begins.
        look: reads what is new, and waits for it for so many seconds.
        worker_seconds: how long to wait for a worker.
        silent_seconds: how long to wait between two answers.
        not_taken: raised when no worker took the request; it is withdrawn.
        silent: raised when the worker that took it said nothing more.
    """
    taken = False
    until = time.monotonic() + worker_seconds
    while True:
        found = look(max(0.01, min(until - time.monotonic(), _LOOK_SECONDS)))
        yield from found
        if found:
            taken = True
            until = time.monotonic() + silent_seconds
        elif time.monotonic() >= until:
            if taken:
                raise silent
            if access.redis.delete(request_key) == 1:
                raise not_taken
            taken = True  # at the last moment
            until = time.monotonic() + silent_seconds
