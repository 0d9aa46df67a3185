"""The tables of the ledger and of what it needs. Migrations make them; a test holds the two equal.

No foreign key points at `accounts`: a mail and its attempts keep the id of the account that sent them after that
account was removed.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    and_,
    false,
    func,
    text,
    true,
)

from postroom.config.database import Moment

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("address", Text, nullable=False),
    Column("address_key", Text, nullable=False, index=True, comment="casefolded, domain as A-label"),
    Column("name", Text, nullable=False),
    Column("owner", String(64), comment="none: shared; else a CRM user's id"),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("security", String(16), nullable=False),
    Column("auth", String(16), nullable=False),
    Column("login", Text, nullable=False),
    Column("password", LargeBinary, comment="sealed; its destination is associated data"),
    Column("allow_cleartext", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("connections", SmallInteger, nullable=False),
    Column("health", String(16), nullable=False),
    Column("health_detail", Text, comment="what the server said last, when health is not ok"),
    Column("probe_at", Moment, comment="when the next attempt to reach it is allowed, when health is not ok"),
    Column("probes", Integer, nullable=False, comment="attempts to reach it since health was ok"),
    Column("version", Integer, nullable=False, comment="grows with each change; sessions of an older one are not used"),
    Column("created_at", Moment, nullable=False),
    Column("verified_at", Moment, nullable=False),
    Column("mails_per_minute", Integer, comment="none: no limit"),
    Column("recipients_per_day", Integer, comment="in any 24 hours; none: no limit"),
    Column("open_at", Moment, comment="when its limits let mail through again; none: now"),
    Column("paused_at", Moment, comment="none: not paused"),
    Column("paused_why", Text, comment="what its provider said, where that paused it and not a person"),
    Column(
        "pipelining",
        Boolean,
        nullable=False,
        server_default=true(),
        comment="false: each command waits for the reply to the one before, whatever the server offers",
    ),
)

_probed = accounts.c.probe_at.is_not(None)
Index("ix_accounts_probe", accounts.c.probe_at, sqlite_where=_probed, postgresql_where=_probed)

pauses = Table(
    "pauses",
    metadata,
    Column("scope", String(8), primary_key=True, comment="`all`"),
    Column("paused_at", Moment, nullable=False),
    comment="A row exists while the sending of all accounts is paused.",
)

counts = Table(
    "counts",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("span", String(8), primary_key=True, comment="`second` counts mails, `minute` counts recipients"),
    Column("bucket", BigInteger, primary_key=True, autoincrement=False, comment="Unix time ÷ the span"),
    Column("count", Integer, nullable=False),
    comment="What accounts with a limit have claimed, for as long as it counts against the limit.",
)

turns = Table(
    "turns",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("priority", SmallInteger, primary_key=True, autoincrement=False),
    Column("owner", String(64), primary_key=True, comment="empty: mail of no owner"),
    Column("turn", BigInteger, nullable=False, comment="the last one that was given to a mail of this owner"),
    Column("given_at", Moment, nullable=False, index=True),
    comment="Owners who share a lane take turns: each mail is given one when it gets into the lane.",
)
Index("ix_turns_lane", turns.c.account_id, turns.c.priority, turns.c.turn)

slots = Table(
    "slots",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("number", SmallInteger, primary_key=True, autoincrement=False),
    Column("claim", Uuid, nullable=False, unique=True, comment="token of the drain that holds this connection"),
    Column("lease_until", Moment, nullable=False),
    comment="A row exists while a drain holds one of an account's connections; its lease is that of its claims.",
)

mails = Table(
    "mails",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("state", String(16), nullable=False),
    Column("reason", String(32)),
    Column("ready", Boolean, nullable=False, comment="may be claimed now"),
    Column("account_id", Uuid, comment="the lane"),
    Column("producer", String(64), nullable=False),
    Column("owner", String(64)),
    Column("from_address", Text, nullable=False),
    Column("from_key", Text, nullable=False),
    Column("from_name", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("template_name", Text),
    Column("template_locale", Text),
    Column("template_version", Text),
    Column("template_meta", JSON),
    Column("tags", JSON, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("on_uncertain", String(16), nullable=False),
    Column("body_hash", LargeBinary, nullable=False, comment="keyed hash of what was asked for"),
    Column("size_bytes", Integer, nullable=False),
    Column("created_at", Moment, nullable=False, index=True),
    Column("send_at", Moment, comment="not before; none: at once"),
    Column("due_at", Moment, comment="when it may leave or is looked at next; none once ended or held"),
    Column("expires_at", Moment, nullable=False),
    Column("expires_absolute", Boolean, nullable=False, comment="false: time held is added on release"),
    Column("held_at", Moment),
    Column("resent_at", Moment, comment="when a person had it sent again: refusals before that no longer count"),
    Column("ended_at", Moment),
    Column("attempts", SmallInteger, nullable=False, comment="those in which a server answered about the mail"),
    Column("crashes", SmallInteger, nullable=False, comment="workers lost with this mail in hand and no mark"),
    Column("copies_possible", SmallInteger, nullable=False),
    Column("claim", Uuid, comment="token of the slot whose drain holds it"),
    Column("attempt_id", Uuid, comment="the last attempt marked; a late reply to it still settles the mail"),
    Column("marked_at", Moment, comment="the mark: set from before the final dot may go until its outcome is recorded"),
    Column("turn", BigInteger, nullable=False, server_default=text("0"), comment="its place among the lane's owners"),
    Column("claimed_at", Moment, comment="when it was claimed; it is counted then against the account's limits"),
    Column("erased_at", Moment, comment="when its content and all that is personal was erased"),
    postgresql_with={"fillfactor": 60},  # with room beside a row its mark needs no new entries in the indexes
)

Index(
    "ix_mails_lane",
    mails.c.account_id,
    mails.c.priority,
    mails.c.turn,
    mails.c.due_at,
    mails.c.id,
    sqlite_where=mails.c.ready == true(),
    postgresql_where=mails.c.ready == true(),
)
_waiting = and_(mails.c.ready == false(), mails.c.due_at.is_not(None), mails.c.claim.is_(None))
Index("ix_mails_due", mails.c.due_at, sqlite_where=_waiting, postgresql_where=_waiting)
Index(
    "ix_mails_later",
    mails.c.account_id,
    mails.c.id,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
_held = mails.c.held_at.is_not(None)
Index(
    "ix_mails_held",
    mails.c.from_key,
    mails.c.owner,
    mails.c.reason,
    mails.c.priority,
    mails.c.created_at,
    mails.c.id,
    sqlite_where=_held,
    postgresql_where=_held,
)
_claimed = mails.c.claim.is_not(None)
Index("ix_mails_claim", mails.c.claim, sqlite_where=_claimed, postgresql_where=_claimed)
_unended = mails.c.ended_at.is_(None)
Index("ix_mails_expires", mails.c.expires_at, sqlite_where=_unended, postgresql_where=_unended)
_kept = and_(mails.c.ended_at.is_not(None), mails.c.erased_at.is_(None))
Index("ix_mails_ended", mails.c.ended_at, sqlite_where=_kept, postgresql_where=_kept)
_erased = mails.c.erased_at.is_not(None)
Index("ix_mails_erased", mails.c.erased_at, sqlite_where=_erased, postgresql_where=_erased)

letters = Table(
    "letters",
    metadata,
    Column("mail_id", Uuid, ForeignKey("mails.id", ondelete="CASCADE"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

recipients = Table(
    "recipients",
    metadata,
    Column("mail_id", Uuid, ForeignKey("mails.id", ondelete="CASCADE"), primary_key=True),
    Column("position", SmallInteger, primary_key=True, autoincrement=False),
    Column("address", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", String(8), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reply", Text),
    Column("enhanced_status_code", String(16)),
)

Index("ix_recipients_address", func.lower(recipients.c.address))

attempts = Table(
    "attempts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("mail_id", Uuid, ForeignKey("mails.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("account_id", Uuid, nullable=False),
    Column("claim", Uuid, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("duration_seconds", Double, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("scope", String(16)),
    Column("rule", Text),
    Column("reply", Text),
    Column("enhanced_status_code", String(16)),
    Column("doubled", Boolean, nullable=False, comment="its reply came after the mail had been given to another try"),
)

rejects = Table(
    "rejects",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("mail_id", Uuid, nullable=False, index=True),
    Column("producer", String(64)),
    Column("error", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="the job as it lay in the inbox"),
    Column("created_at", Moment, nullable=False, index=True),
    Column("replayed_at", Moment),
)

senders = Table(
    "senders",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("address", Text, nullable=False),
    Column("address_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("confirmed_at", Moment),
    UniqueConstraint("owner", "address_key"),
)
