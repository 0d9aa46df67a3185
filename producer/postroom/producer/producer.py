"""The way in: `Producer` lays sealed jobs into the inbox and nudges `accept` (design §4).

A job never lies in a Celery message, because Celery on Redis may lose one; the nudge says where it is. `enqueue`
returning means handed over: the job is in Redis. When the nudge could not be published after that, a chore finds it.
"""

import itertools
import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from postroom.producer import names
from postroom.producer.broker import celery_url, redis_client
from postroom.producer.errors import BrokerUnavailable, MailTooLarge, SettingsInvalid
from postroom.producer.mail import Mail
from postroom.producer.sealing import PublicKey

_BATCH: Final = 100
_JOB_LIMIT_BYTES: Final = 10 * 1024 * 1024
_MOST_CONNECTIONS: Final = 512

log = logging.getLogger(__name__)


class Producer:
    """Hands mail over. One object serves all threads of a process, and a child that was forked from it.

    Args:
        broker_url: Redis. Default: ``POSTROOM_BROKER_URL``, else the Redis that `postroom up` keeps in
            ``POSTROOM_DATA_DIR``.
        name: who hands over; with a mail's `key` it makes the mail's id.
        public_key: the key to seal with, its text or its file. Default: ``POSTROOM_PUBLIC_KEY``, else the file
            ``POSTROOM_PUBLIC_KEY_FILE``, else the one in the data folder.
        timeout_seconds: how long a call may wait for Redis.
        job_limit_bytes: the largest job taken. Default: ``POSTROOM_JOB_LIMIT_BYTES``, else 10 MiB.

    Raises:
        KeyUnusable: there is no public key.
        SettingsInvalid: a setting cannot be used.
    """

    def __init__(
        self,
        broker_url: str | None = None,
        name: str = "site",
        *,
        public_key: PublicKey | str | Path | None = None,
        timeout_seconds: float = 5.0,
        job_limit_bytes: int | None = None,
    ) -> None:
        data_dir = Path(os.environ.get("POSTROOM_DATA_DIR") or "postroom-data")
        self.name = name
        self._url = broker_url or os.environ.get("POSTROOM_BROKER_URL") or names.local_broker_url(data_dir)
        self._public_key = _public_key(public_key, data_dir)
        self._timeout_seconds = timeout_seconds
        self._job_limit_bytes = job_limit_bytes or _limit_from_environment()
        self._guard = threading.Lock()
        self._pid = 0
        self._connect()

    def enqueue(self, mail: Mail) -> UUID:
        """Hand one mail over.

        Returns:
            The mail's id: the one it has or, with a `key`, the one that the key has with this producer.

        Raises:
            MailTooLarge: the job is over the limit.
            BrokerUnavailable: Redis did not take it in time; nothing was handed over.
        """
        return self._hand_over([mail])[0]

    def enqueue_many(self, mails: Iterable[Mail]) -> list[UUID]:
        """Hand many mails over, 100 at a time; the iterable is read as it goes.

        Raises:
            MailTooLarge, BrokerUnavailable, and whatever the iterable raises: with the attribute `handed_over`, the ids
                that had been handed over before.
        """
        handed_over: list[UUID] = []
        waiting = iter(mails)
        try:
            while batch := list(itertools.islice(waiting, _BATCH)):
                handed_over += self._hand_over(batch)
        except Exception as error:
            error.handed_over = handed_over  # type: ignore[attr-defined]
            raise
        return handed_over

    def close(self) -> None:
        """Close the connections. The producer may be used again; it then connects anew."""
        with self._guard:
            self._redis.close()
            self._celery.close()
            self._pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hand_over(self, mails: Sequence[Mail]) -> list[UUID]:
        if self._pid != os.getpid():
            self._connect()
        identified = [mail.identified(self.name) for mail in mails]
        sealed = [(mail.id, self._sealed(mail)) for mail in identified]
        fields = self._write(sealed)
        self._nudge(fields, _templates(identified))
        return [mail.id for mail in identified]

    def _sealed(self, mail: Mail) -> bytes:
        job = mail.to_job()
        if len(job) > self._job_limit_bytes:
            raise MailTooLarge(
                f"the mail's job has {len(job):,} bytes, and the limit is {self._job_limit_bytes:,} "
                "(POSTROOM_JOB_LIMIT_BYTES); send a link instead of a large attachment"
            )
        return self._public_key.seal(job, names.inbox_identity(mail.id))

    def _write(self, jobs: Sequence[tuple[UUID, bytes]]) -> list[str]:
        """Write jobs in one transaction. A job whose id still lies in the inbox gets a field beside it: it may have
        another body, and the ledger compares them.
        """
        fields = [str(mail_id) for mail_id, _ in jobs]
        taken = self._transaction(list(zip(fields, (box for _, box in jobs), strict=True)))
        again = [
            (f"{field}~{secrets.token_hex(4)}", box)
            for field, (_, box), new in zip(fields, jobs, taken, strict=True)
            if not new
        ]
        if again:
            self._transaction(again)
        return [*fields, *(field for field, _ in again)]

    def _transaction(self, jobs: Sequence[tuple[str, bytes]]) -> list[bool]:
        now = time.time()
        try:
            pipeline = self._redis.pipeline(transaction=True)
            for field, box in jobs:
                pipeline.hsetnx(names.INBOX, field, box)
            pipeline.zadd(names.INBOX_AT, {field: now for field, _ in jobs}, nx=True)
            return [bool(new) for new in pipeline.execute()[: len(jobs)]]
        except redis.RedisError as error:
            raise BrokerUnavailable(_what_to_do(error)) from error

    def _nudge(self, fields: list[str], templates: list[dict[str, Any]]) -> None:
        try:
            self._celery.send_task(
                names.TASK_ACCEPT,
                args=[fields, templates],
                queue=names.QUEUE_ACCEPT,
                argsrepr=repr((fields, templates)),
                kwargsrepr="{}",
                ignore_result=True,
                retry=False,
            )
        except (OperationalError, redis.RedisError, OSError) as error:
            log.warning("the nudge was not published (%s); the mail is in the inbox and leaves", type(error).__name__)

    def _connect(self) -> None:
        with self._guard:
            if self._pid == os.getpid():
                return
            self._redis = redis_client(self._url, timeout_seconds=self._timeout_seconds)
            self._celery = Celery("postroom.producer", broker=celery_url(self._url), set_as_current=False)
            self._celery.conf.update(
                task_serializer="json",
                accept_content=["json"],
                broker_connection_timeout=self._timeout_seconds,
                broker_pool_limit=_MOST_CONNECTIONS,
                broker_transport_options={
                    "socket_timeout": self._timeout_seconds,
                    "socket_connect_timeout": self._timeout_seconds,
                    "max_connections": _MOST_CONNECTIONS,
                    "max_retries": 0,
                },
            )
            self._pid = os.getpid()


