"""The inbox, seen from the worker: sealed jobs lie in Redis until the ledger has them.

An id taken in hand stays in the inbox. When the process dies with it, the id is found among those in hand and is taken
alone next time; only then does a try count against it, so that a bad job cannot drag its neighbours along.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import redis

from postroom.producer import names

_IN_HAND: Final = "postroom:inbox:hand"
_TRIES: Final = "postroom:inbox:tries"

_TAKE: Final = """#!lua flags=allow-oom
local jobs, in_hand = redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('SMISMEMBER', KEYS[2], unpack(ARGV))
for place, field in ipairs(ARGV) do
    if jobs[place] then
        redis.call('SADD', KEYS[2], field)
    end
end
return {jobs, in_hand}
"""
"""Note as in hand what is there. A Redis that is full must let itself be emptied: hence allow-oom (Redis 7)."""

_COUNT: Final = """#!lua flags=allow-oom
return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
"""

_REMOVE: Final = """
for place = 1, #ARGV, 2 do
    local field, digest = ARGV[place], ARGV[place + 1]
    local job = redis.call('HGET', KEYS[1], field)
    if job and redis.sha1hex(job) == digest then
        redis.call('HDEL', KEYS[1], field)
        redis.call('ZREM', KEYS[2], field)
    end
    redis.call('SREM', KEYS[3], field)
    redis.call('HDEL', KEYS[4], field)
end
"""
"""Compare and remove: the digest tells the job that was read from another one."""

MOST_AT_ONCE: Final = 100
STRAY_AFTER_SECONDS: Final = 30


@dataclass(frozen=True)
class Waiting:
    """One job as it lies in the inbox.

    Attributes:
        field: the inbox's field: the mail's id, with ``~suffix`` for a further job under an id that lay there.
        sealed: the sealed job.
        crashed: a process died with it in hand.
    """

    field: str
    sealed: bytes
    crashed: bool

    @cached_property
    def mail_id(self) -> UUID:
        """The id that the job is sealed for; the nil UUID for a field that is none, so that it opens for nobody."""
        try:
            return UUID(self.field.partition("~")[0])
        except ValueError:
            return UUID(int=0)


class Inbox:
    """Takes jobs in hand and removes those that the ledger has."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._take = client.register_script(_TAKE)
        self._count = client.register_script(_COUNT)
        self._remove = client.register_script(_REMOVE)

    def take(self, fields: Sequence[str]) -> list[Waiting]:
        """Take jobs in hand, at most 100; ids that are no longer there are passed over."""
        wanted = list(dict.fromkeys(fields))[:MOST_AT_ONCE]
        if not wanted:
            return []
        jobs, in_hand = self._take(keys=[names.INBOX, _IN_HAND], args=wanted)
        return [
            Waiting(field, job, bool(crashed))
            for field, job, crashed in zip(wanted, jobs, in_hand, strict=True)
            if job is not None
        ]

    def count_try(self, field: str) -> int:
        """Count that this job is taken alone after a crash; returns how often that has happened."""
        return int(self._count(keys=[_TRIES], args=[field]))

    def put_back(self, fields: Sequence[str]) -> None:
        """Leave jobs in the inbox: nobody died with them in hand."""
        if fields:
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.srem(_IN_HAND, *fields)
            pipeline.hdel(_TRIES, *fields)
            pipeline.execute()

    def done(self, taken: Sequence[Waiting]) -> None:
        """Remove jobs that the ledger has, or its reject list. One laid under the same field meanwhile stays."""
        if taken:
            told = [part for each in taken for part in (each.field, _digest(each.sealed))]
            self._remove(keys=[names.INBOX, names.INBOX_AT, _IN_HAND, _TRIES], args=told)

    def strays(self, *, older_than_seconds: float = STRAY_AFTER_SECONDS, most: int = 1000) -> list[str]:
        """Fields of jobs that have lain here for so long, oldest first: their nudge was lost, or a worker died.

        Times are the producers' own; one far in the future is of a clock that is wrong, and no reason to wait.
        """
        now = float(self._redis.time()[0])
        past: Any = self._redis.zrangebyscore(names.INBOX_AT, "-inf", now - older_than_seconds, start=0, num=most)
        future: Any = self._redis.zrangebyscore(names.INBOX_AT, now + older_than_seconds, "+inf", start=0, num=most)
        return [field.decode() for field in (*past, *future)]

    def return_job(self, field: str, sealed: bytes) -> None:
        """Lay a rejected job into the inbox again."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hset(names.INBOX, field, sealed)
        pipeline.zadd(names.INBOX_AT, {field: float(self._redis.time()[0])})
        pipeline.hdel(_TRIES, field)
        pipeline.srem(_IN_HAND, field)
        pipeline.execute()


def _digest(sealed: bytes) -> str:
    return hashlib.sha1(sealed, usedforsecurity=False).hexdigest()  # the one that Redis has
