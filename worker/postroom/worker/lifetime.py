"""A mail's lifetime: it does not run while the mail is held, and starts anew when a person has it sent again."""

from sqlalchemy import ColumnElement, case

from postroom.config.database import later
from postroom.config.tables import mails


def with_held_time() -> ColumnElement[object]:
    """The end of a mail's lifetime as it leaves `held`: put off by the time held, unless its producer set it."""
    runs = mails.c.held_at.is_(None) | mails.c.expires_absolute
    return case((runs, mails.c.expires_at), else_=later(mails.c.expires_at, mails.c.held_at))
