"""A house for the campaigns of one file: its drains and its faults are each campaign's own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from campaigns import books
from campaigns.house import House, seeded
from long_form import LONG
from servers.databases import KINDS, Databases, Kind
from servers.redis_server import RedisServer


@contextmanager
def at_work(databases: Databases, kind: Kind, folder: Path, **redis_options: str) -> Iterator[House]:
    """A house with an accept and a care at work, and no drain."""
    with (
        databases.migrated(kind, folder) as url,
        RedisServer(**redis_options) as redis_server,
        House(folder, url, redis_server) as house,
    ):
        for worker in ("accept", "care"):
            house.start(worker)
        yield house


@pytest.fixture(scope="module", params=KINDS if LONG else ["postgresql"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with at_work(databases, request.param, tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(autouse=True)
def _books(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand the books of a campaign to the table at the end, which may be written by another process."""
    books.TOLD.clear()
    yield
    campaign = f"{request.path.stem.removeprefix('test_')}: {request.node.name.removeprefix('test_')}"
    request.node.user_properties += [("books", (campaign, told.counts)) for told in books.TOLD]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the books of all campaigns of the long form."""
    ended = [each for each in terminalreporter.stats.get("", ()) if getattr(each, "when", None) == "teardown"]
    told = [value for each in ended for name, value in each.user_properties if name == "books"]
    if LONG and told:
        terminalreporter.section("books")
        terminalreporter.write_line(books.table(told))


@pytest.fixture
def dice() -> Iterator[random.Random]:
    with seeded() as dice:
        yield dice
