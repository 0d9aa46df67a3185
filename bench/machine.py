"""Where the bench ran, and what ran there."""

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bench import scratch
from bench.rivals.bullmq.system import PACKAGE

_OF_PYTHON: Final = ("celery", "django", "django-post_office")
_OF_NODE: Final = ("bullmq", "nodemailer")


def machine() -> str:
    """Its processors and system, and how busy it was before."""
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    model = found[1] if found else platform.machine()
    system, load = f"{platform.system()} {platform.release()}", os.getloadavg()[0]
    return f"{os.cpu_count()} processors ({model}), {system}, load average before {load:.1f}"


def versions() -> str:
    """Of everything that is compared."""
    modules = scratch.node_modules(PACKAGE)
    of_node = {name: json.loads((modules / name / "package.json").read_text())["version"] for name in _OF_NODE}
    told = [f"{name} {number}" for name, number in {**_of_python(), **of_node}.items()]
    return ", ".join([f"Postroom {version('postroom')}", f"Python {platform.python_version()}", *told])


def _of_python() -> dict[str, str]:
    asked = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {_OF_PYTHON!r}}}))"
    told = subprocess.run([scratch.python(), "-c", asked], capture_output=True, check=True).stdout
    answer: dict[str, str] = json.loads(told)
    return answer
