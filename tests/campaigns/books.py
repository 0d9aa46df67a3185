"""The books of a campaign: what was handed over, what the ledger says and what the server took, side by side.

lost                 nobody knows of it, or it is recorded as sent and never arrived
doubled_announced    arrived more than once, and the ledger said beforehand that it may
doubled_unannounced  arrived more often than the ledger says, or arrived and is recorded as not sent
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection, select

from postroom.config.states import HeldReason, MailState, RecipientState
from postroom.config.tables import mails, recipients, rejects


@dataclass
class Books:
    """Counts of mails, save the last three, which count recipients."""

    enqueued: int = 0
    sent: int = 0
    failed: int = 0
    held: int = 0
    uncertain: int = 0
    cancelled: int = 0
    expired: int = 0
    rejected: int = 0
    waiting: int = 0
    lost: int = 0
    doubled_announced: int = 0
    doubled_unannounced: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))

    @property
    def counts(self) -> tuple[int, ...]:
        """All counts, in the order of the fields."""
        return astuple(self)

    @property
    def balance(self) -> bool:
        """Whether nothing is lost and nothing doubled in silence."""
        return self.lost == 0 and self.doubled_unannounced == 0


TOLD: list[Books] = []
"""All books that were drawn up since the list was last emptied."""


def table(told: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """Books as a table of Markdown, a row a campaign by its name."""
    names = ["campaign", *(field.name.replace("_", " ") for field in fields(Books))]
    rows = [[name, *map(str, counts)] for name, counts in told]
    return "\n".join(f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *rows])


def arrivals(journal: Path) -> Counter[tuple[UUID, str]]:
    """How often each mail arrived at each recipient, by the Message-ID that Postroom wrote, in a server's journal."""
    arrived: Counter[tuple[UUID, str]] = Counter()
    for line in journal.read_text().splitlines() if journal.exists() else ():
        transaction = json.loads(line)
        mail_id = UUID(transaction["message_id"].strip("<>").partition("@")[0])
        arrived.update((mail_id, address) for address in transaction["recipients"])
    return arrived


def balance(connection: Connection, handed_over: Iterable[UUID], arrived: Counter[tuple[UUID, str]]) -> Books:
    """Hold the two sides against each other."""
    books = Books()
    rows = {row.id: row for row in connection.execute(select(mails))}
    refused = set(connection.execute(select(rejects.c.mail_id)).scalars())
    everyone: dict[UUID, list[tuple[str, str]]] = {}
    for row in connection.execute(select(recipients)):
        everyone.setdefault(row.mail_id, []).append((row.address, row.state))
    for mail_id in handed_over:
        books.enqueued += 1
        mail = rows.get(mail_id)
        if mail is None:
            books.rejected += mail_id in refused
            books.lost += mail_id not in refused
            continue
        _count_state(books, mail.state)
        may_have_gone = mail.state == MailState.UNCERTAIN or mail.reason == HeldReason.UNCERTAIN
        for address, state in everyone[mail_id]:
            copies = arrived[mail_id, address]
            if copies == 0:
                books.lost += state == RecipientState.ACCEPTED
            elif copies > mail.copies_possible or not (may_have_gone or state == RecipientState.ACCEPTED):
                books.doubled_unannounced += 1
            elif copies > 1:
                books.doubled_announced += 1
    TOLD.append(books)
    return books


def _count_state(books: Books, state: str) -> None:
    name = state if state in {field.name for field in fields(books)} else "waiting"
    setattr(books, name, getattr(books, name) + 1)
