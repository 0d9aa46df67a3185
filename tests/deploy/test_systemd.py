"""The systemd units: as systemd reads them, and by the same commands as everywhere."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from postroom.front.up import COMMANDS
from servers.compose import ROOT

UNITS = ROOT / "deploy" / "systemd"
PROGRAM = "/opt/postroom/bin/postroom"
STOPS_IN_SECONDS = 15

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy in which the program is one that this machine has."""
    copy = tmp_path / "units"
    shutil.copytree(UNITS, copy)
    for unit in copy.glob("*.service"):
        unit.write_text(unit.read_text().replace(PROGRAM, "/bin/true"))
    return copy


def analyze(units: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words],  # noqa: S607 - wherever it is
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{units}:"},
    )


def test_systemd_takes_every_unit(units: Path) -> None:
    paths = sorted(str(path) for path in units.glob("postroom*.*") if path.is_file())
    told = analyze(units, "verify", "--man=no", *paths)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@pytest.mark.parametrize("name", [path.name for path in sorted(UNITS.glob("*.service"))])
def test_every_service_is_closed(units: Path, name: str) -> None:
    told = analyze(units, "security", "--offline=true", "--threshold=20", str(units / name))
    assert told.returncode == 0, told.stdout[-2000:]


def test_the_commands_are_those_of_up() -> None:
    started = {}
    for path in UNITS.glob("*.service"):
        [command] = re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)
        program, *words = command.split()
        assert program == PROGRAM
        started[path.stem.removeprefix("postroom-").removesuffix("@")] = tuple(words)
    assert started == {**COMMANDS, "migrate": ("migrate",)}


def test_only_workers_see_the_private_ring_and_none_is_killed_before_its_warm_stop() -> None:
    for path in UNITS.glob("*.service"):
        text = path.read_text()
        worker = "ExecStart=/opt/postroom/bin/postroom worker" in text
        assert f"User=postroom-{'worker' if worker else 'front'}\n" in text
        assert f"InaccessiblePaths=-/etc/postroom/{'front' if worker else 'worker'}\n" in text
        assert ("private.ring" in text) == worker
    drain = (UNITS / "postroom-drain@.service").read_text()
    [stop] = re.findall(r"TimeoutStopSec=(\d+)", drain)
    assert int(stop) >= 2 * STOPS_IN_SECONDS
