"""Puts this folder on the path, so that every test finds `servers`; and gives tests the databases they run on."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from servers.databases import KINDS, Databases


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """What a command does to its own process must not reach the tests that come after it."""
    umask = os.umask(0o022)
    yield
    os.umask(umask)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    databases = Databases(tmp_path_factory.mktemp("databases"))
    yield databases
    databases.close()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The house's data folder."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest, databases: Databases, data_dir: Path) -> Iterator[str]:
    """A migrated database of the test's own. Whatever uses it is run on SQLite and on PostgreSQL."""
    with databases.migrated(request.param, data_dir) as url:
        yield url
