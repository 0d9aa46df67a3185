"""Mails are found by recipient, and rejects by mail."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_recipients_address", "recipients", [sa.text("lower(address)")])
    op.create_index(op.f("ix_rejects_mail_id"), "rejects", ["mail_id"])
