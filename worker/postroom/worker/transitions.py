"""The one table of how a mail's state may change (design §5), and the clause by which every writer asks it.

What is `only` said in words is a condition that the writer adds: it is about more than the state.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement

from postroom.config.states import HeldReason, MailState
from postroom.config.tables import mails


class Step(StrEnum):
    """What changes a mail's state; each has one writer."""

    CLAIM = "claim"
    """A drain takes it from its lane. Only where it is ready: the statement asks for that alone."""
    ATTEMPT = "attempt"
    """Its attempt ended. Only by the claim that holds it."""
    LATE_REPLY = "late reply"
    """The reply to its last marked attempt, which was noted as uncertain."""
    OVERTAKEN_REPLY = "overtaken reply"
    """The reply to an attempt after which another one was marked: only where nobody is left to send to."""
    GIVEN_BACK = "given back"
    """A drain leaves with it unsent. Only by the claim that holds it."""
    LEASE_END = "lease end"
    """Its worker was lost. Only where its claim's slot is gone."""
    CHOICE = "choice"
    """An account was chosen for it, or none can be. Only while it is not claimed."""
    SECOND_COPY = "second copy"
    """Its wait is over: it is sent once more, or cannot be over the same account in time."""
    EXPIRY = "expiry"
    """Its time ran out; held, only by an end that its producer set. One that may have been delivered is held."""
    CANCEL = "cancel"
    """Taken back. Only before its mark, and only if no copy may have been delivered."""
    RESEND = "resend"
    """A person has it sent again."""
    RESOLVE_RESEND = "resolve: resend"
    """A person has one sent again that may have been delivered."""
    RESOLVE_END = "resolve: delivered or drop"
    """A person says what became of it. Queued and deferred, only if a copy may have been delivered."""


@dataclass(frozen=True, slots=True)
class Way:
    """From which states and, if held, for which reasons; and to which states."""

    states: frozenset[MailState]
    held: frozenset[HeldReason]
    to: frozenset[MailState]


WAITS_FOR_A_PERSON: Final = frozenset({HeldReason.SENDER_REFUSED, HeldReason.UNCERTAIN, HeldReason.POISON})
LEAVES_BY_ITSELF: Final = frozenset(HeldReason) - WAITS_FOR_A_PERSON
ENDED: Final = frozenset({MailState.SENT, MailState.FAILED, MailState.CANCELLED, MailState.EXPIRED})

_CERTAIN: Final = frozenset(HeldReason) - {HeldReason.UNCERTAIN}
_WAITING: Final = (MailState.QUEUED, MailState.DEFERRED)


def _way(states: Iterable[MailState], held: Iterable[HeldReason], *to: MailState) -> Way:
    return Way(frozenset(states), frozenset(held), frozenset(to))


WAYS: Final[dict[Step, Way]] = {
    Step.CLAIM: _way(_WAITING, (), MailState.SENDING),
    Step.ATTEMPT: _way(
        [MailState.SENDING],
        (),
        MailState.SENT,
        MailState.FAILED,
        MailState.DEFERRED,
        MailState.QUEUED,
        MailState.HELD,
        MailState.UNCERTAIN,
    ),
    Step.LATE_REPLY: _way(
        [MailState.UNCERTAIN, MailState.SENDING, *_WAITING],
        HeldReason,
        MailState.SENT,
        MailState.FAILED,
        MailState.DEFERRED,
        MailState.QUEUED,
    ),
    Step.OVERTAKEN_REPLY: _way(
        [MailState.UNCERTAIN, MailState.SENDING, *_WAITING, MailState.FAILED], HeldReason, MailState.SENT
    ),
    Step.GIVEN_BACK: _way([MailState.SENDING], (), MailState.QUEUED),
    Step.LEASE_END: _way([MailState.SENDING], (), MailState.QUEUED, MailState.UNCERTAIN, MailState.HELD),
    Step.CHOICE: _way(_WAITING, LEAVES_BY_ITSELF, MailState.QUEUED, MailState.HELD),
    Step.SECOND_COPY: _way([MailState.UNCERTAIN], (), MailState.QUEUED, MailState.HELD),
    Step.EXPIRY: _way(_WAITING, _CERTAIN, MailState.EXPIRED, MailState.HELD),
    Step.CANCEL: _way([*_WAITING, MailState.SENDING], _CERTAIN, MailState.CANCELLED),
    Step.RESEND: _way([MailState.FAILED], [HeldReason.SENDER_REFUSED, HeldReason.POISON], MailState.QUEUED),
    Step.RESOLVE_RESEND: _way([MailState.UNCERTAIN], [HeldReason.UNCERTAIN], MailState.QUEUED),
    Step.RESOLVE_END: _way([MailState.UNCERTAIN, *_WAITING], HeldReason, MailState.SENT, MailState.CANCELLED),
}


def may(step: Step) -> ColumnElement[bool]:
    """Whether a row of `mails` is where this step may begin: for the WHERE of a conditional UPDATE."""
    way = WAYS[step]
    begins = mails.c.state.in_(sorted(way.states))
    if not way.held:
        return begins
    held = mails.c.state == MailState.HELD
    return begins | (held if way.held == frozenset(HeldReason) else held & mails.c.reason.in_(sorted(way.held)))


def changes() -> dict[MailState, frozenset[MailState]]:
    """State → the states that it may change to, by any step."""
    begins = {step: way.states | ({MailState.HELD} if way.held else set()) for step, way in WAYS.items()}
    return {
        state: frozenset().union(*(WAYS[step].to for step in Step if state in begins[step])) - {state}
        for state in MailState
    }
