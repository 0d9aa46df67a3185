"""The way in: `Producer` lays sealed jobs into the inbox and nudges `accept` (design §4).

A job never lies in a Celery message, because Celery on Redis may lose one; the nudge says where it is. `enqueue`
returning means handed over: the job is in Redis. When its nudge is lost after that, a chore finds it.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

import redis

from postroom.producer import inbox, names
from postroom.producer.broker import redis_client
from postroom.producer.errors import KeyUnusable, MailTooLarge, SettingsInvalid
from postroom.producer.identifiers import Ids
from postroom.producer.mail import Mail, Template, check_producer
from postroom.producer.nudge import Urgency, list_of, nudge
from postroom.producer.sealing import PublicKey, Sealer
from postroom.producer.surroundings import setting

_BATCH: Final = 100
_BATCH_BYTES: Final = 16 * 1024 * 1024
_JOB_LIMIT_BYTES: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Job:
    """One mail, ready for the inbox."""

    mail_id: UUID
    sealed: bytes
    template: Template | None
    bulk: bool


@dataclass(frozen=True, slots=True)
class _Connected:
    """What one process has open. A child that was forked must not use its parent's."""

    pid: int
    redis: redis.Redis


class Producer:
    """Hands mail over. One object serves all threads of a process, and a child that was forked from it.

    A setting that is not given is taken from the environment, else from a file of the folder of secrets (see
    `postroom.producer.surroundings`). A `.env` is the site's own and not read.

    Args:
        broker_url: Redis. Default: ``POSTROOM_BROKER_URL``, else the Redis that `postroom up` keeps in
            ``POSTROOM_DATA_DIR``.
        name: who hands over; with a mail's `key` it makes the mail's id.
        public_key: the key to seal with, its text or its file. Default: ``POSTROOM_PUBLIC_KEY``, else the file
            ``POSTROOM_PUBLIC_KEY_FILE``, else the one in the data folder.
        timeout_seconds: how long a call may wait for Redis.
        job_limit_bytes: the largest job taken. Default: ``POSTROOM_JOB_LIMIT_BYTES``, else 10 MiB.

    Raises:
        InvalidMail: the name cannot be used; `.field` is ``producer``.
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
        check_producer(name)
        data_dir = Path(setting("POSTROOM_DATA_DIR") or "postroom-data").expanduser()
        self.name = name
        self._url = broker_url or setting("POSTROOM_BROKER_URL") or names.local_broker_url(data_dir)
        self._sealer = Sealer(_public_key(public_key, data_dir))
        self._timeout_seconds = timeout_seconds
        self._job_limit_bytes = job_limit_bytes or _limit_in_force()
        self._connected: _Connected | None = self._connect()

    def enqueue(self, mail: Mail) -> UUID:
        """Hand one mail over.

        Returns:
            The mail's id: the one it has or, with a `key`, the one that the key has with this producer.

        Raises:
            MailTooLarge: the job is over the limit.
            BrokerUnavailable: Redis did not take it in time; the same `Mail` may be handed over again.
        """
        job = self._job(mail)
        self._hand_over([job])
        return job.mail_id

    def enqueue_many(self, mails: Iterable[Mail]) -> Sequence[UUID]:
        """Hand many mails over, 100 at a time; the iterable is read as it goes, and of it the ids alone are kept.

        Returns:
            Their ids, in order.

        Raises:
            MailTooLarge, BrokerUnavailable, and whatever the iterable raises: with the attribute `handed_over`, the ids
                of the mails that had been handed over before, in order. All mails before the one that is wrong are.
        """
        handed_over = Ids()
        try:
            for batch in self._batches(mails):
                self._hand_over(batch)
                for job in batch:
                    handed_over.add(job.mail_id)
        except Exception as error:
            error.handed_over = handed_over  # type: ignore[attr-defined]
            raise
        return handed_over

    def close(self) -> None:
        """Close the connections. The producer may be used again; it then connects anew."""
        connected, self._connected = self._connected, None
        if connected is not None and connected.pid == os.getpid():
            connected.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _batches(self, mails: Iterable[Mail]) -> Iterator[list[_Job]]:
        batch: list[_Job] = []
        size_bytes = 0
        try:
            for mail in mails:
                batch.append(self._job(mail))
                size_bytes += len(batch[-1].sealed)
                if len(batch) == _BATCH or size_bytes >= _BATCH_BYTES:
                    yield batch
                    batch, size_bytes = [], 0
        except Exception:
            if batch:  # what came before the wrong one is handed over
                yield batch
            raise
        if batch:
            yield batch

    def _job(self, mail: Mail) -> _Job:
        mail = mail.identified(self.name)
        job = mail.to_job()
        if len(job) > self._job_limit_bytes:
            raise MailTooLarge(
                f"the mail's job has {len(job):,} bytes, and the limit is {self._job_limit_bytes:,} "
                "(POSTROOM_JOB_LIMIT_BYTES); send a link instead of a large attachment"
            )
        return _Job(
            mail.id, self._sealer.seal(job, names.inbox_identity(mail.id)), mail.template, mail.priority == "bulk"
        )

    def _hand_over(self, batch: Sequence[_Job]) -> None:
        connected = self._connected
        if connected is None or connected.pid != os.getpid():
            connected = self._connected = self._connect()
        templates = _templates(batch)
        urgency = Urgency.BULK if all(job.bulk for job in batch) else Urgency.AT_ONCE

        def accept(fields: list[str]) -> bytes:
            return nudge(names.TASK_ACCEPT, names.QUEUE_ACCEPT, (fields, templates), origin=self.name, urgency=urgency)

        inbox.lay(
            connected.redis,
            [(str(job.mail_id), job.sealed) for job in batch],
            accept,
            nudged=list_of(names.QUEUE_ACCEPT, urgency),
            until=time.monotonic() + self._timeout_seconds,
        )

    def _connect(self) -> _Connected:
        return _Connected(os.getpid(), redis_client(self._url, timeout_seconds=self._timeout_seconds))


def _public_key(given: PublicKey | str | Path | None, data_dir: Path) -> PublicKey:
    if isinstance(given, PublicKey):
        return given
    if isinstance(given, Path):
        return PublicKey.load(given)
    text = given or setting("POSTROOM_PUBLIC_KEY")
    if text:
        try:
            return PublicKey.from_text(text)
        except KeyUnusable as error:
            raise KeyUnusable(f"{'public_key' if given else 'POSTROOM_PUBLIC_KEY'}: {error}") from None
    file = setting("POSTROOM_PUBLIC_KEY_FILE")
    return PublicKey.load(Path(file).expanduser() if file else data_dir / names.PUBLIC_KEY_IN_DATA_DIR)


def _limit_in_force() -> int:
    text = setting("POSTROOM_JOB_LIMIT_BYTES") or str(_JOB_LIMIT_BYTES)
    if not text.isdecimal():
        raise SettingsInvalid(f"POSTROOM_JOB_LIMIT_BYTES: must be a number of bytes, not {text!r}")
    return int(text)


def _templates(batch: Iterable[_Job]) -> list[dict[str, Any]]:
    """The distinct template metadata of a batch, for Flower's eyes."""
    templates = {job.template.model_dump_json(): job.template for job in batch if job.template is not None}
    return [template.model_dump(mode="json") for template in templates.values()]
