"""What the doctor asks of programs: database, Redis, workers, scheduler and Flower. Each answer has its time."""

import http.client
import time
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import redis
from sqlalchemy import URL, Engine, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from postroom.config import database
from postroom.config.settings import Settings
from postroom.front import flower
from postroom.front.doctor_checks import Finding
from postroom.producer import names
from postroom.producer.broker import redis_client
from postroom.worker.app import QUEUES, last_run_key, make_app

SEE_REDIS: Final = "Start `postroom up`; if Redis is not its own, look at the one of POSTROOM_BROKER_URL"
SEE_DATABASE: Final = "Look at the database of POSTROOM_DATABASE_URL"
_MIGRATE: Final = "Run `postroom migrate`; `postroom up` does so at its start"
_START: Final = "Start `postroom up`, or this part alone; if it runs, its log says what is wrong"

_ANSWER_SECONDS: Final = 2.0
_OLDEST_REDIS: Final = 7
_STRAY_SECONDS: Final = 300.0
_CHORE_SECONDS: Final = 30.0
_FIRST_CHORE_SECONDS: Final = 2.0


def database_is_newest(settings: Settings) -> Finding:
    """Whether the database answers and has this release's schema."""
    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return Finding(False, f"{url.database}: is not there", _MIGRATE)
    engine = _reading(url)
    try:
        with engine.connect() as connection:
            has_schema = engine.dialect.has_table(connection, "alembic_version")
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if has_schema else None
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).splitlines()[0]
        return Finding(False, f"{url.get_backend_name()}: {why}", SEE_DATABASE)
    finally:
        engine.dispose()
    newest = database.newest_revision(settings.database)
    if found == newest:
        return Finding(True, f"{url.get_backend_name()}, revision {found}")
    if found is None:
        return Finding(False, f"{url.get_backend_name()}: has no schema", _MIGRATE)
    return Finding(
        False, f"{url.get_backend_name()}: revision {found}, and this release is written for {newest}", _MIGRATE
    )


def _reading(url: URL) -> Engine:
    """An engine that cannot write. On SQLite it makes no file either: where no `-wal` file lies, nobody has the
    database open, and it is read as a file that does not change.
    """
    if url.get_backend_name() == "sqlite":
        in_use = Path(f"{url.database}-wal").exists()
        how = {"mode": "ro", "uri": "true"} | ({} if in_use else {"immutable": "1"})
        path = Path(url.database or "").resolve().as_uri()
        return create_engine(URL.create(url.drivername, database=path, query=how), poolclass=NullPool)
    seconds = int(_ANSWER_SECONDS)
    return create_engine(
        url if "+" in url.drivername else url.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={
            "connect_timeout": seconds,
            "options": f"-c statement_timeout={seconds * 1000} -c default_transaction_read_only=on",
        },
    )


def _asking_redis(check: Callable[[Settings, redis.Redis], Finding]) -> Callable[[Settings], Finding]:
    """Give the check a client that waits a short time, and turn its silence into a finding."""

    @wraps(check)
    def ask(settings: Settings) -> Finding:
        client = redis_client(settings.broker, timeout_seconds=_ANSWER_SECONDS)
        try:
            return check(settings, client)
        except redis.RedisError as error:
            return _silent(error)
        finally:
            client.close()

    return ask


def _silent(error: redis.RedisError) -> Finding:
    return Finding(False, f"Redis does not answer: {error or type(error).__name__}", SEE_REDIS)


@_asking_redis
def redis_keeps(_settings: Settings, client: redis.Redis) -> Finding:
    """Whether Redis is new enough and keeps what it has taken."""
    info: dict[str, Any] = client.info("everything")
    version = str(info["redis_version"])
    wrong = []
    if int(version.partition(".")[0]) < _OLDEST_REDIS:
        wrong.append(f"is version {version}, older than {_OLDEST_REDIS}")
    if not info["aof_enabled"]:
        wrong.append("keeps no append-only file (appendonly no): a restart loses the inbox")
    elif info["aof_last_write_status"] != "ok":
        told = "cannot write its append-only file: its disk is full or broken"
        return Finding(False, told, "Make room on that disk; it goes on by itself then")
    if info["maxmemory_policy"] != "noeviction":
        wrong.append(f"may throw mail away (maxmemory-policy {info['maxmemory_policy']})")
    if wrong:
        action = "In its configuration set appendonly yes and maxmemory-policy noeviction; `postroom up` sets both"
        return Finding(False, "; ".join(wrong), action)
    name = info.get("server_name", "redis")
    return Finding(True, f"{name} {info.get('valkey_version', version)}, append-only file, noeviction")