def _public_key(given: PublicKey | str | Path | None, data_dir: Path) -> PublicKey:
    if isinstance(given, PublicKey):
        return given
    if isinstance(given, Path):
        return PublicKey.load(given)
    text = given or os.environ.get("POSTROOM_PUBLIC_KEY")
    if text:
        return PublicKey.from_text(text)
    file = os.environ.get("POSTROOM_PUBLIC_KEY_FILE")
    return PublicKey.load(Path(file) if file else data_dir / names.PUBLIC_KEY_IN_DATA_DIR)


def _limit_from_environment() -> int:
    text = os.environ.get("POSTROOM_JOB_LIMIT_BYTES") or str(_JOB_LIMIT_BYTES)
    if not text.isdigit():
        raise SettingsInvalid(f"POSTROOM_JOB_LIMIT_BYTES: must be a number of bytes, not {text!r}")
    return int(text)


def _templates(mails: Iterable[Mail]) -> list[dict[str, Any]]:
    """The distinct template metadata of a batch, for Flower's eyes."""

    def each() -> Iterator[dict[str, Any]]:
        for mail in mails:
            if mail.template is not None:
                yield mail.template.model_dump(mode="json")

    distinct: list[dict[str, Any]] = []
    for template in each():
        if template not in distinct:
            distinct.append(template)
    return distinct


def _what_to_do(error: redis.RedisError) -> str:
    said = str(error).splitlines()[0] if str(error) else type(error).__name__
    match error:
        case redis.AuthenticationError():
            return f"Redis refused to sign us in ({said}): check the password in POSTROOM_BROKER_URL"
        case redis.exceptions.OutOfMemoryError():
            return f"Redis is full ({said}): the workers must empty the inbox, or raise its maxmemory"
        case redis.exceptions.ReadOnlyError():
            return f"Redis is a read-only replica ({said}): POSTROOM_BROKER_URL must name the primary"
        case redis.TimeoutError():
            return "Redis did not answer in time: is it running and not overloaded? `postroom doctor` tells"
        case _:
            return f"Redis cannot be used ({said}): is `postroom up` running, and POSTROOM_BROKER_URL right?"
