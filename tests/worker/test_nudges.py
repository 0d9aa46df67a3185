"""Nudges in a real Redis: what lies in the queue of those that send."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
import redis
from celery import Celery

from postroom.producer import names
from postroom.worker.nudges import CeleryNudges
from servers.redis_server import RedisServer


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        client.flushall()
        yield client


@pytest.fixture
def nudges(redis_server: RedisServer, client: redis.Redis) -> Iterator[CeleryNudges]:
    with Celery("worker", broker=redis_server.url, set_as_current=False) as celery:
        yield CeleryNudges(celery)


def test_an_account_has_one_nudge_that_waits(nudges: CeleryNudges, client: redis.Redis) -> None:
    one, other = uuid4(), uuid4()
    for _ in range(3):
        nudges.drain(one)
    nudges.drain(other)
    assert client.llen(names.QUEUE_DRAIN) == 2


def test_what_comes_after_the_look_at_the_lane_is_told_anew(nudges: CeleryNudges, client: redis.Redis) -> None:
    account = uuid4()
    nudges.drain(account)
    nudges.drain_begins(account)
    nudges.drain(account)
    assert client.llen(names.QUEUE_DRAIN) == 2


def test_a_nudge_that_was_lost_keeps_no_later_one_away_for_long(nudges: CeleryNudges, client: redis.Redis) -> None:
    account = uuid4()
    nudges.drain(account)
    client.delete(names.QUEUE_DRAIN)
    [waits] = client.keys("postroom:nudged:*")
    assert 0 < client.pttl(waits) <= 2000


def test_redis_that_is_away_stops_nobody() -> None:
    with Celery("worker", broker="redis+socket:///tmp/postroom-no-such.sock", set_as_current=False) as celery:
        nudges = CeleryNudges(celery)
        nudges.drain(uuid4())
        nudges.drain_begins(uuid4())
