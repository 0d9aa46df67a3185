"""Having a worker erase an address (design §9): rejected jobs are sealed, and only workers open them."""

from typing import Any, Final

from postroom.front.access import Access
from postroom.front.asking import answers, asked
from postroom.producer import names
from postroom.producer.errors import Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import erase_by_address as by_address
from postroom.worker.erase_by_address import Answer, Erased

WORKER_SECONDS: Final = 10.0
"""How long a worker may take to take the request."""
SILENT_SECONDS: Final = 180.0
"""How long a worker may say nothing while it erases."""
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
    sealed = access.public_key.seal(address.encode(), by_address.request_identity(request_id))
    request, answer = by_address.request_key(request_id), by_address.answer_key(request_id)
    with asked(
        access,
        names.TASK_ERASE,
        request_id,
        request_key=request,
        answers_key=answer,
        sealed=sealed,
        seconds=by_address.REQUEST_SECONDS,
    ):
        for told in answers(
            access,
            request,
            lambda seconds: _look(access, answer, seconds),
            worker_seconds=worker_seconds,
            silent_seconds=silent_seconds,
            not_taken=Refused(_NO_WORKER.format(worker_seconds)),
            silent=Refused(_SILENT.format(silent_seconds)),
        ):
            if told.erased is not None:
                return told.erased
            if told.why:
                raise Refused(f"not everything was erased: {told.why}")
    raise AssertionError("answers end by what was erased, or by an error")


def _look(access: Access, answer: str, seconds: float) -> list[Answer]:
    found: Any = access.redis.blpop([answer], timeout=seconds)
    return [Answer.from_json(found[1])] if found else []
