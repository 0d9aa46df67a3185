"""The inbox, seen from who hands over: jobs are laid into it, and the workers that accept are told (design §4)."""

import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import redis

from postroom.producer import names
from postroom.producer.errors import BrokerUnavailable

_PAUSE_SECONDS: Final = 0.05

_LAY: Final = """
local taken, from = {}, 1
for place = 4, #ARGV, 2 do
    local up_to = from + ARGV[place + 1]
    if redis.call('HSETNX', KEYS[1], ARGV[place], string.sub(ARGV[3], from, up_to - 1)) == 0 then
        taken[#taken + 1] = (place - 4) / 2
    end
    redis.call('ZADD', KEYS[2], 'NX', ARGV[1], ARGV[place])
    from = up_to
end
if #taken > 0 then
    return {taken, false}
end
local nudged = redis.pcall('LPUSH', KEYS[3], ARGV[2])
return {taken, type(nudged) == 'table' and nudged.err}
"""
"""All or nothing, and the nudge with it; but where a field is taken, what was to lie there is laid elsewhere first. The
jobs come as one text, and each field with its job's length: redis-py would make a system call for each long argument.
"""
_PLACE_IN_SCRIPT: Final = re.compile(r" script: [0-9a-f]{40}, on @.*", re.DOTALL)
"""Redis says it after an error of a command within a script."""

log = logging.getLogger(__name__)


def lay(
    client: redis.Redis,
    jobs: Sequence[tuple[str, bytes]],
    nudge: Callable[[list[str]], bytes],
    *,
    nudged: str,
    until: float,
) -> None:
    """Lay jobs into the inbox and nudge accept, in one step.

    A job whose id still lies there gets a field beside it: it may have another body, and the ledger compares them. A
    nudge that Redis refuses is no error: a chore finds the jobs.

    Args:
        client: Redis.
        jobs: each id with its sealed job.
        nudge: the message that tells of these fields.
        nudged: the Redis list into which it goes.
        until: a Redis that is just starting again is waited for until then, by the monotonic clock.

    Raises:
        BrokerUnavailable: Redis did not take them in time.
    """
    taken = _lay(client, jobs, nudge([field for field, _ in jobs]), nudged, until)
    if taken:
        beside = [(f"{jobs[place][0]}~{secrets.token_hex(4)}", jobs[place][1]) for place in taken]
        _lay(client, beside, nudge([field for field, _ in (*jobs, *beside)]), nudged, until)


def _lay(client: redis.Redis, jobs: Sequence[tuple[str, bytes]], nudge: bytes, nudged: str, until: float) -> list[int]:
    """Lay jobs whose fields are free, and say which are not, by their place; then there was no nudge."""
    keys = (names.INBOX, names.INBOX_AT, nudged)
    words: list[Any] = [repr(time.time()), nudge, b"".join(sealed for _, sealed in jobs)]
    for field, sealed in jobs:
        words += (field, len(sealed))
    while True:
        try:
            answer: Any = client.eval(_LAY, len(keys), *keys, *words)
        except redis.RedisError as error:
            passes = isinstance(error, redis.ConnectionError) and not isinstance(error, redis.AuthenticationError)
            if not passes or time.monotonic() + _PAUSE_SECONDS > until:
                raise BrokerUnavailable(_what_to_do(error)) from error
            time.sleep(_PAUSE_SECONDS)
        else:
            taken, refused = answer
            if refused:
                log.warning("a nudge was not published (%s); the mail waits in the inbox", refused.decode())
            return list(taken)


def _what_to_do(error: redis.RedisError) -> str:
    said = _PLACE_IN_SCRIPT.sub("", str(error)).partition("\n")[0] or type(error).__name__
    match error:
        case redis.AuthenticationError():
            return f"Redis refused to sign us in ({said}): check the password in POSTROOM_BROKER_URL"
        case redis.exceptions.OutOfMemoryError():
            return f"Redis is full ({said}): the workers must empty the inbox, or raise its maxmemory"
        case redis.exceptions.ReadOnlyError():
            return f"Redis is a read-only replica ({said}): POSTROOM_BROKER_URL must name the primary"
        case redis.ResponseError() if said.startswith("MISCONF"):
            return "Redis cannot write its append-only file (MISCONF): make room on its disk; it goes on by itself then"
        case redis.TimeoutError():
            return "Redis did not answer in time: is it running and not overloaded? `postroom doctor` tells"
        case _:
            return f"Redis cannot be used ({said}): is `postroom up` running, and POSTROOM_BROKER_URL right?"
