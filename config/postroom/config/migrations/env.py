"""Runs migrations on the URL that `postroom.config.database.migrate` hands over."""

from contextlib import closing

import alembic.context
from sqlalchemy import func, select

from postroom.config.database import Database
from postroom.config.tables import metadata
from postroom.producer.errors import Refused

_POSTROOM = int.from_bytes(b"postroom", "big")

ours = closing(Database(alembic.context.config.attributes["url"], connections=1))
with ours as database, database.write() as connection:  # on SQLite, one process at a time
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
        if encoding != "UTF8":
            raise Refused(
                f"the database's encoding is {encoding}, which cannot hold every subject and name; "
                "make one by: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )
        connection.execute(select(func.pg_advisory_xact_lock(_POSTROOM)))
    alembic.context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with alembic.context.begin_transaction():
        alembic.context.run_migrations()
