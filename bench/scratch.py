"""The folder, outside of the tree, of what only the bench needs: kept from run to run, so that it is installed once."""

import functools
import os
import shutil
import site
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

_REPOSITORY: Final = Path(__file__).parent.parent
_PACKAGES: Final = ("jinja2>=3.1", "django>=5.2", "django-post_office>=3.12", "matplotlib>=3.10")


@functools.cache
def python() -> Path:
    """A Python that has all that this one has, and what the rivals and the chart need."""
    home = _folder() / "python"
    _install_once(home, "\n".join([sys.prefix, *_PACKAGES]), lambda: _install_packages(home))
    return home / "bin" / "python"


def node_modules(package: Path) -> Path:
    """The folder in which Node finds what a package.json names."""
    home = _folder() / "node"
    _install_once(home, package.read_text(), lambda: _install_modules(home, package))
    return home / "node_modules"


def _folder() -> Path:
    path = Path(tempfile.gettempdir()) / f"postroom-bench-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.lstat().st_uid != os.getuid():
        raise PermissionError(f"{path}: belongs to somebody else; set TMPDIR")
    return path


def _install_once(home: Path, wanted: str, install: Callable[[], None]) -> None:
    installed = home / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        print(f"installing into {home}", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        install()
        installed.write_text(wanted)


def _install_packages(home: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    [found_here] = home.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({each!r})" for each in site.getsitepackages()]
    (found_here / "bench.pth").write_text("\n".join([*lines, str(_REPOSITORY), ""]))
    pip = (home / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    subprocess.run([*pip, *_PACKAGES], check=True)


def _install_modules(home: Path, package: Path) -> None:
    home.mkdir()
    shutil.copy(package, home)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=home, check=True)  # noqa: S607 - wherever it is
