"""How many copies of a mail may exist: one, and one more for each attempt that may have left one before the last."""

from sqlalchemy import ColumnElement, func, select, true

from postroom.config.states import Outcome
from postroom.config.tables import attempts, mails


def possible(*, now_settled: ColumnElement[object] | None = None) -> ColumnElement[int]:
    """What `copies_possible` of a mail is, once it is sent again or once one attempt's outcome is known for sure.

    Args:
        now_settled: the id of that attempt, still noted as uncertain.
    """
    may_have_left_one = (attempts.c.outcome == Outcome.UNCERTAIN) | (attempts.c.doubled == true())
    counted = select(func.count()).where(attempts.c.mail_id == mails.c.id, may_have_left_one)
    if now_settled is not None:
        counted = counted.where(attempts.c.id != now_settled)
    return counted.correlate_except(attempts).scalar_subquery() + 1
