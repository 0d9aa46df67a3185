"""Erasing: a mail's content and all that is personal goes; what became of it, and that its key was used, stays.

Personal is what names a person or was written for one: addresses, names, subject, letter, tags, the template's meta and
locale, the servers' words (they repeat addresses), and the owner, who is a person by the CRM's id. Not personal are the
producer, which is a program, and the account, which is the organisation's and is looked after under its own name.

A letter of no bytes (`size_bytes`) is one that was erased: a mail is sent again only while it has one. Whoever erases
locks the mail's own row first, so that it and a resend wait for each other, and no two of them for one another.
"""

import re
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import BindParameter, Connection, Select, bindparam, case, delete, func, null, select, update

from postroom.config.database import now
from postroom.config.tables import attempts, letters, mails, recipients
from postroom.producer.mail import address_key

_OF_THE_LETTER: Final[dict[str, Any]] = {
    "subject": "",
    "template_locale": None,
    "template_meta": null(),
    "tags": [],
    "size_bytes": 0,
}
_OF_THE_MAIL: Final[dict[str, Any]] = {
    **_OF_THE_LETTER,
    "owner": None,
    "from_address": "",
    "from_key": "",
    "from_name": "",
}
MAY_BE_ERASED: Final = (mails.c.ended_at.is_not(None), mails.c.erased_at.is_(None))
"""It has ended, and has something to erase."""

HAS_CONTENT: Final = mails.c.size_bytes > 0
"""It has its letter still."""

_CODE: Final = "^[2-5][0-9][0-9]( |$)"
"""How a server's reply begins (RFC 5321 4.2), in Python's spelling and in both databases'."""


def _code_in(reply: Any) -> Any:
    """`code_of`, in SQL."""
    return case((reply.regexp_match(_CODE), func.substr(reply, 1, 3)))


_IDS: Final[BindParameter[UUID]] = bindparam("ids", expanding=True)
_EMPTY_MAILS: Final = (
    update(mails)
    .where(mails.c.id.in_(_IDS), *MAY_BE_ERASED)
    .values(_OF_THE_MAIL | {"erased_at": now()})
    .returning(mails.c.id)
)
_EMPTY_LETTERS: Final = update(mails).where(mails.c.id.in_(_IDS), *MAY_BE_ERASED).values(_OF_THE_LETTER)
_DELETE_LETTERS: Final = delete(letters).where(letters.c.mail_id.in_(_IDS))
_EMPTY_RECIPIENTS: Final = update(recipients).where(recipients.c.mail_id.in_(_IDS)).values(address="", name="")
_EMPTY_RECIPIENT: Final = (
    update(recipients)
    .where(recipients.c.mail_id == bindparam("mail"), recipients.c.position == bindparam("at"))
    .values(address="", name="")
)
_SHORTEN: Final = tuple(
    update(table).where(table.c.mail_id.in_(_IDS)).values(reply=_code_in(table.c.reply))
    for table in (recipients, attempts)
)


def erase_mails(connection: Connection, wanted: Select[UUID]) -> int:
    """Erase the mails that a query finds and locks; those that have not ended, or no longer, stay as they are.

    Returns:
        How many were erased.
    """
    found = list(connection.execute(wanted).scalars())
    erased = list(connection.execute(_EMPTY_MAILS, {"ids": found}).scalars()) if found else []
    if erased:
        for statement in (_DELETE_LETTERS, _EMPTY_RECIPIENTS, *_SHORTEN):
            connection.execute(statement, {"ids": erased})
    return len(erased)


def locked(ids: Sequence[UUID]) -> Select[UUID]:
    """Of these mails those that may be erased, locked in one order."""
    return select(mails.c.id).where(mails.c.id.in_(ids), *MAY_BE_ERASED).order_by(mails.c.id).with_for_update()


def erase_address(connection: Connection, ids: Sequence[UUID], key: str) -> tuple[int, int]:
    """Erase an address (its key) from mails that have ended.

    A mail from it, or to nobody else, is erased whole. Of one to others as well, this recipient goes with subject,
    letter and the servers' words; the others keep their addresses and outcomes until the mail's own time.

    Returns:
        How many mails were erased whole, and of how many others the recipient was.
    """
    ended = list(connection.execute(locked(ids)).scalars())
    senders = select(mails.c.id).where(mails.c.id.in_(ended), mails.c.from_key == key)
    whole = set(connection.execute(senders).scalars())
    everyone = select(recipients.c.mail_id, recipients.c.position, recipients.c.address).where(
        recipients.c.mail_id.in_(ended), recipients.c.address != ""
    )
    others: set[UUID] = set()
    named: list[dict[str, Any]] = []
    for row in connection.execute(everyone):
        if address_key(row.address) == key:
            named.append({"mail": row.mail_id, "at": row.position})
        else:
            others.add(row.mail_id)
    whole |= {each["mail"] for each in named} - others
    part = [each for each in named if each["mail"] not in whole]
    part_ids = sorted({each["mail"] for each in part})
    if part:
        connection.execute(_EMPTY_RECIPIENT, part)
        for statement in (_EMPTY_LETTERS, _DELETE_LETTERS, *_SHORTEN):
            connection.execute(statement, {"ids": part_ids})
    erased = erase_mails(connection, locked(sorted(whole))) if whole else 0
    return erased, len(part_ids)


def erase_replies(connection: Connection, mail_id: UUID, pattern: str) -> int:
    """Shorten the servers' words about one mail, ended or not, where they match a pattern; returns how many did."""
    connection.execute(select(mails.c.id).where(mails.c.id == mail_id).with_for_update())
    shortened = 0
    for statement, table in zip(_SHORTEN, (recipients, attempts), strict=True):
        naming = statement.where(table.c.reply.regexp_match(pattern))
        shortened += connection.execute(naming, {"ids": [mail_id]}).rowcount
    return shortened


_LETTER_BYTES: Final = select(mails.c.size_bytes).where(mails.c.id == bindparam("mail")).with_for_update(read=True)


def is_erased(connection: Connection, mail_id: UUID) -> bool:
    """Whether a mail's letter was erased; it is not while the transaction lasts, if it was not."""
    return connection.execute(_LETTER_BYTES, {"mail": mail_id}).scalar() == 0


def code_of(reply: str | None) -> str | None:
    """What stays of a server's words: their code."""
    return reply[:3] if reply and re.match(_CODE, reply) else None
