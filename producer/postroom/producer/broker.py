"""The broker's URL, in both spellings, and a Redis client that waits a bounded time.

Celery (kombu) writes a Unix socket as ``redis+socket:///path?virtual_host=0``, redis-py as ``unix:///path?db=0``;
Postroom takes either.
"""

from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from postroom.producer.errors import SettingsInvalid

_MOST_CONNECTIONS: Final = 512
_SCHEMES: Final = ("redis", "rediss", "unix", "redis+socket")


def redis_client(url: str, *, timeout_seconds: float = 5.0) -> redis.Redis:
    """A client for the Redis at `url`; connecting and each reply take `timeout_seconds` at most.

    Raises:
        SettingsInvalid: it is no Redis URL.
    """
    return redis.Redis.from_url(
        _respelled(url, "unix", "virtual_host", "db"),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        max_connections=_MOST_CONNECTIONS,
        retry=Retry(NoBackoff(), 1),
    )


def celery_url(url: str) -> str:
    """The same URL in kombu's spelling.

    Raises:
        SettingsInvalid: it is no Redis URL.
    """
    return _respelled(url, "redis+socket", "db", "virtual_host")


def _respelled(url: str, socket_scheme: str, from_name: str, to_name: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise SettingsInvalid(
            "POSTROOM_BROKER_URL: must begin with redis://, rediss://, unix:// or redis+socket://, "
            f"not with {parts.scheme!r}"
        )
    if parts.scheme in {"redis", "rediss"}:
        return url
    query = urlencode([(to_name if name == from_name else name, value) for name, value in parse_qsl(parts.query)])
    return f"{socket_scheme}://{parts.netloc}{parts.path}{f'?{query}' if query else ''}"
