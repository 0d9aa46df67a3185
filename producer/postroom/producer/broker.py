"""The broker's URL, in both spellings, and a Redis client that waits a bounded time.

Celery (kombu) writes a Unix socket as ``redis+socket:///path?virtual_host=0``, redis-py as ``unix:///path?db=0``;
Postroom takes either.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from postroom.producer.errors import SettingsInvalid

MOST_CONNECTIONS: Final = 512
"""To one Redis from one process; the pools' own limits (10 and 100) are fewer than the threads may be."""

_SOCKET_SCHEMES: Final = ("unix", "redis+socket")
_SCHEMES: Final = ("redis", "rediss", *_SOCKET_SCHEMES)
_TLS_OPTIONS: Final = {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
_VERIFY: Final = ("required", "optional", "none")
"""Unasked, redis-py verifies the server's certificate and kombu does not; so it is always said."""


@dataclass(frozen=True, slots=True)
class _Place:
    """What a URL says; `db` is empty where it says none, and `path` that of a Unix socket."""

    scheme: str
    netloc: str
    path: str
    db: str
    tls: dict[str, str]


def redis_client(url: str, *, timeout_seconds: float = 5.0) -> redis.Redis:
    """A client for the Redis at `url`; connecting and each reply take `timeout_seconds` at most.

    A connection that was lost meanwhile, as when Redis was restarted, is made anew once. A reply that did not come in
    time is not asked for again: the wait would double.

    Raises:
        SettingsInvalid: it is no Redis URL.
    """
    return redis.Redis.from_url(
        _written(_read(url), "unix", "db"),
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        max_connections=MOST_CONNECTIONS,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


def celery_url(url: str) -> str:
    """The same URL in kombu's spelling.

    Raises:
        SettingsInvalid: it is no Redis URL.
    """
    return _written(_read(url), "redis+socket", "virtual_host")


def _read(url: str) -> _Place:
    """Read either spelling. Refused is what redis-py or kombu would stumble over when mail is already on its way.

    No message shows the URL, since there may be a password in it.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise _invalid("host or port cannot be read; in a password : / ? # are written %3A %2F %3F %23") from None
    if parts.scheme not in _SCHEMES:
        raise _invalid(f"must begin with redis://, rediss://, unix:// or redis+socket://, not with {parts.scheme!r}")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    db = options.pop("db", "") or options.pop("virtual_host", "")
    path = parts.path
    if parts.scheme not in _SOCKET_SCHEMES:
        path, db = "", db or path.strip("/")
    elif not path.strip("/"):
        raise _invalid("the path of the socket is missing, as in redis+socket:///run/redis.sock")
    if db and not db.isdecimal():
        raise _invalid("the database must be a number, as in redis://localhost:6379/0")
    if unknown := options.keys() - (_TLS_OPTIONS if parts.scheme == "rediss" else set()):
        raise _invalid(f"the option {min(unknown)!r} is not known")
    verify = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if verify not in _VERIFY:
        raise _invalid(f"ssl_cert_reqs must be one of {', '.join(_VERIFY)}")
    return _Place(parts.scheme, parts.netloc, path, db, {**options, "ssl_cert_reqs": verify})


def _written(place: _Place, socket_scheme: str, db_option: str) -> str:
    if place.path:
        query = f"?{db_option}={place.db}" if place.db else ""
        return f"{socket_scheme}://{place.netloc}{place.path}{query}"
    base = f"{place.scheme}://{place.netloc}{f'/{place.db}' if place.db else ''}"
    return f"{base}?{urlencode(place.tls)}" if place.scheme == "rediss" else base


def _invalid(why: str) -> SettingsInvalid:
    return SettingsInvalid(f"POSTROOM_BROKER_URL: {why}")
