"""What is sent and what came of it: the envelope that goes into an attempt, and the delivery that comes out."""

import re
from dataclasses import dataclass
from typing import Final

from postroom.config.states import Effect, Outcome, Scope
from postroom.worker.smtp.replies import Reply, Verdict

_PLAIN_PATHS = re.compile(r"[!#-;=?-~]*")
"""ASCII in which nothing has to be looked at: neither a space nor a control, an angle bracket or a quote."""
_NOT_IN_PATH = re.compile(r"[\x00-\x20\x7f<>]")
_QUOTED_LOCAL_PART = re.compile(r'^"(?:[^"\\\x00-\x1f\x7f]|\\[ -~])*"(?=@)')
"""Between double quotes a space or an angle bracket is part of the address (RFC 5321 §4.1.2)."""

SIZE: Final = Verdict(
    Outcome.FAILED, Scope.MAIL, Effect.NONE, "size", hint="The letter is larger than the server said it takes (SIZE)."
)
"""Found without asking the server (RFC 1870 §6.1)."""
SMTPUTF8: Final = Verdict(
    Outcome.FAILED,
    Scope.RECIPIENT,
    Effect.NONE,
    "smtputf8",
    hint="The address is not ASCII, and this account's server does not offer SMTPUTF8.",
)
"""Found without asking the server (RFC 6531 §3.1): this recipient cannot be named to it."""
SMTPUTF8_FOR_ALL: Final = Verdict(
    Outcome.FAILED,
    Scope.MAIL,
    Effect.NONE,
    "smtputf8",
    hint="An address in From, To, Cc or Reply-To is not ASCII, and this account's server does not offer SMTPUTF8.",
)
"""The same, where it is the sender or a header, which go to every recipient, or where there is no other recipient."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends and who receives, as bare addresses with their domains as A-labels.

    Attributes:
        reverse_path: empty for the null one.
        smtputf8: a header of the letter needs SMTPUTF8. What the addresses here need is seen by themselves.

    Raises:
        ValueError: no recipient, or an address that would break out of its command, or whose domain is not ASCII.
    """

    reverse_path: str
    recipients: tuple[str, ...]
    smtputf8: bool = False

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("an envelope needs a recipient")
        paths = (self.reverse_path, *self.recipients)
        if _PLAIN_PATHS.fullmatch("".join(paths)):
            return
        if any(_NOT_IN_PATH.search(_QUOTED_LOCAL_PART.sub("", address)) for address in paths):
            raise ValueError("an address in the envelope holds a space, a control character or an angle bracket")
        if not all(address.rpartition("@")[2].isascii() for address in paths):
            raise ValueError("a domain in the envelope is not written as A-labels")


@dataclass(frozen=True, slots=True)
class RecipientResult:
    """What became of one recipient. No reply and no verdict where the connection broke before one."""

    address: str
    outcome: Outcome
    reply: Reply | None
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one attempt ended.

    Attributes:
        outcome: of the attempt: accepted if any recipient is, else uncertain, unreached, deferred or failed likewise.
        recipients: one for each recipient of the envelope, in its order.
        reply: the reply that decided; None where there was none, as with `trouble` and with refusals of our own.
        verdict: what that reply means, or our own refusal (rules ``size`` and ``smtputf8``).
        trouble: how the connection broke, in a few words without addresses.
        permitted: whether the final dot was permitted, and went.
        stale: the connection was over before the server had judged anything of this mail, as when it closes one that
            has served long enough. Where it had served before, another may be tried at once.
        duration_seconds: of the whole, `permit` included.
    """

    outcome: Outcome
    recipients: tuple[RecipientResult, ...]
    reply: Reply | None
    verdict: Verdict | None
    trouble: str | None
    permitted: bool
    stale: bool
    duration_seconds: float
