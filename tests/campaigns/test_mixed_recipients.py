"""Recipients of one mail are taken, put off and refused side by side, while drains are killed."""

import random
import re
import time
from collections import Counter
from dataclasses import dataclass
from uuid import UUID

import pytest
from sqlalchemy import func, select

from campaigns.announced import announced_exactly
from campaigns.house import House
from long_form import LONG
from postroom.config.states import MailState, Outcome, RecipientState
from postroom.config.tables import attempts, mails, recipients

pytestmark = pytest.mark.timeout(900 if LONG else 120)

MAILS = 500 if LONG else 24
KILLS = 20 if LONG else 2
SETTLES_IN_SECONDS = 300 if LONG else 80

TAKEN = "anna"
LATER = ("rcpt-450-4.2.0-once", "rcpt-451-4.3.0-once", "rcpt-452-4.5.3-once")
NEVER = "rcpt-550-5.1.1"
AT_THE_DOT = ("dot-451-4.3.0-once", "dot-554-5.6.0", "dot-lost-once")
"""The whole transaction is put off, refused, or taken without a word."""

_RCPT = re.compile(r"RCPT TO:<([^>]+)>")


def enqueue_mixed(house: House, dice: random.Random) -> None:
    """Mails to one to six recipients, in any order; at most one of each decides at the dot."""
    for _ in range(MAILS):
        kinds = dice.choices([TAKEN, *LATER, NEVER], weights=[4, 1, 1, 2, 2], k=dice.randint(1, 6))
        if dice.random() < 0.5:
            kinds[dice.randrange(len(kinds))] = dice.choice(AT_THE_DOT)
        to = [f"{kind}+{dice.getrandbits(64):x}@client.example" for kind in kinds]
        house.enqueue(1, to=to, priority=dice.choice(["high", "normal"]))


@dataclass
class Told:
    """One recipient, as the ledger and the server's log know it."""

    mail_id: UUID
    kind: str
    state: str
    asked: int
    may_be_asked: int
    open_end: bool


def everybody(house: House) -> list[Told]:
    """All recipients; each may be named to the server once, and again for each attempt of which nothing was told."""
    with house.database.read() as connection:
        query = (
            select(attempts.c.mail_id, func.count())
            .where(attempts.c.outcome.in_([Outcome.UNCERTAIN, Outcome.UNREACHED]))
            .group_by(attempts.c.mail_id)
        )
        untold: dict[UUID, int] = {mail_id: number for mail_id, number in connection.execute(query)}  # noqa: C416
        rows = connection.execute(
            select(recipients.c.address, recipients.c.state.label("ends"), mails)
            .join(mails, mails.c.id == recipients.c.mail_id)
            .where(mails.c.id.in_(house.handed_over))
        ).all()
    asked = Counter(_RCPT.findall("\n".join(house.smtp.commands)))
    return [
        Told(
            mail_id=row.id,
            kind=row.address.partition("+")[0],
            state=row.ends,
            asked=asked[row.address],
            may_be_asked=1 + row.crashes + untold.get(row.id, 0),
            open_end=row.state == MailState.HELD,
        )
        for row in rows
    ]


@pytest.mark.parametrize("kills", [0, KILLS] if LONG else [KILLS])
def test_recipients_of_every_kind(house: House, dice: random.Random, kills: int) -> None:
    house.open_books()
    house.start("drain")
    enqueue_mixed(house, dice)
    for number in range(kills):
        house.wait_arrived(1 + number * MAILS // (2 * kills), SETTLES_IN_SECONDS)
        time.sleep(dice.random() * 0.1)
        house.kill("drain")
        house.start("drain")
    house.settle(SETTLES_IN_SECONDS)
    house.kill("drain")
    books = house.books()
    told = everybody(house)
    counted = Counter(each.state for each in told)
    print(f"{kills} kills, {len(told)} recipients: {dict(counted)}; {books}")
    assert books.balance, books
    assert books.sent + books.failed + books.held == books.enqueued
    assert announced_exactly(house)
    refused_whole = {each.mail_id for each in told if each.kind == "dot-554-5.6.0"}
    for each in told:
        if each.kind == NEVER:
            assert each.state == RecipientState.REFUSED or each.open_end, each
            assert each.asked <= each.may_be_asked, each
        elif each.mail_id in refused_whole:
            assert each.state in {RecipientState.REFUSED, RecipientState.ACCEPTED} or each.open_end, each
        else:
            assert each.state == RecipientState.ACCEPTED or each.open_end, each
