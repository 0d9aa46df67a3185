"""What is sent and what came of it: the envelope that goes into an attempt, and the delivery that comes out."""

import re
from dataclasses import dataclass
from typing import Final

from postroom.config.states import Effect, Outcome, Scope
from postroom.worker.smtp.replies import Reply, Verdict

_NOT_IN_PATH = re.compile(r"[\x00-\x20\x7f<>]")

SIZE: Final = Verdict(
    Outcome.FAILED, Scope.MAIL, Effect.NONE, "size", hint="The letter is larger than the server said it takes (SIZE)."
)
"""Found without asking the server (RFC 1870 §6.1)."""
SMTPUTF8: Final = Verdict(
    Outcome.FAILED, Scope.RECIPIENT, Effect.NONE, "smtputf8", hint="An address outside ASCII needs SMTPUTF8."
)
"""Found without asking the server (RFC 6531)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends and who receives, as bare addresses. An empty reverse-path is the null one.

    Raises:
        ValueError: no recipient, or an address that would break out of its command.
    """

    reverse_path: str
    recipients: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.recipients:
            raise ValueError("an envelope needs a recipient")
        if any(_NOT_IN_PATH.search(address) for address in (self.reverse_path, *self.recipients)):
            raise ValueError("an address in the envelope holds a space, a control character or an angle bracket")


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
        permitted: whether the final dot was permitted.
        duration_seconds: of the whole, `permit` included.
    """

    outcome: Outcome
    recipients: tuple[RecipientResult, ...]
    reply: Reply | None
    verdict: Verdict | None
    trouble: str | None
    permitted: bool
    duration_seconds: float
