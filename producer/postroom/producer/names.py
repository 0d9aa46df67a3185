"""Names that other programs rely on: queues, tasks, Redis keys, and where `postroom up` keeps its Redis."""

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote
from uuid import UUID

JOB_VERSION: Final = 1

INBOX: Final = "postroom:inbox"
"""Redis hash: id → sealed job. A second job under an id that still lies here has the field ``id~suffix``."""
INBOX_AT: Final = "postroom:inbox:at"
"""Redis sorted set: the same field → Unix time in seconds when it was handed over."""

QUEUE_ACCEPT: Final = "postroom.accept"
QUEUE_DRAIN: Final = "postroom.drain"
QUEUE_CARE: Final = "postroom.care"

TASK_ACCEPT: Final = "postroom.accept"
TASK_DRAIN: Final = "postroom.drain"
TASK_VERIFY: Final = "postroom.verify"
TASK_ERASE: Final = "postroom.erase"
TASK_RELEASE: Final = "postroom.chore.release"

PUBLIC_KEY_IN_DATA_DIR: Final = Path("keys") / "public.key"

_LONGEST_SOCKET_PATH_BYTES: Final = 100
"""Linux takes 107, macOS 103; Redis adds a suffix of its own while it starts."""


def inbox_identity(mail_id: UUID) -> bytes:
    """Associated data of a job in the inbox: a box moved under another id does not open."""
    return b"postroom:inbox:" + mail_id.bytes


def local_redis_socket(data_dir: Path) -> Path:
    """Path of the Unix socket of the Redis that `postroom up` keeps for a data folder.

    A path too long for a Unix socket moves to a short one, made from the folder's own path and the user's id, so that
    every program that knows the folder finds the same socket.
    """
    data_dir = data_dir.resolve()
    inside = data_dir / "redis" / "redis.sock"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET_PATH_BYTES:
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path("/tmp") / f"postroom-{os.getuid()}" / f"{digest}.sock"  # noqa: S108 - the folder is made 0700 by `up`


def local_broker_url(data_dir: Path) -> str:
    """Broker URL, in kombu's spelling, of the Redis that `postroom up` keeps for a data folder."""
    return f"redis+socket://{quote(str(local_redis_socket(data_dir)))}"
