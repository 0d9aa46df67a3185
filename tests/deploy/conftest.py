"""What the Dockerfile installs, and the house of docker-compose.yml in containers without an engine."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import containers
from servers.compose import CLIENT, ROOT, House
from servers.containers import Mount, Spec

_INSTALLED = Path("bin/postroom")


def _build(folder: Path) -> None:
    """Run the first stage of the Dockerfile, in a container that has the network for pip."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    context = folder.with_name("context")
    for name in allowed:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, context / name)
    [step] = re.findall(r"^RUN --mount=\S+ (.*install\.sh.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    folder.mkdir()
    spec = Spec(
        "build",
        ["/bin/sh", "-c", step],
        capabilities=["dac_override"],
        mounts=[Mount(context, "/src", read_only=False), Mount(folder, "/opt/postroom", read_only=False)],
        environment={name: value for name, value in os.environ.items() if name.startswith(("PIP_", "HTTP", "http"))},
        working_dir="/src",
        read_only=False,
    )
    done = containers.run(spec, network=None, timeout_seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(context)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """/opt/postroom of the image: made once a run, whatever the number of the run's processes."""
    if not containers.possible():
        pytest.skip("containers need root on Linux, and namespaces")
    if not CLIENT.exists():
        pytest.skip("the Compose client is not installed (make install)")
    if not Path("/usr/bin/redis-cli").exists():
        pytest.skip("redis-cli is not installed (apt install redis-tools)")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "image"
    with (shared / "image.build").open("w") as building, (shared / "image.use").open("w") as using:
        fcntl.flock(building, fcntl.LOCK_EX)
        if not (folder / _INSTALLED).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _build(folder)
        fcntl.flock(using, fcntl.LOCK_SH)
        fcntl.flock(building, fcntl.LOCK_UN)
        yield folder
        fcntl.flock(building, fcntl.LOCK_EX)
        with contextlib.suppress(BlockingIOError):  # another process still uses it, and will remove it
            fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def house(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Every service of docker-compose.yml."""
    with House(tmp_path_factory.mktemp("house"), image) as house:
        yield house
