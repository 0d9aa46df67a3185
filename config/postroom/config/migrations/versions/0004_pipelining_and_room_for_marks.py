"""Accounts say whether commands may go ahead of replies; PostgreSQL leaves room beside each mail, and compresses no ciphertext."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "accounts",
        sa.Column(
            "pipelining",
            sa.Boolean,
            nullable=False,
            server_default=sa.true(),
            comment="false: each command waits for the reply to the one before, whatever the server offers",
        ),
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE mails SET (fillfactor = 60)")
        op.execute("ALTER TABLE letters ALTER COLUMN sealed SET STORAGE EXTERNAL")  # ciphertext cannot be compressed
