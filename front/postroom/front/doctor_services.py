"""What the doctor asks of programs: database, workers and Flower. Each answer has its time."""

import http.client
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Final

import redis
from sqlalchemy import URL, Engine, create_engine, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from postroom.config import database
from postroom.config.settings import Settings
from postroom.front import doctor_ledger, flower
from postroom.front.doctor_checks import Finding
from postroom.front.doctor_redis import ANSWER_SECONDS, silent
from postroom.producer.broker import redis_client
from postroom.worker.celery_app import QUEUES, RING_KEY, make_celery

SEE_DATABASE: Final = "Look at the database of POSTROOM_DATABASE_URL"
_MIGRATE: Final = "Run `postroom migrate`; `postroom up` does so at its start"
_NEWER: Final = "Install the release that wrote it, or restore a backup"
_START: Final = "Start `postroom up`, or this part alone; if it runs, its log says what is wrong"

_CLOCK_SECONDS: Final = 30.0
_NETWORK_DISKS: Final = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "afs"}


def database_is_newest(settings: Settings) -> Finding:
    """Whether the database answers and has this release's schema."""
    url = make_url(settings.database)
    if _is_missing(url):
        return Finding(False, f"{url.database}: is not there", _MIGRATE)
    if kind := _network_disk(url):
        action = "Put it on a disk of this machine, or use PostgreSQL (POSTROOM_DATABASE_URL)"
        return Finding(False, f"{url.database}: lies on a network disk ({kind}), where SQLite cannot lock", action)
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
    words = f"{url.get_backend_name()}: revision {found}, and this release is written for {newest}"
    return Finding(False, words, _NEWER if database.is_of_newer_release(settings.database, found) else _MIGRATE)


def _is_missing(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").exists()


def _network_disk(url: URL) -> str:
    """The kind of network disk that SQLite's file lies on; nothing if it is none, or not to be found out."""
    if url.get_backend_name() != "sqlite":
        return ""
    try:
        mounts = [line.split(" ") for line in Path("/proc/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return ""
    around = {str(folder) for folder in Path(url.database or "").resolve().parents}
    kinds = [(len(mount[1]), mount[2]) for mount in mounts if mount[1] in around]
    kind = max(kinds, default=(0, ""))[1]
    return kind if kind in _NETWORK_DISKS else ""


def ledger_holds(settings: Settings) -> tuple[Finding, ...]:
    """Held mail, pauses, rejected jobs and the keys that are needed."""
    unseen = (Finding(True, "not to be seen; see database"),) * 4
    url = make_url(settings.database)
    if _is_missing(url):
        return unseen
    ring: str | None = None
    with suppress(redis.RedisError), redis_client(settings.broker, timeout_seconds=ANSWER_SECONDS) as client:
        told = client.get(RING_KEY)
        ring = told.decode() if isinstance(told, bytes) else None
    engine = _reading(url)
    try:
        with engine.connect() as connection:
            return doctor_ledger.findings(connection, settings, ring)
    except SQLAlchemyError:
        return unseen
    finally:
        engine.dispose()


def clocks_agree(settings: Settings) -> Finding:
    """Whether database, Redis and this machine have the same time, within half a minute."""
    ahead: dict[str, float] = {}
    with suppress(redis.RedisError), redis_client(settings.broker, timeout_seconds=ANSWER_SECONDS) as client:
        seconds, microseconds = client.time()
        ahead["Redis"] = seconds + microseconds / 1e6 - time.time()
    url = make_url(settings.database)
    if url.get_backend_name() != "sqlite":  # whose clock is this machine's
        engine = _reading(url)
        with suppress(SQLAlchemyError), engine.connect() as connection:
            told = connection.execute(select(database.now())).scalar_one()
            ahead["database"] = told.timestamp() - time.time()
        engine.dispose()
    told_all = ", ".join(f"{name} {round(seconds):+d} s" for name, seconds in sorted(ahead.items())) or "none answers"
    if any(abs(seconds) > _CLOCK_SECONDS for seconds in ahead.values()):
        action = (
            "Set the clocks right (NTP). Nothing is lost or doubled by it: leases and due times go by the database's "
            "clock alone; but dates in letters and the age of what waits are wrong"
        )
        return Finding(False, f"against this machine: {told_all}", action)
    return Finding(True, f"against this machine: {told_all}")


def _reading(url: URL) -> Engine:
    """An engine that cannot write. On SQLite it makes no file either: where no `-wal` file lies, nobody has the
    database open, and it is read as a file that does not change.
    """
    if url.get_backend_name() == "sqlite":
        in_use = Path(f"{url.database}-wal").exists()
        how = {"mode": "ro", "uri": "true"} | ({} if in_use else {"immutable": "1"})
        path = Path(url.database or "").resolve().as_uri()
        return create_engine(URL.create(url.drivername, database=path, query=how), poolclass=NullPool)
    seconds = int(ANSWER_SECONDS)
    return create_engine(
        url if "+" in url.drivername else url.set(drivername="postgresql+psycopg"),
        poolclass=NullPool,
        connect_args={
            "connect_timeout": seconds,
            "options": f"-c statement_timeout={seconds * 1000} -c default_transaction_read_only=on",
        },
    )


def workers_answer(settings: Settings) -> tuple[Finding, ...]:
    """For each kind of worker, whether one answers that takes from its queue."""
    client = redis_client(settings.broker, timeout_seconds=ANSWER_SECONDS)
    try:
        client.ping()
    except redis.RedisError as error:
        return (silent(error),) * len(QUEUES)
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
    with make_celery(settings) as app:
        found: dict[str, list[str]] = {}
        for most in (len(QUEUES), None):
            replies = app.control.inspect(timeout=ANSWER_SECONDS, limit=most).active_queues() or {}
            for node, queues in sorted(replies.items()):
                for queue in queues:
                    found.setdefault(queue["name"], []).append(node)
            if len(replies) < len(QUEUES) or all(queue in found for queue in QUEUES.values()):
                break
            found.clear()
    return found


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
    connection = http.client.HTTPConnection(near, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
