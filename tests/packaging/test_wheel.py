"""What is shipped: one wheel with the four packages, of which the bare install is a producer and no more."""

import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOT_FOR_A_SITE = ("sqlalchemy", "alembic", "pydantic_settings", "structlog", "typer", "rich", "flower", "tornado")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the tree, and without a package index."""
    source = tmp_path_factory.mktemp("source")
    for name in ("producer", "config", "worker", "front"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = out.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_four_packages(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("postroom/")}
    written = {
        str(path.relative_to(ROOT / part))
        for part in ("producer", "config", "worker", "front")
        for path in (ROOT / part / "postroom").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == written
    for part in ("producer", "config", "worker", "front"):
        assert f"postroom/{part}/py.typed" in shipped
    assert "postroom/worker/smtp/replies.toml" in shipped
    assert "postroom/config/migrations/env.py" in shipped
    assert "postroom/config/migrations/script.py.mako" in shipped
    assert "postroom/__init__.py" not in shipped


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Python with the wheel unpacked and, as after a bare install, without what the extras bring."""
    site = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(site)
    run = textwrap.dedent(f"""
        import sys
        sys.path[:] = [{str(site)!r}] + [path for path in sys.path if not path.startswith({str(ROOT)!r} + "/")
                                         or "site-packages" in path]
        for name in {NOT_FOR_A_SITE!r}:
            sys.modules[name] = None
        exec(sys.argv.pop(1))
        """)
    return [sys.executable, "-P", "-c", run]


def test_a_bare_install_makes_and_checks_mail(bare: list[str]) -> None:
    code = textwrap.dedent("""
        import postroom.producer
        from postroom.producer import Mail, Producer
        mail = Mail(from_="shop@example.org", to=["anna@example.org"], subject="Hello", text="Hello")
        print(postroom.producer.__file__, mail.id)
        """)
    done = subprocess.run([*bare, code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "/site" in done.stdout.split()[0]


def test_a_bare_install_names_the_extra_that_the_command_line_needs(bare: list[str]) -> None:
    code = "from postroom.front.cli import main; main()"
    done = subprocess.run([*bare, code, "up"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "pip install 'postroom[front]'" in done.stderr


@pytest.mark.parametrize("module", ["postroom.config.settings", "postroom.worker.app", "postroom.worker.smtp.session"])
def test_a_bare_install_names_the_extra_that_other_parts_need(bare: list[str], module: str) -> None:
    code = f"""
from postroom.producer.errors import MissingExtra
try:
    import {module}
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([*bare, code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "pip install 'postroom[worker]'" in done.stdout
