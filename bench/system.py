"""What the bench sees of a system that sends mail, whichever it is."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from bench.child import Child

Priority = Literal["high", "normal", "bulk"]

_LOOK_SECONDS: Final = 0.005
_SHOWN_CHARACTERS: Final = 2000


@dataclass(frozen=True, slots=True)
class Request:
    """What a producer is asked for; see `bench.producing`."""

    first: int
    count: int
    singly: bool = False
    priority: Priority = "normal"
    senders: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a producer says when it has handed mails over; times are `time.monotonic()`.

    Attributes:
        calls_ms: how long each call took, where they were called one by one.
    """

    began_at: float
    ended_at: float
    calls_ms: list[float]


@dataclass(frozen=True, slots=True)
class System:
    """A running system.

    Attributes:
        name: what the tables call it.
        producer: speaks as `bench.producing` tells.
        pids: name → process id of all its processes, the producer and the stores too.
        all_recorded: whether so many mails, of all handed over since it was started, have a recorded outcome.
        folder: holds its logs.
    """

    name: str
    producer: Child
    pids: Mapping[str, int]
    all_recorded: Callable[[int], bool]
    folder: Path

    def hand_over(self, request: Request) -> HandedOver:
        """Let the producer hand letters over, and wait until it has."""
        self.producer.say(json.dumps(asdict(request)))
        return HandedOver(**json.loads(self.producer.hear()))

    def wait_recorded(self, count: int, timeout_seconds: float) -> float:
        """Wait until so many are recorded.

        Returns:
            `time.monotonic()` of then.

        Raises:
            TimeoutError: they are not in time.
        """
        until = time.monotonic() + timeout_seconds
        while not self.all_recorded(count):
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name}: fewer than {count} mails are recorded")
            time.sleep(_LOOK_SECONDS)
        return time.monotonic()

    @property
    def logs(self) -> str:
        """The end of each log."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text('utf-8', 'replace')[-_SHOWN_CHARACTERS:]}" for log in logs)
