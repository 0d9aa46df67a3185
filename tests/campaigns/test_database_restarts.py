"""The database goes away under workers that send, in every way it can; they go on by themselves when it is back."""

import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from campaigns.going_on import goes_on_after
from campaigns.house import House
from long_form import LONG
from postroom.config.database import migrate
from servers.postgresql import PostgresqlServer
from servers.redis_server import RedisServer

pytestmark = pytest.mark.timeout(1200 if LONG else 120)

MAILS = 400 if LONG else 100
STOPPED_SECONDS = 60 if LONG else 5


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """One of its own, that keeps what it committed."""
    with PostgresqlServer(durable=True) as server:
        server.run("CREATE DATABASE postroom")
        migrate(server.url("postroom"))
        yield server


@pytest.fixture(scope="module")
def house(server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with (
        RedisServer() as redis_server,
        House(tmp_path_factory.mktemp("house"), server.url("postroom"), redis_server) as house,
    ):
        for kind in ("accept", "care", "drain"):
            house.start(kind)
        yield house


def restarted(server: PostgresqlServer, _house: House) -> None:
    server.restart()


def killed(server: PostgresqlServer, _house: House) -> None:
    server.kill()
    server.start()


def stopped_for_a_while(server: PostgresqlServer, house: House) -> None:
    server.stop()
    house.enqueue(MAILS // 4)
    time.sleep(STOPPED_SECONDS)
    server.start()


def all_connections_closed(server: PostgresqlServer, _house: House) -> None:
    assert server.end_connections("postroom") > 1


@pytest.mark.parametrize("event", [restarted, killed, stopped_for_a_while, all_connections_closed])
def test_a_database_that_goes_away_and_comes_back(
    house: House, server: PostgresqlServer, event: Callable[[PostgresqlServer, House], None]
) -> None:
    goes_on_after(house, MAILS, partial(event, server), event.__name__)
