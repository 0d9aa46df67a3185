"""The doctor with one thing wrong at a time; programs that are not needed for it do not run."""

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import create_engine, text

from postroom.config import accounts, vault
from postroom.config.accounts import Account
from postroom.config.database import Database
from postroom.config.settings import Settings
from postroom.config.states import Auth, Security
from postroom.front import doctor_redis, doctor_services
from postroom.front.doctor import Check, Report
from postroom.front.doctor_checks import Finding
from postroom.producer import names
from postroom.producer.identifiers import uuid7
from postroom.producer.sealing import PublicKey
from postroom.worker.celery_app import CHORE_PERIODS_SECONDS, LAST_RUN_KEPT_SECONDS, RING_KEY, last_run_key
from servers.redis_server import RedisServer

Examine = Callable[[Settings], Report]


def found(report: Report, name: str) -> Check:
    [check] = [check for check in report.checks if check.name == name]
    return check


def with_(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@dataclass(frozen=True)
class Illness:
    """What is done to the data folder, the check that must find it, and what must be said."""

    check: str
    cause: Callable[[Settings], object]
    message: str
    action: str

    def __str__(self) -> str:
        return f"{self.check}-{self.message.split()[0]}"


def _older_schema(settings: Settings) -> None:
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    engine.dispose()


def _no_schema(settings: Settings) -> None:
    path = Path(settings.database.removeprefix("sqlite:///"))
    path.unlink()
    engine = create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE other (id INTEGER)"))
    engine.dispose()


ILLNESSES = [
    Illness("data_folder", lambda s: shutil.rmtree(s.data_dir), "is not there", "postroom up"),
    Illness("private_ring", lambda s: s.ring_file.chmod(0o644), "0644", "chmod 600"),
    Illness("private_ring", lambda s: s.ring_file.unlink(), "is not there", "backup"),
    Illness("public_key", lambda s: s.public_file.unlink(), "no such public key file", "keygen"),
    Illness("public_key", lambda s: s.public_file.write_text("rubbish"), "is no public key", "keygen"),
    Illness("front_key", lambda s: s.front_file.chmod(0o640), "0640", "chmod 600"),
    Illness("front_key", lambda s: s.front_file.unlink(), "no such key file", "keygen"),
    Illness("database", lambda s: Path(s.database.removeprefix("sqlite:///")).unlink(), "is not there", "migrate"),
    Illness("database", _older_schema, "revision 0001", "migrate"),
    Illness("database", _no_schema, "has no schema", "migrate"),
]


@pytest.mark.parametrize("illness", ILLNESSES, ids=str)
def test_it_names_what_is_wrong_on_the_disk_and_changes_nothing(
    illness: Illness, settings: Settings, examine: Examine, tmp_path: Path
) -> None:
    assert found(examine(settings), illness.check).ok
    illness.cause(settings)
    before = listing(tmp_path)
    check = found(examine(settings), illness.check)
    assert not check.ok
    assert illness.message in check.message
    assert illness.action in check.action
    assert listing(tmp_path) == before


def test_it_does_not_open_the_private_ring(settings: Settings, examine: Examine) -> None:
    settings.ring_file.write_bytes(b"\xff no key at all")
    before = settings.ring_file.stat().st_atime_ns
    assert found(examine(settings), "private_ring").ok
    assert settings.ring_file.stat().st_atime_ns == before


def test_a_setting_that_cannot_be_used_is_the_only_finding(settings: Settings, examine: Examine) -> None:
    report = examine(with_(settings, drain_threads=0))
    assert not report.ok
    [check] = report.checks
    assert check.name == "settings"
    assert "POSTROOM_DRAIN_THREADS" in check.message


def test_a_variable_that_is_no_setting_is_named_and_no_failure(
    settings: Settings, examine: Examine, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("POSTROOM_FLOWR_AUTH=me:secret\n")
    check = found(examine(settings), "settings")
    assert check.ok
    assert (
        "POSTROOM_FLOWR_AUTH (.env) is no setting and has no effect; did you mean POSTROOM_FLOWER_AUTH?"
        in check.message
    )
    assert "secret" not in check.message


def test_secrets_are_masked_in_what_is_shown(settings: Settings, examine: Examine) -> None:
    report = examine(
        with_(
            settings,
            database_url="postgresql://postroom:s3cret-db@127.0.0.1:1/mail",
            broker_url="redis://:s3cret-redis@127.0.0.1:1/0",
            flower_auth="me:s3cret-flower",
        )
    )
    shown = str(report.to_json())
    assert "s3cret" not in shown
    assert report.settings["POSTROOM_BROKER_URL"] == "redis://:***@127.0.0.1:1/0"
    assert not found(report, "database").ok


def test_redis_away(settings: Settings, examine: Examine) -> None:
    report = examine(settings)
    for name in ("redis", "inbox", "worker_accept", "worker_drain", "worker_care", "scheduler"):
        check = found(report, name)
        assert not check.ok
        assert "postroom up" in check.action


@pytest.mark.parametrize("what", ["redis_paused", "postgresql_silent"])
def test_it_ends_in_time_whatever_hangs(
    what: str, settings: Settings, examine: Examine, redis_server: RedisServer, silent_port: int
) -> None:
    if what == "redis_paused":
        redis_server.pause()
        settings = with_(settings, broker_url=redis_server.url)
        sick = "redis"
    else:
        settings = with_(settings, database_url=f"postgresql://postroom@127.0.0.1:{silent_port}/mail")
        sick = "database"
    began_at = time.monotonic()
    report = examine(settings)
    assert time.monotonic() - began_at < 8
    assert not found(report, sick).ok


def test_a_healthy_redis_without_workers(settings: Settings, examine: Examine, redis_server: RedisServer) -> None:
    report = examine(with_(settings, broker_url=redis_server.url))
    assert found(report, "redis").ok
    assert found(report, "inbox").ok
    for kind in ("accept", "drain", "care"):
        check = found(report, f"worker_{kind}")
        assert not check.ok
        assert f"postroom.{kind}" in check.message
        assert f"`postroom worker {kind}`" in check.action
    assert "no chore has ever run" in found(report, "scheduler").message


@pytest.mark.parametrize(
    ("option", "value"),
    [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")],
)
def test_a_redis_that_may_lose_mail(option: str, value: str, settings: Settings, redis_server: RedisServer) -> None:
    patient = with_(settings, broker_url=redis_server.url)
    assert doctor_redis.redis_keeps(patient).ok
    with redis_server.client() as client:
        client.config_set(option, value)
    finding = doctor_redis.redis_keeps(patient)
    assert not finding.ok
    assert f"{option} {value}" in finding.message
    assert "noeviction" in finding.action


def test_jobs_that_stay_in_the_inbox(settings: Settings, redis_server: RedisServer) -> None:
    patient = with_(settings, broker_url=redis_server.url)
    with redis_server.client() as client:
        for age_seconds, ok in ((200, True), (400, False)):
            client.hset(names.INBOX, str(age_seconds), b"sealed")
            client.zadd(names.INBOX_AT, {str(age_seconds): time.time() - age_seconds})
            assert doctor_redis.inbox_moves(patient).ok is ok
    assert "2 waiting" in doctor_redis.inbox_moves(patient).message


def _ran(client: redis.Redis, chore: str, *, seconds_ago: int) -> None:
    client.set(last_run_key(chore), b"", ex=LAST_RUN_KEPT_SECONDS - seconds_ago)


@pytest.mark.parametrize(("age_seconds", "ok"), [(20, True), (40, False)])
def test_a_scheduler_that_has_stopped(
    age_seconds: int, ok: bool, settings: Settings, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        _ran(client, "due", seconds_ago=age_seconds)
    finding = doctor_redis.scheduler_lives(with_(settings, broker_url=redis_server.url))
    assert finding.ok is ok
    assert f"{age_seconds} s ago" in finding.message or f"{age_seconds + 2} s ago" in finding.message


@pytest.mark.parametrize(
    ("status_of", "said"),
    [({"/healthcheck": 200}, "without a password"), ({}, "health check says 404")],
)
def test_something_else_than_flower_at_its_address(
    status_of: dict[str, int], said: str, settings: Settings, web_server: Callable[[dict[str, int]], int]
) -> None:
    port = web_server(status_of)
    finding = doctor_services.flower_answers(with_(settings, flower_bind=f"127.0.0.1:{port}"))
    assert not finding.ok
    assert said in finding.message


def test_a_nearly_full_redis_and_what_to_do(settings: Settings, redis_server: RedisServer) -> None:
    patient = with_(settings, broker_url=redis_server.url)
    with redis_server.client() as client:
        client.config_set("maxmemory", "100mb")
        assert doctor_redis.redis_keeps(patient).ok
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 1000)
    finding = doctor_redis.redis_keeps(patient)
    assert not finding.ok
    assert "% of its maxmemory" in finding.message
    assert finding.action.startswith("Raise its maxmemory")


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed"), "Raise its maxmemory"),
        (redis.ResponseError("MISCONF Errors writing to the AOF file"), "Make room on the disk of Redis"),
        (redis.ConnectionError("refused"), "Start `postroom up`"),
    ],
    ids=["full", "disk full", "away"],
)
def test_the_advice_fits_what_redis_says(
    error: Exception, action: str, settings: Settings, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(redis.Redis, "execute_command", refuses)
    report = examine(settings)
    for name in ("redis", "inbox", "worker_drain", "scheduler"):
        assert found(report, name).action.startswith(action), name


def test_a_full_redis_breaks_the_question_to_the_workers_and_the_advice_fits(
    settings: Settings, examine: Examine, redis_server: RedisServer
) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", "1mb")
    report = examine(with_(settings, broker_url=redis_server.url))
    for name in ("redis", "worker_accept"):
        check = found(report, name)
        assert not check.ok
        assert check.action.startswith("Raise its maxmemory"), check


def test_a_chore_that_fails_while_others_run(settings: Settings, redis_server: RedisServer) -> None:
    patient = with_(settings, broker_url=redis_server.url)
    with redis_server.client() as client:
        for chore in CHORE_PERIODS_SECONDS:
            _ran(client, chore, seconds_ago=0)
        assert "leases 0 s" in doctor_redis.scheduler_lives(patient).message
        _ran(client, "leases", seconds_ago=300)
    finding = doctor_redis.scheduler_lives(patient)
    assert not finding.ok
    assert "leases 300 s" in finding.message
    assert "leases fail there" in finding.action


def test_nudges_are_counted(settings: Settings, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.rpush(names.QUEUE_DRAIN, b"x", b"y")
    assert (
        "nudges: accept 0, drain 2, care 0"
        in doctor_redis.inbox_moves(with_(settings, broker_url=redis_server.url)).message
    )


@pytest.mark.parametrize(("ahead_seconds", "ok"), [(20, True), (600, False), (-600, False)])
def test_a_clock_that_is_wrong(
    ahead_seconds: int,
    ok: bool,
    settings: Settings,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true_time = time.time
    monkeypatch.setattr("postroom.front.doctor_services.time.time", lambda: true_time() - ahead_seconds)
    finding = doctor_services.clocks_agree(with_(settings, broker_url=redis_server.url))
    assert finding.ok is ok
    assert f"Redis {ahead_seconds:+d} s" in finding.message
    assert ok or "Nothing is lost or doubled" in finding.action


def test_keys_that_the_workers_do_not_hold(settings: Settings, redis_server: RedisServer) -> None:
    patient = with_(settings, broker_url=redis_server.url)
    ours = vault.public_key(settings).key_id.hex()
    assert "no worker has told" in doctor_services.ledger_holds(patient)[-1].message
    with redis_server.client() as client:
        client.set(RING_KEY, f"{'ab' * 8} {ours}")
        assert doctor_services.ledger_holds(patient)[-1] == Finding(True, "1 needed, all in the workers' private ring")
        client.set(RING_KEY, "ab" * 8)
    finding = doctor_services.ledger_holds(patient)[-1]
    assert not finding.ok
    assert f"{ours}: what is sealed from now on" in finding.message
    assert "backup" in finding.action


def test_a_password_that_no_worker_can_open_is_told(settings: Settings, redis_server: RedisServer) -> None:
    lost = PublicKey.of(X25519PrivateKey.generate())
    account = Account(
        id=uuid7(),
        address="shop@shop.example",
        host="localhost",
        port=25,
        security=Security.TLS,
        auth=Auth.AUTO,
        password=lost.seal(b"s3cret", b"x"),
    )
    ledger = Database(settings.database)
    with ledger.write() as connection:
        accounts.add(connection, account)
    ledger.close()
    with redis_server.client() as client:
        client.set(RING_KEY, vault.public_key(settings).key_id.hex())
    finding = doctor_services.ledger_holds(with_(settings, broker_url=redis_server.url))[-1]
    assert not finding.ok
    assert f"{lost.key_id.hex()}: 1 passwords" in finding.message
