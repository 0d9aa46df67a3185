"""Accept: jobs from the inbox to the ledger (design §4).

Read, open, validate, choose, insert, commit, and only then remove from the inbox. A known id changes nothing; the same
key with another body, and whatever cannot be taken, goes to the reject list with its error and can be replayed.
"""

import email.parser
import email.policy
import email.utils
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import redis
import structlog
from sqlalchemy import Connection, bindparam, insert, literal, select

from postroom.config.away import is_away
from postroom.config.database import now
from postroom.config.states import HeldReason, MailState, OnUncertain, PriorityRank, RecipientState
from postroom.config.tables import letters, mails, recipients, rejects
from postroom.producer import names
from postroom.producer.errors import CannotOpen, InvalidMail, NewerBox, NewerJob
from postroom.producer.identifiers import uuid7
from postroom.producer.mail import Address, Mail, address_key
from postroom.worker import turns
from postroom.worker.inbox import MOST_AT_ONCE, Waiting
from postroom.worker.inserting import insert_new_rows
from postroom.worker.lanes import Chooser
from postroom.worker.letter.content import Letter
from postroom.worker.letter.from_mail import letter_of
from postroom.worker.letter.raw import values
from postroom.worker.process import Process, letter_identity
from postroom.worker.turns import Coming

_MOST_TRIES: Final = 5
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")

_CLOCK_AND_KNOWN: Final = select(now().label("clock"), mails.c.id, mails.c.body_hash).select_from(
    select(literal(1)).subquery("once").outerjoin(mails, mails.c.id.in_(bindparam("ids", expanding=True)))
)
_NEW_LETTERS: Final = insert(letters)

log = structlog.get_logger(__name__)


class _Raced(Exception):
    """Another accept recorded one of these mails in the meantime."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A job that is a valid mail."""

    waiting: Waiting
    mail: Mail
    body_hash: bytes
    from_: Address


@dataclass(frozen=True, slots=True)
class _Rejected:
    """A job that cannot be taken, and why."""

    waiting: Waiting
    error: str
    producer: str | None = None


@dataclass(frozen=True, slots=True)
class _Inserted:
    """What became of opened jobs.

    Attributes:
        mails: how many are new in the ledger; the others were known.
        other_body: those that are refused since their key was used with another body.
        lanes: the accounts that got mail.
    """

    mails: int
    other_body: list[_Rejected]
    lanes: set[UUID]


def accept(process: Process, fields: Sequence[str]) -> None:
    """Bring jobs from the inbox to the ledger, then nudge the lanes that got mail."""
    for start in range(0, len(fields), MOST_AT_ONCE):
        waiting = process.inbox.take(fields[start : start + MOST_AT_ONCE])
        _record_all(process, [each for each in waiting if not each.crashed])
        for each in waiting:
            if each.crashed:
                _take_alone(process, each)


def _take_alone(process: Process, waiting: Waiting) -> None:
    tries = process.inbox.count_try(waiting.field)
    if tries <= _MOST_TRIES:
        _record_all(process, [waiting])
        return
    error = f"a worker died {_MOST_TRIES} times with this job in hand"
    with process.database.write() as connection:
        _reject(connection, [_Rejected(waiting, error)])
    process.inbox.done([waiting])


def _record_all(process: Process, batch: Sequence[Waiting]) -> None:
    """Record a batch; where one job makes that fail, find it, reject it, and let the others through."""
    try:
        _record(process, batch)
    except Exception as error:
        if is_away(error) or isinstance(error, redis.RedisError):
            raise
        for each in batch if len(batch) > 1 else ():
            _record_all(process, [each])
        if len(batch) == 1:
            with process.database.write() as connection:
                _reject(connection, [_Rejected(batch[0], f"cannot be taken: {type(error).__name__}")])
            process.inbox.done(batch)


def _record(process: Process, batch: Sequence[Waiting]) -> None:
    if not batch:
        return
    done: list[Waiting] = []
    try:
        opened, rejected = _open(process, batch)
        inserted = _write(process, opened, rejected)
        done = [each.waiting for each in opened] + [each.waiting for each in rejected]
    finally:
        fields = {each.field for each in done}
        process.inbox.put_back([each.field for each in batch if each.field not in fields])
    process.inbox.done(done)
    for account_id in inserted.lanes:
        process.nudges.drain(account_id)
    refused = len(rejected) + len(inserted.other_body)
    log.info("accepted", mails=inserted.mails, known=len(done) - inserted.mails - refused, rejected=refused)