@_asking_redis
def inbox_moves(_settings: Settings, client: redis.Redis) -> Finding:
    """Whether jobs leave the inbox."""
    count = int(client.hlen(names.INBOX))
    oldest: Any = client.zrange(names.INBOX_AT, 0, 0, withscores=True)
    if not oldest:
        return Finding(True, f"{count} waiting")
    age = max(0.0, float(client.time()[0]) - oldest[0][1])
    message = f"{count} waiting, the oldest for {age:.0f} s"
    if age > _STRAY_SECONDS:
        return Finding(
            False, message, "See that worker_accept and database are well, then read the accept worker's log"
        )
    return Finding(True, message)


def workers_answer(settings: Settings) -> tuple[Finding, ...]:
    """For each kind of worker, whether one answers that takes from its queue."""
    client = redis_client(settings.broker, timeout_seconds=_ANSWER_SECONDS)
    try:
        client.ping()
    except redis.RedisError as error:
        return (_silent(error),) * len(QUEUES)
    finally:
        client.close()
    serving = _nodes_by_queue(settings)
    return tuple(
        Finding(True, ", ".join(serving[queue]))
        if serving.get(queue)
        else Finding(False, f"no worker takes from {queue}", _START.replace("this part", f"`postroom worker {kind}`"))
        for kind, queue in QUEUES.items()
    )


def _nodes_by_queue(settings: Settings) -> dict[str, list[str]]:
    """Queue → names of the workers that take from it. Where there is one of each kind, the first answers will do."""
    with make_app(settings) as app:
        found: dict[str, list[str]] = {}
        for most in (len(QUEUES), None):
            replies = app.control.inspect(timeout=_ANSWER_SECONDS, limit=most).active_queues() or {}
            for node, queues in sorted(replies.items()):
                for queue in queues:
                    found.setdefault(queue["name"], []).append(node)
            if len(replies) < len(QUEUES) or all(queue in found for queue in QUEUES.values()):
                break
            found.clear()
    return found


@_asking_redis
def scheduler_lives(_settings: Settings, client: redis.Redis) -> Finding:
    """Whether chores run. One that was started a moment ago is given time for its first."""
    until = time.monotonic() + _FIRST_CHORE_SECONDS
    while True:
        last = client.get(last_run_key("due"))
        age = None if last is None else max(0.0, time.time() - float(last))
        if age is not None and age < _CHORE_SECONDS:
            return Finding(True, f"the last chore ran {age:.0f} s ago")
        if time.monotonic() > until:
            what = "no chore has ever run" if age is None else f"the last chore ran {age:.0f} s ago"
            action = "Start `postroom up`, or `postroom scheduler` alone; chores need worker_care as well"
            return Finding(False, what, action)
        time.sleep(0.1)


def flower_answers(settings: Settings) -> Finding:
    """Whether Flower answers, and shows nothing to those without its password."""
    url = flower.url(settings)
    start = "Start `postroom up`, or `postroom flower` alone"
    try:
        health, *inside = (_status(settings, path) for path in ("/healthcheck", "/workers", "/api/workers"))
    except (OSError, http.client.HTTPException) as error:
        return Finding(False, f"{url}: no answer ({error or type(error).__name__})", start)
    if health != HTTPStatus.OK:
        return Finding(False, f"{url}: its health check says {health}", start)
    if set(inside) != {HTTPStatus.UNAUTHORIZED}:
        action = "Stop what answers there: it is no Flower that `postroom up` started"
        return Finding(False, f"{url}: answers without a password ({inside[0]}, {inside[1]})", action)
    return Finding(True, f"{url}, behind a password")


def _status(settings: Settings, path: str) -> int:
    host, port = settings.flower_address
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(near, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
