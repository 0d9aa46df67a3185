"""The data folder and who works in it: one `postroom up` at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from postroom.producer.errors import Refused

_LOCK: Final = "up.lock"
_PID_SECONDS: Final = 1.0


@contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Make the folder if it is missing and hold it alone.

    The lock is the kernel's (flock): it ends with its process, so a file that a power cut left behind is no lock.

    Raises:
        Refused: the folder cannot be written, or another `postroom up` holds it; the message names its pid.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(data_dir, error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(
                f"{data_dir.resolve()}: `postroom up` runs in this folder already, pid {_holder(descriptor)}. "
                "Stop that one first, or set POSTROOM_DATA_DIR to another folder"
            ) from None
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # a full disk
            raise _unwritable(data_dir, error) from None
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """The pid in the file; its holder may be about to write it."""
    until = time.monotonic() + _PID_SECONDS
    while not (pid := os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()) and time.monotonic() < until:
        time.sleep(0.01)
    return pid or "unknown"


def _unwritable(data_dir: Path, error: OSError) -> Refused:
    return Refused(
        f"{data_dir.resolve()}: the data folder cannot be written ({error.strerror}). Let this user write there, "
        "or set POSTROOM_DATA_DIR to another folder"
    )
