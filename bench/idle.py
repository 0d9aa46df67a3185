"""What `postroom up` costs while nothing is sent."""

import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import cost
from bench.house import settings_in_force
from bench.sink import HOST
from postroom.front import house

ALL: Final = "all"
_SETTLES_IN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Idle:
    """By process, and for `all`: its share of one core, in per cent, and its memory."""

    cpu_percent: dict[str, float]
    memory_mib: dict[str, float]


def measured(folder: Path, *, seconds: float) -> Idle:
    """Look at it for so long, on SQLite and with everything at its default."""
    folder.mkdir()
    with socket.create_server((HOST, 0)) as free:
        flower = f"{HOST}:{free.getsockname()[1]}"
    settings = settings_in_force(data_dir=folder / "data", flower_bind=flower)
    with house.started(settings, log=folder / "up.log") as running:
        pids = {ALL: running.process.pid, **running.programs}
        time.sleep(_SETTLES_IN_SECONDS)
        before = cost.processor_ms(pids)
        time.sleep(seconds)
        after = cost.processor_ms(pids)
        percent = {name: (after[name] - before[name]) / seconds / 10 for name in pids}
        return Idle(percent, cost.memory_mib(pids))
