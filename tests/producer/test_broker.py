"""Both spellings of a Redis URL are taken, and mean one place to redis-py and to kombu."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postroom.producer import Mail, Producer, SettingsInvalid
from postroom.producer.broker import celery_url, redis_client
from postroom.producer.names import INBOX, QUEUE_ACCEPT, local_broker_url, local_redis_socket
from postroom.producer.sealing import PublicKey
from servers.redis_server import RedisServer

VERIFIED = "ssl_cert_reqs=required"


@pytest.mark.parametrize(
    ("url", "kombu"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://localhost:6379/2", "redis://localhost:6379/2"),
        ("redis://localhost:6379/", "redis://localhost:6379"),
        ("redis://localhost:6379?db=2", "redis://localhost:6379/2"),
        ("redis://user:p%40ss%2Fw@[::1]:6380/0", "redis://user:p%40ss%2Fw@[::1]:6380/0"),
        ("rediss://user:pass@redis.example/0", f"rediss://user:pass@redis.example/0?{VERIFIED}"),
        ("rediss://redis.example?ssl_cert_reqs=CERT_NONE", "rediss://redis.example?ssl_cert_reqs=none"),
        ("rediss://r.example/1?ssl_ca_certs=/a", f"rediss://r.example/1?ssl_ca_certs=%2Fa&{VERIFIED}"),
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("redis+socket://user:pass@/run/redis.sock", "redis+socket://user:pass@/run/redis.sock"),
    ],
)
def test_celerys_spelling(url: str, kombu: str) -> None:
    assert celery_url(url) == kombu
    assert celery_url(kombu) == kombu


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://localhost:6380/2", {"host": "localhost", "port": 6380, "db": 2}),
        ("redis://localhost:6380?db=2", {"host": "localhost", "port": 6380, "db": 2}),
        ("redis://user:p%40ss@[::1]/0", {"host": "::1", "username": "user", "password": "p@ss"}),
        ("rediss://redis.example/1", {"host": "redis.example", "db": 1, "ssl_cert_reqs": "required"}),
        ("rediss://redis.example/1?ssl_cert_reqs=CERT_OPTIONAL", {"ssl_cert_reqs": "optional"}),
        ("redis+socket:///run/redis.sock?virtual_host=3", {"path": "/run/redis.sock", "db": 3}),
        ("unix:///run/redis.sock?db=3", {"path": "/run/redis.sock", "db": 3}),
        ("redis+socket://:pass@/run/redis.sock", {"path": "/run/redis.sock", "password": "pass"}),
    ],
)
def test_redis_py_gets_the_same_place(url: str, place: dict[str, Any]) -> None:
    for written in (url, celery_url(url)):
        given = redis_client(written).connection_pool.connection_kwargs
        assert {name: given[name] for name in place} == place


def test_the_wait_for_redis_is_bounded() -> None:
    given = redis_client("redis://localhost", timeout_seconds=2).connection_pool.connection_kwargs
    assert (given["socket_timeout"], given["socket_connect_timeout"]) == (2, 2)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must begin with redis://"),
        ("localhost:6379", "must begin with redis://"),
        ("amqp://guest:secret@localhost", "not with 'amqp'"),
        ("http://redis", "not with 'http'"),
        ("redis://localhost:port", "host or port"),
        ("redis://localhost:70000", "host or port"),
        ("redis://[::1/0", "host or port"),
        ("redis://:se/secret@localhost/0", "%2F"),
        ("redis://localhost/zero", "the database must be a number"),
        ("unix:///run/redis.sock?db=zero", "the database must be a number"),
        ("redis+socket://", "the path of the socket is missing"),
        ("unix://redis.sock", "the path of the socket is missing"),
        ("redis://localhost/0?socket_timeout=900", "'socket_timeout' is not known"),
        ("redis://localhost/0?ssl_cert_reqs=none", "'ssl_cert_reqs' is not known"),
        ("redis+socket:///run/redis.sock?retry=1", "'retry' is not known"),
        ("rediss://localhost/0?ssl_cert_reqs=maybe", "ssl_cert_reqs must be one of required, optional, none"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(url: str, why: str, public_key: PublicKey) -> None:
    for read in (celery_url, redis_client, lambda url: Producer(url or "-", public_key=public_key)):
        with pytest.raises(SettingsInvalid) as refused:
            read(url)
        assert str(refused.value).startswith("POSTROOM_BROKER_URL: ")
        assert why in str(refused.value)
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("spelling", ["redis+socket://{}?virtual_host=3", "unix://{}?db=3"])
def test_inbox_and_nudge_go_to_the_same_database(
    spelling: str, redis_server: RedisServer, public_key: PublicKey, tmp_path: Path, make: Callable[..., Mail]
) -> None:
    # Both libraries decode the path: here it holds what a URL writes otherwise.
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "redis.sock").symlink_to(redis_server.socket)
    with Producer(spelling.format(f"{tmp_path}/a%20b/redis.sock"), public_key=public_key) as producer:
        producer.enqueue(make())
    with redis_server.client() as client:
        assert client.dbsize() == 0
    with redis_client(f"{redis_server.url}?db=3") as client:
        assert (client.hlen(INBOX), client.llen(QUEUE_ACCEPT)) == (1, 1)


@pytest.mark.parametrize("name", ["a b", "a#1", "50%25", "q?x", "имя"])
def test_a_data_folder_of_any_name(tmp_path: Path, name: str) -> None:
    given = redis_client(local_broker_url(tmp_path / name)).connection_pool.connection_kwargs
    assert Path(given["path"]) == local_redis_socket(tmp_path / name)
