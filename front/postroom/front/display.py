"""What the operator sees of the children: whole lines, each with its program's name. Never blocks, never fails.

A terminal that is held (Ctrl-S), a reader that is slow and a terminal that went away must not stop a worker. So lines
that cannot be written now wait in a bounded buffer, what does not fit is counted and left out, and what can never be
written is dropped.
"""

import os
import stat
from collections import deque
from contextlib import suppress
from typing import Final

_LONGEST_LINE_BYTES: Final = 64 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
_CHUNK_BYTES: Final = 16 * 1024
_COLOURS: Final = (36, 32, 33, 35, 34, 96, 92)
_NO_CONTROLS: Final = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")
"""A log line may quote what a stranger sent: no escape sequence of his reaches the terminal. Tabs stay."""


class Lines:
    """Cuts a stream of bytes into lines. A line longer than 64 KiB is cut there."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LONGEST_LINE_BYTES:
            lines.append(self._rest[:_LONGEST_LINE_BYTES])
            self._rest = self._rest[_LONGEST_LINE_BYTES:]
        return lines

    def last(self) -> list[bytes]:
        """The line that never got its end, if there is one."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class Display:
    """Writes named lines to a file descriptor.

    Args:
        descriptor: where to, such as 1. It is left open and as it was.
        names: every name that will be used, for the width and colour of the first column.
    """

    def __init__(self, descriptor: int, names: list[str]) -> None:
        self._descriptor = _open_without_blocking(descriptor)
        self._gone = False
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._left_out = 0
        coloured = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
        width = max(map(len, names))
        self._prefixes = {
            name: f"\x1b[{_COLOURS[place % len(_COLOURS)]}m{name:<{width}} |\x1b[0m "
            if coloured
            else f"{name:<{width}} | "
            for place, name in enumerate(names)
        }

    @property
    def stuck_on(self) -> int | None:
        """The descriptor that lines wait for: call `flush` when it can be written. None if none wait."""
        return self._descriptor if self._waiting else None

    def show(self, name: str, line: str | bytes) -> None:
        """Show one line of a program."""
        text = line.decode("utf-8", "replace") if isinstance(line, bytes) else line
        self._add(self._prefixes[name] + text.rstrip("\r").translate(_NO_CONTROLS))
        self.flush()

    def flush(self) -> None:
        """Write what can be written without waiting."""
        while self._waiting:
            chunk = self._waiting.popleft()
            try:
                written = os.write(self._descriptor, chunk[:_CHUNK_BYTES])
            except BlockingIOError:
                self._waiting.appendleft(chunk)
                return
            except OSError:  # EIO, EPIPE: nobody sees it any more
                self._give_up()
                return
            self._waiting_bytes -= written
            if written < len(chunk):
                self._waiting.appendleft(chunk[written:])
        if self._left_out:
            self._add_notice()
            self.flush()

    def _give_up(self) -> None:
        """Drop all lines from now on. The descriptor stays open: a number used anew would confuse who watches it."""
        self._gone = True
        self._waiting.clear()
        self._waiting_bytes = 0

    def _add(self, text: str) -> None:
        line = text.encode("utf-8", "replace") + b"\n"
        if self._gone:
            return
        if self._waiting_bytes + len(line) > _BUFFER_BYTES:
            self._left_out += 1
            return
        if self._left_out:
            self._add_notice()
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _add_notice(self) -> None:
        notice = f"({self._left_out} lines left out: the terminal was too slow)\n".encode()
        self._left_out = 0
        self._waiting.append(notice)
        self._waiting_bytes += len(notice)


def _open_without_blocking(descriptor: int) -> int:
    """A descriptor of our own that does not block, where there is such a thing.

    O_NONBLOCK belongs to the open file and not to the descriptor: set on a terminal it would change the shell's too.
    So a terminal or a pipe is opened anew (Linux lets us); files do not block, and the rest is taken as it is.
    """
    if os.isatty(descriptor) or stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return os.dup(descriptor)
