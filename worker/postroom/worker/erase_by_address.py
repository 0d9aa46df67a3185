"""Erasing by address, on demand (design §9): all that has ended and is from or to one address, at once.

A worker does it, since rejected jobs are sealed and only workers open them. The front lays the sealed address into
Redis and nudges; what was found comes back over a list of that request. Both are gone after minutes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

import idna
import redis
import structlog
from sqlalchemy import Select, delete, func, select

from postroom.config.tables import attempts, mails, recipients, rejects
from postroom.producer import names
from postroom.producer.errors import CannotOpen
from postroom.producer.mail import address_key
from postroom.worker import erasing
from postroom.worker.process import Process

REQUEST_SECONDS: Final = 120
ANSWER_SECONDS: Final = 300
_CHUNK: Final = 100
_ADDRESSED: Final = ("from", "to", "cc", "bcc", "reply_to")
_NOT_ASCII: Final = r"[^\x01-\x7f]"

log = structlog.get_logger(__name__)


def request_key(request_id: UUID) -> str:
    """Redis key of the sealed address."""
    return f"postroom:erase:{request_id}"


def answer_key(request_id: UUID) -> str:
    """Redis key of the list of what a worker says to a request."""
    return f"postroom:erase:{request_id}:answer"


def request_identity(request_id: UUID) -> bytes:
    """Associated data of a sealed address."""
    return b"postroom:erase:" + request_id.bytes


@dataclass(slots=True)
class Erased:
    """What was found and erased, in numbers.

    Attributes:
        mails: those erased whole: from the address, or to nobody else.
        recipients: mails to others as well, of which this recipient, the letter and the subject were erased.
        replies: servers' words that named it in other mails, of which the code is left.
        rejects: rejected jobs from or to it, deleted.
        rejects_unreadable: rejected jobs that no key here opens; they were left.
        waiting: mails from or to it that have not ended; they were left.
    """

    mails: int = 0
    recipients: int = 0
    replies: int = 0
    rejects: int = 0
    rejects_unreadable: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """One thing that a worker says to a request: that it is at work, what it erased, or why it could not."""

    erased: Erased | None = None
    why: str = ""

    def to_json(self) -> str:
        """As it lies in the list."""
        return json.dumps({"erased": None if self.erased is None else asdict(self.erased), "why": self.why})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Answer":
        """Read what lies in the list."""
        told = json.loads(text)
        return cls(None if told["erased"] is None else Erased(**told["erased"]), told["why"])


def erase_by_address(process: Process, request_id: UUID) -> None:
    """Erase what a request asks for, and say so as it goes on."""
    sealed = process.redis.getdel(request_key(request_id))
    if not isinstance(sealed, bytes):
        log.info("an erasing is no longer asked for", request=str(request_id))
        return
    tell = _Teller(process.redis, request_id)
    tell(Answer())
    try:
        address = process.ring.open(sealed, request_identity(request_id)).decode()
    except CannotOpen as error:
        tell(Answer(why=f"{error}. The public key here is not that of the workers' private ring"))
        return
    try:
        erased = _erase(process, address_key(address), tell)
    except Exception as error:
        tell(Answer(why=f"{type(error).__name__}; the care worker's log says where. What was erased stays so"))
        raise
    tell(Answer(erased))
    log.info("erased by address", request=str(request_id), **asdict(erased))


class _Teller:
    """Says things to whoever asked."""

    def __init__(self, client: redis.Redis, request_id: UUID) -> None:
        self._redis = client
        self._key = answer_key(request_id)

    def __call__(self, answer: Answer) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.rpush(self._key, answer.to_json())
        pipeline.expire(self._key, ANSWER_SECONDS)
        pipeline.execute()


def _erase(process: Process, key: str, tell: _Teller) -> Erased:
    erased = Erased()
    waiting: set[UUID] = set()
    for ids in _from_or_to(process, key):
        with process.database.read() as connection:
            unended = select(mails.c.id).where(mails.c.id.in_(ids), mails.c.ended_at.is_(None))
            waiting.update(connection.execute(unended).scalars())
        with process.database.write() as connection:
            whole, part = erasing.erase_address(connection, ids, key)
        erased.mails += whole
        erased.recipients += part
        tell(Answer())
    erased.waiting = len(waiting)
    pattern = naming(key)
    for table in (recipients, attempts):
        for ids in _walk(process, select(table.c.mail_id).where(table.c.reply.regexp_match(pattern))):
            for mail_id in ids:
                with process.database.write() as connection:
                    erased.replies += erasing.erase_replies(connection, mail_id, pattern)
            tell(Answer())
    for ids in _walk(process, select(rejects.c.id)):
        for reject_id in ids:
            _erase_reject(process, reject_id, key, erased)
        tell(Answer())
    process.database.forget(rewrite=True)
    return erased


def naming(key: str) -> str:
    """A pattern of texts that name an address, in Python's spelling and in both databases'; in any case of letters, and
    the domain as A-label or as people write it.
    """
    local, _, domain = key.rpartition("@")
    spellings = {domain, _as_people_write_it(domain)}
    any_domain = "|".join(re.escape(each) for each in sorted(spellings))
    return rf"(?i)(?<![A-Za-z0-9._%+=-]){re.escape(local)}@({any_domain})(?!\.?[A-Za-z0-9-])"


def _as_people_write_it(domain: str) -> str:
    try:
        return idna.decode(domain)
    except idna.IDNAError:
        return domain


def _from_or_to(process: Process, key: str) -> Iterator[list[UUID]]:
    """Mails from or to an address, some of them perhaps twice, and some perhaps not: whoever erases looks again.

    There is no index by sender: one more would cost every mail, and this is asked for seldom.
    """
    domain = key.rpartition("@")[2]
    lowered = func.lower(recipients.c.address)  # which is SQLite's, and knows ASCII alone
    folded = recipients.c.address.regexp_match(_NOT_ASCII) & lowered.endswith(f"@{domain}", autoescape=True)
    yield from _walk(process, select(recipients.c.mail_id).where(lowered == key))
    yield from (
        _with_recipient(process, ids, key) for ids in _walk(process, select(recipients.c.mail_id).where(folded))
    )
    yield from _walk(process, select(mails.c.id).where(mails.c.from_key == key))


def _with_recipient(process: Process, ids: list[UUID], key: str) -> list[UUID]:
    with process.database.read() as connection:
        rows = connection.execute(
            select(recipients.c.mail_id, recipients.c.address).where(recipients.c.mail_id.in_(ids))
        ).all()
    return sorted({row.mail_id for row in rows if address_key(row.address) == key})


def _walk(process: Process, query: Select[UUID]) -> Iterator[list[UUID]]:
    """The ids that a query finds, in their order and a bounded number at a time."""
    column = query.selected_columns[0]
    ordered = query.distinct().order_by(column).limit(_CHUNK)
    after = UUID(int=0)
    while True:
        with process.database.read() as connection:
            ids = list(connection.execute(ordered.where(column > after)).scalars())
        if ids:
            yield ids
        if len(ids) < _CHUNK:
            return
        after = ids[-1]


def _erase_reject(process: Process, reject_id: UUID, key: str, erased: Erased) -> None:
    with process.database.read() as connection:
        row = connection.execute(select(rejects).where(rejects.c.id == reject_id)).first()
    if row is None:
        return
    names_it = re.search(naming(key), row.error) is not None
    try:
        names_it = names_it or is_from_or_to(process.ring.open(row.sealed, names.inbox_identity(row.mail_id)), key)
    except CannotOpen:
        erased.rejects_unreadable += not names_it
    if names_it:
        with process.database.write() as connection:
            erased.rejects += connection.execute(delete(rejects).where(rejects.c.id == reject_id)).rowcount


def is_from_or_to(job: bytes, key: str) -> bool:
    """Whether a job is from or to an address, also one that is no valid mail; what is no job at all, whether its text
    names it.
    """
    pattern = re.compile(naming(key))
    try:
        fields = json.loads(job)
        texts = list(_texts([fields.get(name) for name in _ADDRESSED]))
    except (ValueError, AttributeError, RecursionError):
        return pattern.search(job.decode("utf-8", "replace")) is not None
    return any(pattern.search(text) or address_key(text.rpartition("<")[2].rstrip("> \t")) == key for text in texts)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
