"""Having a worker erase an address (design §9): rejected jobs are sealed, and only workers open them."""

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from postroom.front.access import Access
from postroom.front.nudges import broker_answers
from postroom.producer import names
from postroom.producer.errors import BrokerUnavailable, Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import erase_by_address as asking
from postroom.worker.erase_by_address import Answer, Erased

WORKER_SECONDS: Final = 10.0
"""How long a worker may take to take the request."""
SILENT_SECONDS: Final = 180.0
"""How long a worker may say nothing while it erases."""
_LOOK_SECONDS: Final = 1.0
_NO_WORKER: Final = (
    "nothing was erased: no `care` worker took the request within {:g} s. Is one running? `postroom up` starts one "
    "among the rest, `postroom worker care` starts it alone"
)
_SILENT: Final = "not everything may be erased: the worker said nothing for {:g} s; it may have died. Ask again"


def erase_address(
    access: Access, address: str, *, worker_seconds: float = WORKER_SECONDS, silent_seconds: float = SILENT_SECONDS
) -> Erased:
    """Have a worker erase all that has ended and is from or to an address.

    Args:
        access: where Redis and the workers are.
        address: in any spelling.
        worker_seconds: how long to wait for a worker.
        silent_seconds: how long to wait while it says nothing.

    Raises:
        Refused: no worker took the request, or it could not do all of it.
        BrokerUnavailable: Redis did not answer.
    """
    request_id = uuid7()
    sealed = access.public_key.seal(address.encode(), asking.request_identity(request_id))
    request, answer = asking.request_key(request_id), asking.answer_key(request_id)
    with broker_answers():
        access.redis.set(request, sealed, ex=asking.REQUEST_SECONDS)
        try:
            access.nudges.ask(
                names.TASK_ERASE, names.QUEUE_CARE, [str(request_id)], expires_seconds=asking.REQUEST_SECONDS
            )
            for told in _answers(access, request, answer, worker_seconds, silent_seconds):
                if told.erased is not None:
                    return told.erased
                if told.why:
                    raise Refused(f"not everything was erased: {told.why}")
        finally:
            with suppress(BrokerUnavailable), broker_answers():  # a late worker finds nothing to do
                access.redis.delete(request, answer)
    raise AssertionError("answers end by what was erased, or by an error")


def _answers(
    access: Access, request: str, answer: str, worker_seconds: float, silent_seconds: float
) -> Iterator[Answer]:
    until = time.monotonic() + worker_seconds
    taken = False
    while True:
        left_seconds = until - time.monotonic()
        found: Any = access.redis.blpop([answer], timeout=max(0.01, min(left_seconds, _LOOK_SECONDS)))
        if found:
            taken = True
            until = time.monotonic() + silent_seconds
            yield Answer.from_json(found[1])
        elif time.monotonic() >= until:
            if taken:
                raise Refused(_SILENT.format(silent_seconds))
            if access.redis.delete(request) == 1:
                raise Refused(_NO_WORKER.format(worker_seconds))
            taken = True  # at the last moment
            until = time.monotonic() + silent_seconds
