"""Both spellings of a Redis URL are taken, and turned into each other."""

import pytest

from postroom.producer import SettingsInvalid
from postroom.producer.broker import celery_url, redis_client


@pytest.mark.parametrize(
    ("url", "kombu"),
    [
        ("redis://localhost:6379/2", "redis://localhost:6379/2"),
        ("rediss://user:pass@redis.example/0", "rediss://user:pass@redis.example/0?ssl_cert_reqs=required"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "redis+socket:///run/redis.sock?virtual_host=3"),
    ],
)
def test_celerys_spelling(url: str, kombu: str) -> None:
    assert celery_url(url) == kombu


def test_redis_py_gets_the_same_place() -> None:
    for url in ("redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"):
        given = redis_client(url).connection_pool.connection_kwargs
        assert (given["path"], given["db"]) == ("/run/redis.sock", 3)


@pytest.mark.parametrize("url", ["", "amqp://localhost", "localhost:6379", "http://redis"])
def test_another_scheme_is_refused(url: str) -> None:
    for read in (celery_url, redis_client):
        with pytest.raises(SettingsInvalid, match="POSTROOM_BROKER_URL"):
            read(url)
