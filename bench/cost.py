"""What processes cost: processor time and memory, from /proc. A process counts with all that descend from it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PARENT, _TIMES = 1, slice(11, 15)  # fields of /proc/PID/stat, counted from the state on: proc(5)


def processor_ms(roots: Mapping[str, int]) -> dict[str, float]:
    """Milliseconds of processor time, user and system, that each has used until now.

    Args:
        roots: name → process id. Children that ended count where their parent has waited for them.
    """
    family = _family(roots.values())
    return {name: sum(_used_ms(pid) for pid in family[root]) for name, root in roots.items()}


def memory_mib(roots: Mapping[str, int]) -> dict[str, float]:
    """Memory of each: proportional set size, in which what processes share is divided among them."""
    family = _family(roots.values())
    return {name: sum(_pss_mib(pid) for pid in family[root]) for name, root in roots.items()}


def _family(roots: Iterable[int]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(entry.name))
    families = {}
    for root in roots:
        family = [root]
        for pid in family:
            family += children.get(pid, [])
        families[root] = family
    return families


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _used_ms(pid: int) -> float:
    return sum(map(int, _stat(pid)[_TIMES])) * 1000 / _TICKS_A_SECOND


def _pss_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def peak_mib(pid: int) -> float:
    """The largest resident set that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