def _write(process: Process, opened: Sequence[_Opened], rejected: Sequence[_Rejected]) -> _Inserted:
    """Record in one transaction; in another one if the first met what somebody else was recording: it is known now."""
    while True:
        try:
            with process.database.write() as connection:
                inserted = _insert(process, connection, opened)
                _reject(connection, [*rejected, *inserted.other_body])
                return inserted
        except _Raced:
            continue


def _open(process: Process, batch: Sequence[Waiting]) -> tuple[list[_Opened], list[_Rejected]]:
    """Open and validate. A job of a newer version is in neither list: it stays for a newer worker."""
    opened: list[_Opened] = []
    rejected: list[_Rejected] = []
    for waiting in batch:
        mail: Mail | None = None
        try:
            job = process.ring.open(waiting.sealed, names.inbox_identity(waiting.mail_id))
            _check_size(job, process.settings.job_limit_bytes)
            mail = Mail.from_job(job)
            _check_id(mail, waiting)
            body_hash = process.front_key.hash("body", mail.body())
            opened.append(_Opened(waiting, mail, body_hash, _from(mail)))
        except (NewerJob, NewerBox) as newer:
            log.warning("a job is left for a newer worker", mail=str(waiting.mail_id), why=str(newer))
        except (CannotOpen, InvalidMail) as error:
            rejected.append(_Rejected(waiting, str(error), mail.producer if mail else None))
    return opened, rejected


def _check_size(job: bytes, limit_bytes: int) -> None:
    if len(job) > limit_bytes:
        why = f"has {len(job):,} bytes, and the limit is {limit_bytes:,} (POSTROOM_JOB_LIMIT_BYTES)"
        raise InvalidMail([("job", why)])


def _check_id(mail: Mail, waiting: Waiting) -> None:
    if mail.id != waiting.mail_id:
        raise InvalidMail([("id", f"is {mail.id}, but the job lies in the inbox as {waiting.mail_id}")])


def _from(mail: Mail) -> Address:
    if mail.renders_template and mail.template is not None:
        raise InvalidMail([("template.name", f"there is no template {mail.template.name!r}")])
    if mail.from_ is None:
        raise InvalidMail([("from", "is missing, and no template gives it")])
    if mail.raw is not None:
        _check_raw_from(mail.raw, mail.from_)
    return mail.from_


def _check_raw_from(raw: bytes, sender: Address) -> None:
    """A whole letter may not say another From than the one that the account is chosen by, nor several."""
    written = values(raw, "From")
    for _, address in email.utils.getaddresses([*written, *values(raw, "Sender")]):
        if address_key(address) != sender.key:
            why = f"its From or Sender is {address[:100]!r}, and the mail's from is {sender.address}"
            raise InvalidMail([("raw", why)])
    if not written:
        raise InvalidMail([("raw", "has no From")])
    if len(written) > 1 or len(email.utils.getaddresses(written)) != 1:
        raise InvalidMail([("raw", "must have one From, with one address in it")])


def _insert(process: Process, connection: Connection, opened: Sequence[_Opened]) -> _Inserted:
    """Insert new mails.

    Raises:
        _Raced: one of them is there by now.
    """
    clock, known = _clock_and_known(connection, [each.mail.id for each in opened])
    fresh: dict[UUID, _Opened] = {}
    other_body: list[_Rejected] = []
    for each in opened:
        first = known.get(each.mail.id) or (fresh[each.mail.id].body_hash if each.mail.id in fresh else None)
        if first is None:
            fresh[each.mail.id] = each
        elif first != each.body_hash:
            error = f"key: {each.mail.key!r} was used before with another body" if each.mail.key else "id: used before"
            other_body.append(_Rejected(each.waiting, error, each.mail.producer))
    if fresh:
        written = sorted(fresh.values(), key=lambda each: each.mail.id)  # all who accept take mails in this order
        return _Inserted(len(written), other_body, _insert_fresh(process, connection, written, clock))
    return _Inserted(0, other_body, set())


def _insert_fresh(process: Process, connection: Connection, fresh: Sequence[_Opened], clock: datetime) -> set[UUID]:
    """Insert mails that were not there; returns the accounts that got some that are ready."""
    chooser = Chooser(connection, {(each.from_.key, each.mail.owner) for each in fresh})
    rows = [_mail_row(process, each, chooser, clock) for each in fresh]
    sealed = [
        {"mail_id": each.mail.id, "sealed": _sealed(process, _letter(each, row["from_name"], clock), each.mail.id)}
        for each, row in zip(fresh, rows, strict=True)
    ]
    _give_turns(connection, rows)  # others who accept mail of the same owner wait from here on
    if insert_new_rows(connection, mails, rows) != len(rows):
        raise _Raced
    connection.execute(_NEW_LETTERS, sealed)
    insert_new_rows(connection, recipients, [row for each in fresh for row in _recipient_rows(each.mail)])
    return {row["account_id"] for row in rows if row["ready"]}


