"""Pacing: how often a lane is nudged that is found idle with ready mail time after time.

Its nudge was lost, and must be made again soon; or it waits behind those of lanes whose servers are silent, and each
further one would only stand behind it as well. So it is made again at growing pauses.
"""

import threading
from collections.abc import Mapping
from typing import Final
from uuid import UUID

_FIRST_PAUSE_SECONDS: Final = 0.9
"""A little less than it takes until somebody looks again."""
_LONGEST_PAUSE_SECONDS: Final = 8.0


class Pacing:
    """What one process has nudged, and when it nudges it again. It is forgotten when it is found idle no more, or with
    another mail that would leave next: it was served meanwhile, or something more urgent came.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._next: dict[tuple[UUID, UUID], tuple[float, float]] = {}

    def due(self, idle: Mapping[UUID, UUID], at_seconds: float) -> list[UUID]:
        """Those of the lanes found idle that are to be nudged now.

        Args:
            idle: all of them, each with the mail that would leave next.
            at_seconds: now, of `time.monotonic`.
        """
        with self._guard:
            before, self._next = self._next, {}
            nudged = []
            for lane, first in idle.items():
                due_at, pause_seconds = before.get((lane, first), (at_seconds, _FIRST_PAUSE_SECONDS))
                if due_at <= at_seconds:
                    nudged.append(lane)
                    due_at = at_seconds + pause_seconds
                    pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
                self._next[lane, first] = (due_at, pause_seconds)
            return nudged
