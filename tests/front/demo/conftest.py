"""Demos under test, and a look at what they leave behind."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from servers.command import Command, is_running

DEMO = [sys.executable, "-P", "-m", "postroom.front.cli", "demo"]


class Scene:
    """A folder for scratch folders, and an environment by which all that a demo starts can be found.

    Attributes:
        scratch: where the demo makes its scratch folder.
        home: the folder that it is started in.
    """

    def __init__(self, folder: Path) -> None:
        self.scratch = folder / "tmp"
        self.home = folder / "home"
        self.scratch.mkdir()
        self.home.mkdir()
        self._mark = f"DEMO_UNDER_TEST={uuid4()}"
        self._commands: list[Command] = []

    def start(self, *options: str, terminal: bool = False, **variables: str) -> Command:
        return self._start([*DEMO, *options], terminal, variables)

    def start_changed(self, change: str) -> Command:
        """A demo in whose process some Python was run before."""
        code = f"import sys\n{change}\nfrom postroom.front.cli import main\nsys.argv = ['postroom', 'demo']\nmain()\n"
        return self._start([sys.executable, "-P", "-c", code], False, {})

    def _start(self, argv: Sequence[str], terminal: bool, variables: Mapping[str, str]) -> Command:
        name, _, value = self._mark.partition("=")
        mine = {"TMPDIR": str(self.scratch), name: value, "TERM": "xterm", **variables}
        self._commands.append(Command(argv, terminal=terminal, cwd=self.home, env={**os.environ, **mine}))
        return self._commands[-1]

    def running(self) -> list[int]:
        """The processes that were started by this scene's demos and still run."""
        return [int(each.name) for each in Path("/proc").glob("[0-9]*") if self._is_ours(int(each.name))]

    def left(self) -> list[str]:
        """What lies where scratch folders are made."""
        return [each.name for each in self.scratch.iterdir()]

    def close(self) -> None:
        for command in self._commands:
            command.close()

    def _is_ours(self, pid: int) -> bool:
        """By the mark in its environment or, where a program wrote its title over that, by the scratch folder in it."""
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False
        ours = self._mark.encode() in environment.split(b"\0") or str(self.scratch).encode() in title
        return ours and is_running(pid)


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A scene of one test. Its path is short, as Unix sockets need it."""
    folder = Path(tempfile.mkdtemp(prefix="pd-", dir="/tmp"))
    scene = Scene(folder)
    yield scene
    scene.close()
    shutil.rmtree(folder)
