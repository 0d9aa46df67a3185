"""Accounts say whether envelopes may go ahead; those to be tried again have an index; PostgreSQL leaves room for marks."""

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
    probed = sa.text("probe_at IS NOT NULL")
    op.create_index("ix_accounts_probe", "accounts", ["probe_at"], sqlite_where=probed, postgresql_where=probed)
    if op.get_context().dialect.name == "postgresql":
        op.execute("ALTER TABLE mails SET (fillfactor = 60)")
        op.execute("ALTER TABLE letters ALTER COLUMN sealed SET STORAGE EXTERNAL")  # ciphertext cannot be compressed
