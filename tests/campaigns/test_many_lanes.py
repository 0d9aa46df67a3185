"""As many lanes at once as a drain has threads: each comes to the database and to Redis, and none waits in vain."""

import time
from typing import Any

import pytest
from sqlalchemy import func, make_url, select

from campaigns.house import House
from long_form import LONG
from postroom.config.tables import slots
from postroom.config.vault import public_key
from postroom.producer import Mail, Producer
from servers.databases import Databases

LANES = 256 if LONG else 96
WAIT_MILLISECONDS = 8000 if LONG else 4000
MOST_CONNECTIONS = {"accept": 2, "care": 8, "drain": 8, "of the test": 8}

pytestmark = pytest.mark.timeout(120)


def test_all_threads_send_at_once(house: House, databases: Databases) -> None:
    house.settings = house.settings.model_copy(update={"drain_threads": LANES, "lease_seconds": 60.0})
    lanes = [house.open_books(connections=1).address for _ in range(LANES)]
    house.start("drain")
    mail: dict[str, Any] = {
        "to": f"dot-wait-{WAIT_MILLISECONDS}@client.example",
        "subject": "Order",
        "text": "Thank you",
    }
    with Producer(house.settings.broker, public_key=public_key(house.settings)) as producer:
        house.handed_over = list(producer.enqueue_many(Mail(from_=lane, **mail) for lane in lanes))
    at_once = connections = 0
    until = time.monotonic() + 60
    while house.under_way and time.monotonic() < until:
        with house.database.read() as connection:
            at_once = max(at_once, connection.execute(select(func.count()).select_from(slots)).scalar_one())
        if house.database.engine.dialect.name == "postgresql":
            name = make_url(house.settings.database).database
            [(now,)] = databases.server.run(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'")  # noqa: S608
            connections = max(connections, now)
        time.sleep(0.1)
    with house.redis.client() as client:
        clients = len(client.client_list())
    print(f"{at_once} lanes at once, {connections} connections to the database, {clients} to Redis")
    house.settle()
    books = house.books()
    assert books.balance, books
    assert books.sent == LANES
    assert at_once > LANES * 0.8, at_once
    assert connections <= sum(MOST_CONNECTIONS.values())
    assert "a task failed" not in house.log
    assert "was not published" not in house.log
