"""Runs migrations on the URL that `postroom.config.database.migrate` hands over."""

import alembic.context

from postroom.config.database import Database
from postroom.config.tables import metadata

database = Database(alembic.context.config.attributes["url"], connections=1)
with database.write() as connection:
    alembic.context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with alembic.context.begin_transaction():
        alembic.context.run_migrations()
database.close()
