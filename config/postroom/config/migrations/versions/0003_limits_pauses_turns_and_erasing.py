"""Limits and pauses of accounts, turns of owners, and erasing."""

import sqlalchemy as sa
from alembic import op

from postroom.config.database import Moment

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in (
        sa.Column("mails_per_minute", sa.Integer, comment="none: no limit"),
        sa.Column("recipients_per_day", sa.Integer, comment="in any 24 hours; none: no limit"),
        sa.Column("open_at", Moment, comment="when its limits let mail through again; none: now"),
        sa.Column("paused_at", Moment, comment="none: not paused"),
        sa.Column("paused_why", sa.Text, comment="what its provider said, where that paused it and not a person"),
    ):
        op.add_column("accounts", column)
    turn = sa.Column(
        "turn", sa.BigInteger, nullable=False, server_default=sa.text("0"), comment="its place among the lane's owners"
    )
    claimed_at = sa.Column(
        "claimed_at", Moment, comment="when it was claimed; it is counted then against the account's limits"
    )
    erased_at = sa.Column("erased_at", Moment, comment="when its content and all that is personal was erased")
    for column in (turn, claimed_at, erased_at):
        op.add_column("mails", column)
    _index_mails()
    op.create_table(
        "pauses",
        sa.Column("scope", sa.String(8), comment="`all`"),
        sa.Column("paused_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("scope", name=op.f("pk_pauses")),
        comment="A row exists while the sending of all accounts is paused.",
    )
    op.create_table(
        "counts",
        sa.Column("account_id", sa.Uuid),
        sa.Column("span", sa.String(8), comment="`second` counts mails, `minute` counts recipients"),
        sa.Column("bucket", sa.BigInteger, autoincrement=False, comment="Unix time ÷ the span"),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "span", "bucket", name=op.f("pk_counts")),
        comment="What accounts with a limit have claimed, for as long as it counts against the limit.",
    )
    op.create_table(
        "turns",
        sa.Column("account_id", sa.Uuid),
        sa.Column("priority", sa.SmallInteger, autoincrement=False),
        sa.Column("owner", sa.String(64), comment="empty: mail of no owner"),
        sa.Column("turn", sa.BigInteger, nullable=False, comment="the last one that was given to a mail of this owner"),
        sa.Column("given_at", Moment, nullable=False),
        sa.PrimaryKeyConstraint("account_id", "priority", "owner", name=op.f("pk_turns")),
        comment="Owners who share a lane take turns: each mail is given one when it gets into the lane.",
    )
    op.create_index(op.f("ix_turns_given_at"), "turns", ["given_at"])
    op.create_index("ix_turns_lane", "turns", ["account_id", "priority", "turn"])


def _index_mails() -> None:
    waits_unready = sa.and_(
        sa.column("ready") == sa.false(), sa.column("due_at").is_not(None), sa.column("claim").is_(None)
    )
    indexes = {
        "ix_mails_lane": (["account_id", "priority", "turn", "due_at", "id"], sa.column("ready") == sa.true()),
        "ix_mails_held": (
            ["from_key", "owner", "reason", "priority", "created_at", "id"],
            sa.text("held_at IS NOT NULL"),
        ),
        "ix_mails_later": (["account_id", "id"], waits_unready),
        "ix_mails_ended": (["ended_at"], sa.text("ended_at IS NOT NULL AND erased_at IS NULL")),
        "ix_mails_erased": (["erased_at"], sa.text("erased_at IS NOT NULL")),
    }
    for name in ("ix_mails_lane", "ix_mails_held"):
        op.drop_index(name, "mails")
    for name, (columns, where) in indexes.items():
        op.create_index(name, "mails", columns, sqlite_where=where, postgresql_where=where)
