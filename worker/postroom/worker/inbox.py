"""The inbox, seen from the worker: sealed jobs lie in Redis until the ledger has them.

An id taken in hand stays in the inbox. When the process dies with it, the id is found among those in hand and is taken
alone next time; only then does a try count against it, so that a bad job cannot drag its neighbours along.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import redis

from postroom.producer import names

_IN_HAND: Final = "postroom:inbox:hand"
_TRIES: Final = "postroom:inbox:tries"

MOST_AT_ONCE: Final = 100
STRAY_AFTER_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
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

    @property
    def mail_id(self) -> UUID:
        """The id that the job is sealed for."""
        return UUID(self.field.partition("~")[0])


class Inbox:
    """Takes jobs in hand and removes those that the ledger has."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def take(self, fields: Sequence[str]) -> list[Waiting]:
        """Take jobs in hand, at most 100; ids that are no longer there are passed over."""
        wanted = list(dict.fromkeys(fields))[:MOST_AT_ONCE]
        if not wanted:
            return []
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(names.INBOX, wanted)
        pipeline.smismember(_IN_HAND, wanted)
        pipeline.sadd(_IN_HAND, *wanted)
        jobs, in_hand, _ = pipeline.execute()
        gone = [field for field, job in zip(wanted, jobs, strict=True) if job is None]
        if gone:
            self.done(gone)
        return [
            Waiting(field, job, bool(crashed))
            for field, job, crashed in zip(wanted, jobs, in_hand, strict=True)
            if job is not None
        ]

    def count_try(self, field: str) -> int:
        """Count that this job is taken alone after a crash; returns how often that has happened."""
        return int(self._redis.hincrby(_TRIES, field, 1))

    def put_back(self, fields: Sequence[str]) -> None:
        """Leave jobs in the inbox: nothing was wrong with them."""
        if fields:
            self._redis.srem(_IN_HAND, *fields)

    def done(self, fields: Sequence[str]) -> None:
        """Remove jobs that the ledger has, or its reject list."""
        if not fields:
            return
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hdel(names.INBOX, *fields)
        pipeline.zrem(names.INBOX_AT, *fields)
        pipeline.srem(_IN_HAND, *fields)
        pipeline.hdel(_TRIES, *fields)
        pipeline.execute()

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
