"""A key pair, a real Redis, a mail that is in order, and what accept would be told."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from postroom.producer import Mail, Producer
from postroom.producer.names import QUEUE_ACCEPT
from postroom.producer.sealing import PublicKey
from servers.redis_server import RedisServer


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's own shell has set says nothing here."""
    for name in ("BROKER_URL", "DATA_DIR", "PUBLIC_KEY", "PUBLIC_KEY_FILE", "JOB_LIMIT_BYTES"):
        monkeypatch.delenv(f"POSTROOM_{name}", raising=False)


@pytest.fixture(scope="session")
def private_key() -> X25519PrivateKey:
    return X25519PrivateKey.generate()


@pytest.fixture(scope="session")
def public_key(private_key: X25519PrivateKey) -> PublicKey:
    return PublicKey.of(private_key)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """An empty Redis."""
    with shared_redis.client() as client:
        client.flushall()
    return shared_redis


@pytest.fixture
def producer(redis_server: RedisServer, public_key: PublicKey) -> Iterator[Producer]:
    with Producer(redis_server.url, public_key=public_key) as made:
        yield made


@pytest.fixture(scope="session")
def make() -> Callable[..., Mail]:
    """Makes a mail; a field given as ``...`` is left out."""

    def make(**changes: Any) -> Mail:
        given = {
            "from_": "shop@shop.example",
            "to": "Anna Needle <anna@client.example>",
            "subject": "subject-needle",
            "text": "text-needle",
            **changes,
        }
        return Mail(**{name: value for name, value in given.items() if value is not ...})

    return make


@pytest.fixture
def nudges(redis_server: RedisServer) -> Callable[[], list[dict[str, Any]]]:
    """Reads the Celery messages that wait for accept, oldest first, their bodies decoded."""

    def read() -> list[dict[str, Any]]:
        with redis_server.client() as client:
            found: Any = client.lrange(QUEUE_ACCEPT, 0, -1)
        messages = [json.loads(each) for each in reversed(found)]
        return [{**each, "body": json.loads(base64.b64decode(each["body"]))} for each in messages]

    return read
