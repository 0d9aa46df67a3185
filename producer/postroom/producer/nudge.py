"""The nudge: a Celery message that says where work is, never what it is (design §4).

It is written here and not by Celery, which takes in what belongs to the site around it: the broker and result backend
of ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND``, the ids and stamps of the task that is running, and whatever
receivers of ``before_task_publish`` add, such as the user's name. And what is written can go to Redis with the jobs
that it tells of. The parts are those of Celery's message protocol 2, in the envelope of kombu's virtual transports.
"""

import base64
import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final
from uuid import uuid4

_HEADERS: Final[dict[str, Any]] = {
    "lang": "py",
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "kwargsrepr": "{}",
    "ignore_result": True,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
_NOTHING_AFTERWARDS: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_PERSISTENT: Final = 2


class Urgency(IntEnum):
    """Which of a queue's Redis lists a nudge goes into: Celery's workers read them in this order."""

    AT_ONCE = 0
    SOON = 3
    """Of what was left lying: its first nudge was lost."""
    BULK = 9


def list_of(queue: str, urgency: Urgency) -> str:
    """The Redis list into which a nudge for a queue goes, as kombu names it."""
    return f"{queue}\x06\x16{urgency}" if urgency else queue


def nudge(task: str, queue: str, arguments: Sequence[Any], *, origin: str, urgency: Urgency = Urgency.AT_ONCE) -> bytes:
    """The message that a worker finds at the head of its queue, in the list that `list_of` names.

    Args:
        task: which.
        queue: of the workers that take it.
        arguments: the task's, as JSON can say them; Flower shows them.
        origin: who nudges; Flower shows it.
        urgency: the same as for `list_of`.
    """
    task_id = str(uuid4())
    body = json.dumps((arguments, {}, _NOTHING_AFTERWARDS))
    headers = {
        **_HEADERS,
        "task": task,
        "id": task_id,
        "root_id": task_id,
        "argsrepr": repr(tuple(arguments)),
        "origin": origin,
    }
    properties = {
        "correlation_id": task_id,
        "reply_to": "",
        "delivery_mode": _PERSISTENT,
        "delivery_info": {"exchange": "", "routing_key": queue},
        "priority": urgency,
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
    }
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(message).encode()
