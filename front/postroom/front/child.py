"""The side of a part that runs: say that its work has begun and goes on, and do not outlive whoever started it."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from postroom.producer.errors import Refused

READY_FD: Final = "POSTROOM_READY_FD"
"""Environment: number of the pipe on which a child says, by one byte, that it does its work now."""
SUPERVISOR_PID: Final = "POSTROOM_SUPERVISOR_PID"
"""Environment: process id of the supervisor that a child must not outlive."""
ALIVE_FILE: Final = "POSTROOM_ALIVE_FILE"
"""Environment: a file whose time a worker or the scheduler renews every few seconds while it does its work."""

_PR_SET_PDEATHSIG: Final = 1
_PARENT_CHECK_SECONDS: Final = 1.0
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def say_ready() -> None:
    """Tell the supervisor, if there is one, that this process does its work now. Saying it again is harmless."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is not None:
        with suppress(OSError):  # the supervisor went away: nobody to tell
            os.write(int(descriptor), b"\n")
            os.close(int(descriptor))


def alive_teller() -> Callable[[], None]:
    """What to call while the work goes on: it renews the time of the file of POSTROOM_ALIVE_FILE, if that is set.

    Until the first call the file is as old as can be.

    Raises:
        Refused: the file cannot be written.
    """
    given = os.environ.get(ALIVE_FILE)
    if not given:
        return lambda: None
    path = Path(given)
    try:
        path.touch()
        os.utime(path, (0, 0))
    except OSError as error:
        raise Refused(f"{ALIVE_FILE}={given}: cannot be written: {error.strerror}") from None

    def tell() -> None:
        with suppress(OSError):  # its age tells
            path.touch()

    return tell


def follow_supervisor(by: signal.Signals = signal.SIGKILL) -> None:
    """Arrange that this process ends when its supervisor, if it has one, ends without stopping it.

    On Linux the kernel sees to it; elsewhere a thread asks once a second who the parent is.

    Args:
        by: the signal to end with. SIGTERM is for who has children to stop.
    """
    supervisor = os.environ.pop(SUPERVISOR_PID, None)
    if supervisor is None:
        return
    if _libc is not None:
        dying_with(int(supervisor), by)()
    else:
        threading.Thread(target=_watch_parent, args=(int(supervisor), by), name="parent-watch", daemon=True).start()


def dying_with(parent_pid: int, by: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a new process runs before its program so that the death of its parent ends it too (Linux, prctl(2)).

    Args:
        parent_pid: the process that starts it; it must do so from its main thread, since the kernel watches that.
        by: the signal that the kernel sends.
    """

    def arrange() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(by))
            if os.getppid() != parent_pid:  # it died before the line above
                os.kill(os.getpid(), by)

    return arrange


def _watch_parent(supervisor: int, by: signal.Signals) -> None:
    never = threading.Event()
    while os.getppid() == supervisor:
        never.wait(_PARENT_CHECK_SECONDS)
    os.kill(os.getpid(), by)
