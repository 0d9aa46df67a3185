"""The folder, outside of the tree, of what only the bench needs: kept from run to run, so that it is installed once."""

import os
import site
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

_REPOSITORY: Final = Path(__file__).parent.parent
_PACKAGES: Final = ("jinja2",)


def folder() -> Path:
    """The folder; removing it is harmless.

    Raises:
        PermissionError: somebody else made it.
    """
    path = Path(tempfile.gettempdir()) / f"postroom-bench-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise PermissionError(f"{path}: belongs to somebody else; set TMPDIR")
    return path


def python() -> Path:
    """A Python that has all that this one has, and the rivals' packages."""
    home = folder() / "python"
    program = home / "bin" / "python"
    installed = home / "installed"
    wanted = "\n".join([sys.prefix, *_PACKAGES])
    if not installed.exists() or installed.read_text() != wanted:
        print("installing what the bench needs into", home, file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        _see_through(home)
        subprocess.run([program, "-m", "pip", "--disable-pip-version-check", "install", "-q", *_PACKAGES], check=True)
        installed.write_text(wanted)
    return program


def _see_through(home: Path) -> None:
    """Let an environment find what is installed in this process's one, and the bench itself."""
    [packages] = home.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({each!r})" for each in site.getsitepackages()]
    (packages / "bench.pth").write_text("\n".join([*lines, str(_REPOSITORY), ""]))
