"""What is made of a file, made anew when the file changes: a worker lives longer than a certificate."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

from postroom.producer.errors import SettingsInvalid

T = TypeVar("T")

_LOOK_SECONDS: Final = 3.0
_State: TypeAlias = tuple[int, int, int, int] | None

log = structlog.get_logger(__name__)


class Following(Generic[T]):
    """Follows a file. For all threads.

    Args:
        file: None: there is none, and what was made stays.
        make: reads the file.

    Raises:
        SettingsInvalid: `make` raised it. Later it is logged, once a change, and what was made before stays in use.
    """

    def __init__(self, file: Path | None, make: Callable[[], T]) -> None:
        self._file = file
        self._make = make
        self._lock = threading.Lock()
        self._state = self._look()
        self._made = make()

    def now(self) -> T:
        """What was made of the file as it was a few seconds ago at the most."""
        if self._file is None or time.monotonic() < self._look_at:
            return self._made
        with self._lock:
            before, self._state = self._state, self._look()
            if self._state != before:
                try:
                    self._made = self._make()
                    log.info("read a changed file anew", file=str(self._file))
                except SettingsInvalid as error:
                    log.warning("a changed file cannot be used; what it held before stays in use", why=str(error))
            return self._made

    def _look(self) -> _State:
        """What changes with the file; None: it is not there. Its content is read after this, never before."""
        self._look_at = time.monotonic() + _LOOK_SECONDS
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
