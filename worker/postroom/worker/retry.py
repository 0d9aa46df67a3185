"""What becomes of a mail after an attempt: a pure decision that the ledger writes (design §5, §8)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from postroom.config.states import (
    Effect,
    HeldReason,
    MailState,
    OnUncertain,
    Outcome,
    PriorityRank,
    RecipientState,
    Scope,
)
from postroom.worker.smtp.replies import Verdict
from postroom.worker.smtp.session import Delivery, RecipientResult

SCHEDULE_MINUTES: Final = (1, 5, 15, 30, 60, 120, 240)
"""Wait after the n-th attempt that counts; the last one repeats."""
_JITTER: Final = 0.2

UNCERTAIN_WAIT_SECONDS: Final = 15 * 60
UNCERTAIN_WAIT_SEEN_HIGH_SECONDS: Final = 60

_SLOW_SECONDS: Final = 60.0
_QUOTA_SECONDS: Final = 3600.0
_PROBE_GAPS_SECONDS: Final = (5, 10, 30, 60, 120, 300, 600)
_SIGN_IN_PROBE_GAPS_SECONDS: Final = (5 * 60, 30 * 60, 120 * 60)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the decision needs to know of the mail: it is read at the claim.

    Attributes:
        slowed: how many replies to it were about the whole account, and made that wait; read where there was one.
    """

    priority: PriorityRank
    on_uncertain: OnUncertain
    attempts: int
    copies_possible: int
    accepted_before: bool
    slowed: int = 0


@dataclass(frozen=True, slots=True)
class Next:
    """Where the mail goes now.

    Attributes:
        due_in_seconds: when it may leave again, or is looked at again; None for a state that waits for no clock.
        counts: whether this was an attempt in which a server answered about the mail.
        choose: whether its account has to be chosen anew.
    """

    state: MailState
    reason: HeldReason | None = None
    due_in_seconds: float | None = None
    counts: bool = True
    choose: bool = False


def recipient_state(result: RecipientResult) -> RecipientState:
    """A recipient's state after an attempt. Only what the server said for good ends it."""
    if result.outcome is Outcome.ACCEPTED:
        return RecipientState.ACCEPTED
    if result.outcome is Outcome.FAILED and (result.verdict is None or _is_about_the_mail(result.verdict.scope)):
        return RecipientState.REFUSED
    return RecipientState.PENDING


def decide(facts: Facts, delivery: Delivery) -> Next:
    """What becomes of a mail whose delivery ended like this."""
    states = [recipient_state(result) for result in delivery.recipients]
    if delivery.outcome is Outcome.UNCERTAIN:
        return _uncertain(facts)
    if RecipientState.PENDING not in states:
        sent = facts.accepted_before or RecipientState.ACCEPTED in states
        return Next(MailState.SENT if sent else MailState.FAILED)
    return _again(facts, delivery)


def wait_seconds(attempts: int) -> float:
    """The wait after so many attempts that counted, ±20 % so that a thousand mails do not come back at once."""
    minutes = SCHEDULE_MINUTES[min(attempts, len(SCHEDULE_MINUTES)) - 1]
    return minutes * 60 * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, guards nothing


def slows_account(verdict: Verdict) -> bool:
    """Whether a reply says that the account has to wait, though it is well."""
    return verdict.effect in {Effect.SLOW, Effect.QUOTA}


def account_wait_seconds(verdict: Verdict) -> float:
    """For how long such an account is left alone."""
    return verdict.wait_seconds or (_QUOTA_SECONDS if verdict.effect is Effect.QUOTA else _SLOW_SECONDS)


def probe_gap_seconds(probes: int) -> float:
    """How long to leave a server alone that could not be reached so many times in a row."""
    return _PROBE_GAPS_SECONDS[min(probes, len(_PROBE_GAPS_SECONDS) - 1)]


def sign_in_probe_gap_seconds(probes: int) -> float | None:
    """How long to leave a server alone that refused to sign us in; None: only a change of the account helps."""
    return _SIGN_IN_PROBE_GAPS_SECONDS[probes] if probes < len(_SIGN_IN_PROBE_GAPS_SECONDS) else None


def _is_about_the_mail(scope: Scope) -> bool:
    return scope in {Scope.MAIL, Scope.RECIPIENT}


def _uncertain(facts: Facts) -> Next:
    if facts.on_uncertain is OnUncertain.HOLD or facts.copies_possible > 1:
        return Next(MailState.HELD, HeldReason.UNCERTAIN)
    seen_high = facts.priority is PriorityRank.HIGH
    wait = UNCERTAIN_WAIT_SEEN_HIGH_SECONDS if seen_high else UNCERTAIN_WAIT_SECONDS
    return Next(MailState.UNCERTAIN, due_in_seconds=wait)


def _again(facts: Facts, delivery: Delivery) -> Next:
    pending = [result for result in delivery.recipients if recipient_state(result) is RecipientState.PENDING]
    if _all_may_go_at_once(pending):
        return Next(MailState.QUEUED, due_in_seconds=0, counts=False)
    verdict = delivery.verdict
    if verdict is not None and verdict.scope is Scope.SENDER and verdict.outcome is Outcome.FAILED:
        return Next(MailState.QUEUED, choose=True)
    if verdict is not None and slows_account(verdict):
        # Others go first when the account may go on: such a reply may be due to this mail, and would come at each try.
        wait = account_wait_seconds(verdict) + wait_seconds(facts.slowed + 1)
        return Next(MailState.DEFERRED, due_in_seconds=wait, counts=facts.slowed > 0)
    if verdict is not None and verdict.effect is not Effect.NONE:
        return Next(MailState.QUEUED, due_in_seconds=0, counts=False, choose=True)
    if delivery.reply is None and not delivery.permitted and delivery.outcome is Outcome.UNREACHED:
        return Next(MailState.DEFERRED, due_in_seconds=wait_seconds(1), counts=False)
    named = [result.verdict.wait_seconds for result in pending if result.verdict and result.verdict.wait_seconds]
    wait = max(named) if named else wait_seconds(facts.attempts + 1)
    return Next(MailState.DEFERRED, due_in_seconds=wait)


def _all_may_go_at_once(pending: Sequence[RecipientResult]) -> bool:
    return all(result.verdict is not None and result.verdict.wait_seconds == 0 for result in pending)
