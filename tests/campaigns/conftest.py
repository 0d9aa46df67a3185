"""A house for the campaigns of one file: its drains and its faults are each campaign's own."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from campaigns import books
from campaigns.house import House, seeded
from servers.databases import KINDS, Databases
from servers.redis_server import RedisServer

LONG = os.environ.get("POSTROOM_LONG") == "1"
"""The long form of every campaign, on both databases; the short one is part of the suite."""


@pytest.fixture(scope="module", params=KINDS if LONG else ["postgresql"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """With an accept and a care at work, and no drain."""
    folder: Path = tmp_path_factory.mktemp("house")
    with (
        databases.migrated(request.param, folder) as url,
        RedisServer() as redis_server,
        House(folder, url, redis_server) as house,
    ):
        for kind in ("accept", "care"):
            house.start(kind)
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