def _sealed(process: Process, letter: Letter, mail_id: UUID) -> bytes:
    return process.ring.seal(letter.to_content(), letter_identity(mail_id))


def _give_turns(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Give those that are ready a turn in their lanes; the others get one when their time has come."""
    columns = ("id", "account_id", "priority", "owner", "created_at")
    given = turns.give(connection, [Coming(*(row[name] for name in columns)) for row in rows if row["ready"]])
    for row in rows:
        row["turn"] = given.get(row["id"], 0)


def _clock_and_known(connection: Connection, ids: Sequence[UUID]) -> tuple[datetime, dict[UUID, bytes]]:
    """The database's time, and the hashes of those mails that it has."""
    rows = connection.execute(_CLOCK_AND_KNOWN, {"ids": ids}).all()
    return rows[0].clock, {row.id: row.body_hash for row in rows if row.id is not None}


def _mail_row(process: Process, each: _Opened, chooser: Chooser, clock: datetime) -> dict[str, Any]:
    mail = each.mail
    choice = chooser.choose(each.from_.key, mail.owner)
    held: HeldReason | None = choice.held
    scheduled = mail.send_at is not None and mail.send_at > clock
    template = mail.template
    priority = PriorityRank[mail.priority.upper()]
    on_uncertain = mail.on_uncertain or (OnUncertain.HOLD if priority is PriorityRank.BULK else OnUncertain.RESEND)
    start = mail.send_at if scheduled and mail.send_at is not None else clock
    return {
        "id": mail.id,
        "state": MailState.HELD if held else MailState.QUEUED,
        "reason": held,
        "ready": not held and not scheduled,
        "account_id": choice.account.id if choice.account else None,
        "producer": mail.producer,
        "owner": mail.owner,
        "from_address": each.from_.address,
        "from_key": each.from_.key,
        "from_name": _display_name(each, chooser),
        "subject": _subject(mail),
        "template_name": template.name if template else None,
        "template_locale": template.locale if template else None,
        "template_version": template.version if template else None,
        "template_meta": dict(template.meta) if template else None,
        "tags": list(mail.tags),
        "priority": priority,
        "on_uncertain": on_uncertain,
        "body_hash": each.body_hash,
        "size_bytes": len(each.waiting.sealed),
        "created_at": clock,
        "send_at": mail.send_at,
        "due_at": None if held else start,
        "expires_at": mail.expires_at or _later(start, process.settings.lifetime_hours),
        "expires_absolute": mail.expires_at is not None,
        "held_at": clock if held else None,
        "attempts": 0,
        "crashes": 0,
        "copies_possible": 1,
    }


def _later(start: datetime, hours: float) -> datetime:
    try:
        return start + timedelta(hours=hours)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _display_name(each: _Opened, chooser: Chooser) -> str:
    """The mail's name, else the sender's; the account's is put in when the letter is composed."""
    return each.from_.name or chooser.sender_name(each.from_.key, each.mail.owner)


def _subject(mail: Mail) -> str:
    if mail.raw is None:
        return mail.subject or ""
    head = email.parser.BytesHeaderParser(policy=email.policy.default).parsebytes(mail.raw)
    return _CONTROLS.sub(" ", str(head.get("Subject", "")))  # an encoded word may hold any character


def _letter(each: _Opened, name: str, clock: datetime) -> Letter:
    from_ = each.from_ if name == each.from_.name else each.from_.model_copy(update={"name": name})
    return letter_of(each.mail, from_, date=clock)


def _recipient_rows(mail: Mail) -> Iterator[dict[str, Any]]:
    """One row a recipient; an address named twice gets the mail once."""
    seen: set[str] = set()
    for kind, addresses in (("to", mail.to), ("cc", mail.cc), ("bcc", mail.bcc)):
        for address in addresses:
            key = address_key(address.address)
            if key in seen:
                continue
            yield {
                "mail_id": mail.id,
                "position": len(seen),
                "address": address.address,
                "name": address.name,
                "kind": kind,
                "state": RecipientState.PENDING,
            }
            seen.add(key)


def _reject(connection: Connection, rejected: Sequence[_Rejected]) -> None:
    if not rejected:
        return
    rows = [
        {
            "id": uuid7(),
            "mail_id": each.waiting.mail_id,
            "producer": each.producer,
            "error": each.error,
            "sealed": each.waiting.sealed,
        }
        for each in rejected
    ]
    connection.execute(insert(rejects).values(created_at=now()), rows)
