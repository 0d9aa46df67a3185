"""Having a worker prove an account, and telling each of its steps as it ends (design §6)."""

from collections.abc import Callable, Iterator
from typing import Any, Final
from uuid import UUID

from postroom.config.accounts import Account
from postroom.front.access import Access
from postroom.front.asking import answers, asked
from postroom.producer import names
from postroom.producer.errors import Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import verify
from postroom.worker.verify import Progress

WORKER_SECONDS: Final = 10.0
"""How long a worker may take to take the proof."""
STEP_SECONDS: Final = 180.0
"""How long a worker may be silent between two steps."""
_NO_WORKER: Final = (
    "No `care` worker took the proof within {:g} s. Is one running? `postroom up` starts one among the rest, "
    "`postroom worker care` starts it alone."
)


class NotProved(Refused):
    """An account was not proved, and nothing was stored.

    Attributes:
        step: where it failed: `worker`, or one of the session's steps.
        why: what happened, the server's reply and what to do about it, in one text.
    """

    def __init__(self, step: str, why: str) -> None:
        self.step = step
        self.why = why
        super().__init__(f"not proved, and nothing was changed. {why}")


def prove(
    access: Access,
    candidate: Account,
    tell: Callable[[Progress], None],
    *,
    worker_seconds: float = WORKER_SECONDS,
    step_seconds: float = STEP_SECONDS,
) -> None:
    """Have a worker prove that the candidate can send.

    Args:
        access: where Redis and the workers are.
        candidate: the account, its password sealed as it will be stored.
        tell: told of each step; the last one is `done`.
        worker_seconds: how long to wait for a worker.
        step_seconds: how long to wait between two steps.

    Raises:
        NotProved: no worker took the proof, or a step failed.
        BrokerUnavailable: Redis did not answer.
    """
    proof_id = uuid7()
    sealed = access.public_key.seal(verify.candidate_to_json(candidate), verify.candidate_identity(proof_id))
    failed = "worker"
    with asked(
        access,
        names.TASK_VERIFY,
        proof_id,
        request_key=verify.candidate_key(proof_id),
        answers_key=verify.steps_key(proof_id),
        sealed=sealed,
        seconds=verify.CANDIDATE_SECONDS,
    ):
        for progress in _steps(access, proof_id, worker_seconds, step_seconds):
            tell(progress)
            if progress.step == "done":
                break
            failed = failed if progress.ok else progress.step
    if not progress.ok:
        hint = "" if progress.hint in progress.detail else f" {progress.hint}"
        raise NotProved(failed, f"{progress.detail}{hint}")


def _steps(access: Access, proof_id: UUID, worker_seconds: float, step_seconds: float) -> Iterator[Progress]:
    stream = verify.steps_key(proof_id)
    last = "0"

    def look(seconds: float) -> list[Progress]:
        nonlocal last
        access.redis.xread({stream: last}, block=max(1, int(seconds * 1000)))
        found: Any = access.redis.xrange(stream, min=f"({last}")
        if found:
            last = found[-1][0].decode()
        return [Progress.from_json(fields[b"progress"]) for _, fields in found]

    return answers(
        access,
        verify.candidate_key(proof_id),
        look,
        worker_seconds=worker_seconds,
        silent_seconds=step_seconds,
        not_taken=NotProved("worker", _NO_WORKER.format(worker_seconds)),
        silent=NotProved("worker", f"The worker said nothing for {step_seconds:g} s; it may have died."),
    )
