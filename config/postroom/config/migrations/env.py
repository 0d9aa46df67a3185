"""Runs migrations on the URL that `postroom.config.database.migrate` hands over."""

from contextlib import closing

import alembic.context
from sqlalchemy import func, select

from postroom.config.database import Database
from postroom.config.tables import metadata

_POSTROOM = int.from_bytes(b"postroom", "big")

ours = closing(Database(alembic.context.config.attributes["url"], connections=1))
with ours as database, database.write() as connection:  # on SQLite, one process at a time
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_POSTROOM)))
    alembic.context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with alembic.context.begin_transaction():
        alembic.context.run_migrations()
