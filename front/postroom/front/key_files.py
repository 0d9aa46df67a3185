"""Making key files, and refusing to where a new one would stand for one that is lost."""
# ruff: noqa: PLC0415 - where no key is missing, the ledger is not looked at

from pathlib import Path

from postroom.config import vault
from postroom.config.settings import Settings
from postroom.producer.errors import KeyUnusable


def make(settings: Settings) -> list[Path]:
    """Make the key files that are missing, in a house that has not used them yet.

    Returns:
        The files made.

    Raises:
        KeyUnusable: a key is malformed or open to others; or it is missing, and the ledger holds what was sealed or
            hashed with it. Nothing was made.
    """
    lost = [path for path in (settings.ring_file, settings.front_file) if not path.exists()]
    if lost and _ledger_is_in_use(settings):
        raise KeyUnusable(
            f"{lost[0]}: is missing, and the ledger holds passwords and mails that were sealed or hashed with it. "
            "Restore it from its backup. To begin anew without them, move the database away first"
        )
    return vault.keygen(settings)


def _ledger_is_in_use(settings: Settings) -> bool:
    if settings.database_url is None and not settings.sqlite_file.is_file():
        return False
    from sqlalchemy import exists, make_url, select
    from sqlalchemy.exc import SQLAlchemyError

    from postroom.config.database import Database
    from postroom.config.tables import accounts, mails

    url = make_url(settings.database)
    if url.get_backend_name() == "sqlite" and not (url.database and Path(url.database).is_file()):
        return False
    database = Database(settings.database, connections=1)
    try:
        with database.read() as connection:
            sealed = exists().where(accounts.c.password.is_not(None))
            return bool(connection.execute(select(sealed | exists(select(mails.c.id)))).scalar())
    except SQLAlchemyError:  # not migrated yet, or away: whoever needs it next says so
        return False
    finally:
        database.close()
