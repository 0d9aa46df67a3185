"""Work done in a process of its own, so that what it imports does not stay in the memory of the one that asks."""

import os
import pickle
import traceback
from collections.abc import Callable

from postroom.producer.errors import PostroomError


def apart(work: Callable[[], None]) -> None:
    """Do it in a child that is forked for it, and wait for its end. This process must have one thread.

    Raises:
        PostroomError: what the work raised.
        RuntimeError: the work ended otherwise; its traceback has been written.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reading)
            status = _told(work, writing)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        refused = told.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if refused:
        raise pickle.loads(refused)  # noqa: S301 - a child of our own wrote it
    if status:
        raise RuntimeError(f"it ended with {status}")


def _told(work: Callable[[], None], writing: int) -> int:
    """The child's exit status."""
    try:
        work()
    except PostroomError as error:
        with os.fdopen(writing, "wb") as answer:
            pickle.dump(error, answer)
    except Exception:  # noqa: BLE001 - nobody above this writes it
        traceback.print_exc()
    else:
        return 0
    return 1
