"""Every state name, in one place, with what moves a row in and out of it. Imports nothing of the database.

The names are contracts: they stand in the database, in JSON and in other people's programs.
"""

from enum import IntEnum, StrEnum


class MailState(StrEnum):
    """Where a mail is. It follows from its recipients; only the ledger moves it (design §5)."""

    QUEUED = "queued"
    """Ready, or waiting for its time, lane or limit. In: accept, release, resend. Out: claim, hold, cancel, expiry."""
    SENDING = "sending"
    """Claimed by a worker. A crash before the mark leaves it here until its lease ends, then it is queued again."""
    DEFERRED = "deferred"
    """Some recipient was refused for now; `due_at` says when next. Only pending recipients are tried again."""
    HELD = "held"
    """Cannot go until something changes; the reason says what. Leaves by itself, or by a person's word."""
    UNCERTAIN = "uncertain"
    """The connection or the worker was lost after the mark and before the reply: it may have been delivered."""
    SENT = "sent"
    """No recipient is pending and at least one was accepted. Final."""
    FAILED = "failed"
    """No recipient is pending and none was accepted. A person may resend it."""
    CANCELLED = "cancelled"
    """A person or the producer took it back before it left. Final."""
    EXPIRED = "expired"
    """Its time ran out before it could leave. Final."""


class HeldReason(StrEnum):
    """Why a held mail cannot go (design §5). The last three wait for a person."""

    NO_ACCOUNT = "no_account"
    ACCOUNT_SUSPENDED = "account_suspended"
    SENDER_NOT_CONFIRMED = "sender_not_confirmed"
    PAUSED = "paused"
    SENDER_REFUSED = "sender_refused"
    UNCERTAIN = "uncertain"
    POISON = "poison"


class RecipientState(StrEnum):
    """One recipient's outcome: `pending` until a server answered for good."""

    PENDING = "pending"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    BOUNCED = "bounced"


class RecipientKind(StrEnum):
    """Which header field named the recipient; `bcc` is named in none."""

    TO = "to"
    CC = "cc"
    BCC = "bcc"


class Outcome(StrEnum):
    """How one attempt, or one recipient's part in it, ended."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    FAILED = "failed"
    UNCERTAIN = "uncertain"
    """The break came after the final dot was permitted: nobody knows whether the server took it."""
    UNREACHED = "unreached"
    """The break came before the final dot: the server surely did not take it, and no attempt counts."""


class Scope(StrEnum):
    """What a refusal is about: it decides who else is affected (design §8)."""

    MAIL = "mail"
    RECIPIENT = "recipient"
    SENDER = "sender"
    ACCOUNT = "account"


class Effect(StrEnum):
    """What a reply does to the account beyond the mail in hand (design §8)."""

    NONE = "none"
    SUSPEND = "suspend"
    SLOW = "slow"
    QUOTA = "quota"
    BLOCK = "block"


class Health(StrEnum):
    """An account's health (design §6)."""

    OK = "ok"
    FAILING = "failing"
    """Cannot connect: the lane pauses, one probe at growing gaps, no mail loses an attempt."""
    SUSPENDED = "suspended"
    """The server refused to sign in, or the password cannot be opened: the lane is held until that changes."""


class Security(StrEnum):
    """How the connection to an account's server is protected. `starttls` is required, never tried and skipped."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


class Auth(StrEnum):
    """How an account signs in; `auto` takes the strongest that the server offers."""

    AUTO = "auto"
    NONE = "none"
    PLAIN = "plain"
    LOGIN = "login"
    CRAM_MD5 = "cram-md5"
    XOAUTH2 = "xoauth2"


class PriorityRank(IntEnum):
    """Order of leaving within a lane: lower leaves first. Names equal the job's `priority`."""

    HIGH = 0
    NORMAL = 1
    BULK = 2


class OnUncertain(StrEnum):
    """What becomes of a mail that may have been delivered: `resend` once after a wait, or `hold` for a person."""

    RESEND = "resend"
    HOLD = "hold"
