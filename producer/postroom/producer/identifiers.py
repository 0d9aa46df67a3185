"""Identifiers: UUIDv7 (RFC 9562 §5.7), in order of time within a process, and UUIDv5 for mails that have a key."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Final, overload
from uuid import UUID, uuid5

_KEYED: Final = UUID("5f1c6a3e-7b0d-5c52-9a54-7f6f0f2b9d11")
"""Namespace of keyed ids. It must never change: a key would then be taken for a new one."""

_guard = threading.Lock()
# A child forked while another thread is in `uuid7` would find the guard taken for good.
os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_guard.release)
_last = 0


def uuid7() -> UUID:
    """A new UUIDv7; each is greater than the one before it in this process, also within one millisecond."""
    global _last  # noqa: PLW0603 - the order within a process needs one place that remembers
    milliseconds = time.time_ns() // 1_000_000
    fresh = (milliseconds << 80) | int.from_bytes(os.urandom(10))
    with _guard:
        if fresh >> 80 <= _last >> 80:
            fresh = _last + ((1 + int.from_bytes(os.urandom(4))) << 6)
        _last = fresh
    return UUID(int=_marked(fresh))


def keyed_id(producer: str, key: str) -> UUID:
    """The id of the mail that this producer hands over under this key, however often it does so."""
    return uuid5(_KEYED, f"{producer}\0{key}")


def _marked(value: int) -> int:
    """Put version 7 and the variant over 48 bits of time and the 74 highest of the rest."""
    time_bits, rest = value >> 80, value & ((1 << 80) - 1)
    high, low = rest >> 68, (rest >> 6) & ((1 << 62) - 1)
    return (time_bits << 80) | (7 << 76) | (high << 64) | (0b10 << 62) | low


class Ids(Sequence[UUID]):
    """Ids in their order, 16 bytes each: those of a million mails take 16 MB, where a list would take 100."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, one: UUID) -> None:
        """Put one at the end."""
        self._bytes += one.bytes

    def __len__(self) -> int:
        return len(self._bytes) // 16

    @overload
    def __getitem__(self, place: int) -> UUID: ...
    @overload
    def __getitem__(self, place: slice) -> list[UUID]: ...
    def __getitem__(self, place: int | slice) -> UUID | list[UUID]:
        if isinstance(place, slice):
            return [self[each] for each in range(len(self))[place]]
        start = range(0, len(self._bytes), 16)[place]
        return UUID(bytes=bytes(self._bytes[start : start + 16]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} ids>"
