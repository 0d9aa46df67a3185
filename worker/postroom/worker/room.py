"""A Redis that takes no write: full, or its disk is full. Celery cannot listen to it, so a worker waits before it does.

Nothing but jobs makes Redis full, and the ledger wants them anyway: the accept worker takes them without being nudged,
and that makes room.
"""

from typing import Any, Final

import redis
import structlog

from postroom.config.away import is_away
from postroom.producer import names
from postroom.worker.accept import accept
from postroom.worker.process import Process

_TRIAL: Final = "postroom:trial"
_PAUSE_SECONDS: Final = 2.0
_FULL: Final = 0.9
"""Share of maxmemory. The little that a worker frees when it ends is taken again when it listens."""

log = structlog.get_logger(__name__)


def wait_for_room(process: Process, kind: str) -> None:
    """Return when Redis takes writes, or does not answer at all: Celery waits for it then."""
    told = ""
    while not process.stopping.is_set() and (why := _refusal(process.redis, kind)):
        if why != told:
            log.error("Redis takes no writes; this worker does not listen until it does", why=why)
            told = why
        if kind != "accept" or not _empties(process):
            process.stopping.wait(_PAUSE_SECONDS)
    if told:
        log.warning("Redis takes writes again")


def _refusal(client: redis.Redis, kind: str) -> str:
    """Why Redis refuses writes, or soon will while there is an inbox to empty; nothing if it takes them or is away."""
    try:
        client.set(_TRIAL, b"", px=1000)
        memory: Any = client.info("memory")
        nearly = memory["maxmemory"] and memory["used_memory"] > _FULL * memory["maxmemory"]
        return "it is nearly full" if nearly and kind == "accept" and client.hlen(names.INBOX) else ""
    except redis.exceptions.OutOfMemoryError:
        return "it is full: raise its maxmemory if emptying the inbox is not enough"
    except redis.ConnectionError:
        return ""
    except redis.ResponseError as error:
        said = str(error)
        return "it cannot write its append-only file: is its disk full?" if said.startswith("MISCONF") else ""


def _empties(process: Process) -> bool:
    """Take from the inbox what lies longest; whether there was something."""
    try:
        fields = process.inbox.strays(older_than_seconds=0, most=100)
        accept(process, fields)
    except Exception as error:
        if is_away(error) or isinstance(error, redis.RedisError):
            log.warning("the inbox could not be emptied", error=type(error).__name__)
            return False
        raise
    return bool(fields)
