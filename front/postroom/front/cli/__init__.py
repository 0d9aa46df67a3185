"""The command line. `root` holds the app; each other file holds the commands of one subject."""

import atexit
import errno
import gc
import os
import sys

_GARBAGE_AT = 50_000
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main() -> None:
    """Console script `postroom`: exit 0 done, 1 refused with the reason on stderr, 2 usage, 130 interrupted."""
    # next to nothing of what is imported ever becomes garbage: to look for it there took a quarter of a command's time
    gc.set_threshold(_GARBAGE_AT)
    atexit.register(gc.freeze)
    try:
        try:
            _run()
        except OSError as error:
            if error.errno not in _FULL or error.filename is not None:
                raise
            _give_up(error)
        finally:
            if left := _unwritable():
                _give_up(left)
    except KeyboardInterrupt:  # such as one while importing
        sys.exit(130)


def _unwritable() -> OSError | None:
    """What keeps from being written what is still in the output's buffer."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        return error
    return None


def _give_up(error: OSError) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left at its end
    if error.errno == errno.EPIPE:  # its reader has seen enough
        sys.exit(1)
    sys.exit(f"postroom: the output cannot be written: {error.strerror}")


def _run() -> None:
    from postroom.producer.errors import PostroomError  # noqa: PLC0415 - whatever takes its time can be interrupted

    try:
        from postroom.front.cli.root import make  # noqa: PLC0415 - a bare install has no typer: said below

        make(sys.argv[1:])()
    except PostroomError as error:
        sys.stderr.write(f"postroom: {error}\n")
        sys.exit(1)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "postroom":
            raise
        sys.exit(f"postroom: {missing} is not installed; run: pip install 'postroom[front]'")
