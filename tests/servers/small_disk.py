"""A small disk of a test's own, that can be filled; root alone can make one, and tests skip elsewhere."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class SmallDisk:
    """The disk, mounted."""

    path: Path

    def fill(self) -> None:
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1024))
            except OSError:
                pass

    def make_room(self) -> None:
        (self.path / "filler").unlink()


@contextmanager
def small_disk(path: Path, *, megabytes: int = 8) -> Iterator[SmallDisk]:
    """A disk at `path`, which is made."""
    path.mkdir()
    mounted = subprocess.run(
        ["/usr/bin/mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("a small disk can be made by root alone")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(path)], check=True)
