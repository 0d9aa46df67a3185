"""What the doctor asks Redis: whether it keeps what it has taken, and whether the inbox and the clock move."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import redis

from postroom.config.settings import Settings
from postroom.front.doctor_checks import Finding
from postroom.producer import names
from postroom.producer.broker import redis_client
from postroom.producer.nudge import Urgency, list_of
from postroom.worker.celery_app import CHORE_PERIODS_SECONDS, LAST_RUN_KEPT_SECONDS, QUEUES, last_run_key

SEE_REDIS: Final = "Start `postroom up`; if Redis is not its own, look at the one of POSTROOM_BROKER_URL"
_FULL: Final = (
    "Raise its maxmemory. The accept worker takes the inbox out of a full Redis by itself: see that it runs, and the "
    "database; if the inbox is empty, look what else lies in this Redis"
)
_DISK_FULL: Final = "Make room on the disk of Redis; it goes on by itself then, and restarting it does not help"

ANSWER_SECONDS: Final = 2.0
_NEARLY_FULL: Final = 0.8
_OLDEST_REDIS: Final = 7
_STRAY_SECONDS: Final = 300.0
_CHORE_SECONDS: Final = 30.0
_FIRST_CHORE_SECONDS: Final = 2.0


def _asking_redis(check: Callable[[Settings, redis.Redis], Finding]) -> Callable[[Settings], Finding]:
    """Give the check a client that waits a short time, and turn its silence into a finding."""

    @wraps(check)
    def ask(settings: Settings) -> Finding:
        client = redis_client(settings.broker, timeout_seconds=ANSWER_SECONDS)
        try:
            return check(settings, client)
        except redis.RedisError as error:
            return silent(error)
        finally:
            client.close()

    return ask


def silent(error: redis.RedisError) -> Finding:
    """A finding of a Redis that gave an error for an answer, or none."""
    if action := unwritable(error):
        return Finding(False, f"Redis takes no writes: {error}", action)
    return Finding(False, f"Redis does not answer: {error or type(error).__name__}", SEE_REDIS)


def unwritable(error: BaseException | None) -> str:
    """What to do where Redis answers and takes no writes; nothing if that is not what the error says."""
    while error is not None:
        if isinstance(error, redis.exceptions.OutOfMemoryError):
            return _FULL
        if isinstance(error, redis.ResponseError) and "MISCONF" in str(error):
            return _DISK_FULL
        error = error.__cause__ or error.__context__
    return ""


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
        return Finding(False, "cannot write its append-only file: its disk is full or broken", _DISK_FULL)
    if info["maxmemory_policy"] != "noeviction":
        wrong.append(f"may throw mail away (maxmemory-policy {info['maxmemory_policy']})")
    if wrong:
        action = "In its configuration set appendonly yes and maxmemory-policy noeviction; `postroom up` sets both"
        return Finding(False, "; ".join(wrong), action)
    used, most = int(info["used_memory"]), int(info["maxmemory"])
    if most and used > _NEARLY_FULL * most:
        return Finding(False, f"{used / most:.0%} of its maxmemory of {most / 1024**2:,.0f} MiB is used", _FULL)
    name = info.get("server_name", "redis")
    return Finding(True, f"{name} {info.get('valkey_version', version)}, append-only file, noeviction")


@_asking_redis
def inbox_moves(_settings: Settings, client: redis.Redis) -> Finding:
    """Whether jobs leave the inbox."""
    count = int(client.hlen(names.INBOX))
    nudges = ", ".join(f"{kind} {_length(client, queue)}" for kind, queue in QUEUES.items())
    oldest: Any = client.zrange(names.INBOX_AT, 0, 0, withscores=True)
    if not oldest:
        return Finding(True, f"{count} waiting; nudges: {nudges}")
    age = max(0.0, float(client.time()[0]) - oldest[0][1])
    message = f"{count} waiting, the oldest for {age:.0f} s; nudges: {nudges}"
    if age > _STRAY_SECONDS:
        return Finding(
            False, message, "See that worker_accept and database are well, then read the accept worker's log"
        )
    return Finding(True, message)


def _length(client: redis.Redis, queue: str) -> int:
    return sum(client.llen(list_of(queue, urgency)) for urgency in Urgency)


@_asking_redis
def scheduler_lives(_settings: Settings, client: redis.Redis) -> Finding:
    """Whether chores run. One that was started a moment ago is given time for its first."""
    until = time.monotonic() + _FIRST_CHORE_SECONDS
    while (age := _since_last(client, "due")) is None or age >= _CHORE_SECONDS:
        if time.monotonic() > until:
            what = "no chore has ever run" if age is None else f"the last chore ran {age:.0f} s ago"
            action = "Start `postroom up`, or `postroom scheduler` alone; chores need worker_care as well"
            return Finding(False, what, action)
        time.sleep(0.1)
    ages = {chore: passed for chore in CHORE_PERIODS_SECONDS if (passed := _since_last(client, chore)) is not None}
    told = ", ".join(f"{chore} {passed:.0f} s" for chore, passed in ages.items())
    if late := [chore for chore, passed in ages.items() if passed > 3 * CHORE_PERIODS_SECONDS[chore] + _CHORE_SECONDS]:
        action = f"Read the care worker's log: {', '.join(late)} fail there"
        return Finding(False, f"some chores ended long ago: {told}", action)
    return Finding(True, f"the last chore ran {age:.0f} s ago; each: {told}")


def _since_last(client: redis.Redis, chore: str) -> float | None:
    """Seconds since a chore last ended, by the clock of Redis; None if it never has."""
    left_seconds = int(client.pttl(last_run_key(chore))) / 1000
    return None if left_seconds < 0 else max(0.0, LAST_RUN_KEPT_SECONDS - left_seconds)
