"""The ledger and its accounts."""

import sqlalchemy as sa
from alembic import op

from postroom.config.database import Moment

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False, comment="casefolded, domain as A-label"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True, comment="none: shared; else a CRM user's id"),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("security", sa.String(length=16), nullable=False),
        sa.Column("auth", sa.String(length=16), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("password", sa.LargeBinary(), nullable=True, comment="sealed; its destination is associated data"),
        sa.Column("allow_cleartext", sa.Boolean(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("connections", sa.SmallInteger(), nullable=False),
        sa.Column("health", sa.String(length=16), nullable=False),
        sa.Column(
            "health_detail", sa.Text(), nullable=True, comment="what the server said last, when health is not ok"
        ),
        sa.Column(
            "probe_at",
            Moment(),
            nullable=True,
            comment="when the next attempt to reach it is allowed, when health is not ok",
        ),
        sa.Column("probes", sa.Integer(), nullable=False, comment="attempts to reach it since health was ok"),
        sa.Column(
            "version",
            sa.Integer(),
            nullable=False,
            comment="grows with each change; sessions of an older one are not used",
        ),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("verified_at", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_index(op.f("ix_accounts_address_key"), "accounts", ["address_key"], unique=False)

    op.create_table(
        "mails",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("ready", sa.Boolean(), nullable=False, comment="may be claimed now"),
        sa.Column("account_id", sa.Uuid(), nullable=True, comment="the lane"),
        sa.Column("producer", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=True),
        sa.Column("from_address", sa.Text(), nullable=False),
        sa.Column("from_key", sa.Text(), nullable=False),
        sa.Column("from_name", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("template_name", sa.Text(), nullable=True),
        sa.Column("template_locale", sa.Text(), nullable=True),
        sa.Column("template_version", sa.Text(), nullable=True),
        sa.Column("template_meta", sa.JSON(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("on_uncertain", sa.String(length=16), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False, comment="keyed hash of what was asked for"),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("send_at", Moment(), nullable=True, comment="not before; none: at once"),
        sa.Column(
            "due_at", Moment(), nullable=True, comment="when it may leave or is looked at next; none once ended or held"
        ),
        sa.Column("expires_at", Moment(), nullable=False),
        sa.Column("expires_absolute", sa.Boolean(), nullable=False, comment="false: time held is added on release"),
        sa.Column("held_at", Moment(), nullable=True),
        sa.Column(
            "resent_at",
            Moment(),
            nullable=True,
            comment="when a person had it sent again: refusals before that no longer count",
        ),
        sa.Column("ended_at", Moment(), nullable=True),
        sa.Column(
            "attempts", sa.SmallInteger(), nullable=False, comment="those in which a server answered about the mail"
        ),
        sa.Column(
            "crashes", sa.SmallInteger(), nullable=False, comment="workers lost with this mail in hand and no mark"
        ),
        sa.Column("copies_possible", sa.SmallInteger(), nullable=False),
        sa.Column("claim", sa.Uuid(), nullable=True, comment="token of the slot whose drain holds it"),
        sa.Column(
            "attempt_id",
            sa.Uuid(),
            nullable=True,
            comment="the last attempt marked; a late reply to it still settles the mail",
        ),
        sa.Column(
            "marked_at",
            Moment(),
            nullable=True,
            comment="the mark: set from before the final dot may go until its outcome is recorded",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mails")),
    )
    op.create_index(
        "ix_mails_claim",
        "mails",
        ["claim"],
        unique=False,
        sqlite_where=sa.column("claim").is_not(None),
        postgresql_where=sa.column("claim").is_not(None),
    )
    op.create_index(op.f("ix_mails_created_at"), "mails", ["created_at"], unique=False)
    op.create_index(
        "ix_mails_due",
        "mails",
        ["due_at"],
        unique=False,
        sqlite_where=sa.and_(
            sa.column("ready", sa.Boolean) == sa.false(), sa.column("due_at").is_not(None), sa.column("claim").is_(None)
        ),
        postgresql_where=sa.and_(
            sa.column("ready", sa.Boolean) == sa.false(), sa.column("due_at").is_not(None), sa.column("claim").is_(None)
        ),
    )
    op.create_index(
        "ix_mails_expires",
        "mails",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.column("ended_at").is_(None),
        postgresql_where=sa.column("ended_at").is_(None),
    )
    op.create_index(
        "ix_mails_held",
        "mails",
        ["from_key", "owner"],
        unique=False,
        sqlite_where=sa.column("held_at").is_not(None),
        postgresql_where=sa.column("held_at").is_not(None),
    )
    op.create_index(
        "ix_mails_lane",
        "mails",
        ["account_id", "priority", "due_at", "id"],
        unique=False,
        sqlite_where=sa.column("ready", sa.Boolean) == sa.true(),
        postgresql_where=sa.column("ready", sa.Boolean) == sa.true(),
    )

    op.create_table(
        "rejects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("mail_id", sa.Uuid(), nullable=False),
        sa.Column("producer", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="the job as it lay in the inbox"),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("replayed_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejects")),
    )
    op.create_index(op.f("ix_rejects_created_at"), "rejects", ["created_at"], unique=False)

    op.create_table(
        "senders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("address_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", Moment(), nullable=False),
        sa.Column("confirmed_at", Moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_senders")),
        sa.UniqueConstraint("owner", "address_key", name=op.f("uq_senders_owner_address_key")),
    )
    op.create_table(
        "slots",
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("claim", sa.Uuid(), nullable=False, comment="token of the drain that holds this connection"),
        sa.Column("lease_until", Moment(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "number", name=op.f("pk_slots")),
        sa.UniqueConstraint("claim", name=op.f("uq_slots_claim")),
        comment="A row exists while a drain holds one of an account's connections; its lease is that of its claims.",
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("mail_id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("claim", sa.Uuid(), nullable=False),
        sa.Column("started_at", Moment(), nullable=False),
        sa.Column("duration_seconds", sa.Double(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("enhanced_status_code", sa.String(length=16), nullable=True),
        sa.Column(
            "doubled",
            sa.Boolean(),
            nullable=False,
            comment="its reply came after the mail had been given to another try",
        ),
        sa.ForeignKeyConstraint(["mail_id"], ["mails.id"], name=op.f("fk_attempts_mail_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
    )
    op.create_index(op.f("ix_attempts_mail_id"), "attempts", ["mail_id"], unique=False)

    op.create_table(
        "letters",
        sa.Column("mail_id", sa.Uuid(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["mail_id"], ["mails.id"], name=op.f("fk_letters_mail_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("mail_id", name=op.f("pk_letters")),
    )
    op.create_table(
        "recipients",
        sa.Column("mail_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reply", sa.Text(), nullable=True),
        sa.Column("enhanced_status_code", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(["mail_id"], ["mails.id"], name=op.f("fk_recipients_mail_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("mail_id", "position", name=op.f("pk_recipients")),
    )
