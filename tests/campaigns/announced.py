"""Whether the ledger announces the copies that may exist, and no more than those."""

from typing import Final
from uuid import UUID

from sqlalchemy import func, select

from campaigns.house import House
from postroom.config.states import HeldReason, MailState, Outcome
from postroom.config.tables import attempts, mails

_LATE: Final = attempts.c.doubled
"""It was uncertain when another attempt was begun; its reply came after that."""


def announced_exactly(house: House) -> bool:
    """Whether `copies_possible` of each mail is 1 + its uncertain attempts that were followed by another."""
    wrong = []
    with house.database.read() as connection:
        counted = (
            select(attempts.c.mail_id, func.count())
            .where((attempts.c.outcome == Outcome.UNCERTAIN) | _LATE)
            .group_by(attempts.c.mail_id)
        )
        uncertain: dict[UUID, int] = {mail_id: number for mail_id, number in connection.execute(counted)}  # noqa: C416
        for mail in connection.execute(select(mails).where(mails.c.id.in_(house.handed_over))):
            waits = mail.state == MailState.UNCERTAIN or mail.reason == HeldReason.UNCERTAIN
            followed = uncertain.get(mail.id, 0) - waits
            if mail.copies_possible != 1 + followed:
                wrong.append(f"{mail.id} is {mail.state}, says {mail.copies_possible} copies, {followed + 1} may exist")
    assert not wrong, "\n".join(wrong)
    return True


def ended_uncertain(house: House) -> int:
    """How many attempts ended uncertain."""
    query = select(func.count()).where(
        attempts.c.mail_id.in_(house.handed_over), attempts.c.outcome == Outcome.UNCERTAIN
    )
    with house.database.read() as connection:
        return connection.execute(query).scalar_one()
