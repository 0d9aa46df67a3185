"""An account's health: what trouble in reaching a server or signing in does to its account (design §6, §8).

No mail loses an attempt by it: the lane pauses or is held, and its waiting mail is chosen anew. An account that its
provider blocked is paused until a person has seen to it; trying on can make a block last longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select

from postroom.config import accounts as kept
from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.states import Effect, Health, Outcome, Scope
from postroom.config.tables import attempts
from postroom.worker.retry import account_wait_seconds, probe_gap_seconds, sign_in_probe_gap_seconds
from postroom.worker.smtp.errors import OpenFailed
from postroom.worker.smtp.replies import Verdict

_SLOWED = (
    select(func.count())
    .select_from(attempts)
    .where(
        attempts.c.mail_id == bindparam("mail"),
        attempts.c.scope == Scope.ACCOUNT,
        attempts.c.outcome == Outcome.DEFERRED,
    )
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was found out about an account.

    Attributes:
        probe_in_seconds: when it may be tried next; None: only after a change of the account.
        blocked: its provider has blocked it; `detail` is what it said.
    """

    account: Account
    health: Health
    detail: str | None = None
    probe_in_seconds: float | None = None
    blocked: bool = False


def of_open_failure(account: Account, failure: OpenFailed) -> Trouble:
    """What a connection that could not be opened says about the account."""
    if failure.verdict is not None and failure.verdict.effect is Effect.BLOCK:
        return Trouble(account, account.health, str(failure), blocked=True)
    if failure.verdict is not None and failure.verdict.effect is Effect.SUSPEND:
        return suspended(account, str(failure))
    if failure.verdict is not None and failure.verdict.effect is Effect.QUOTA:
        return Trouble(account, Health.FAILING, str(failure), account_wait_seconds(failure.verdict))
    return Trouble(account, Health.FAILING, str(failure), probe_gap_seconds(account.probes))


def of_verdict(account: Account, verdict: Verdict, reply: str) -> Trouble | None:
    """What a reply within a transaction says about the account; None: nothing."""
    match verdict.effect:
        case Effect.NONE:
            return None
        case Effect.BLOCK:
            return Trouble(account, Health.OK, reply, blocked=True)
        case Effect.SUSPEND:
            return suspended(account, reply)
        case Effect.SLOW | Effect.QUOTA:
            return Trouble(account, Health.FAILING, reply, account_wait_seconds(verdict))


def suspended(account: Account, detail: str) -> Trouble:
    """Signing in was refused, or cannot even be tried: one refusal holds the lane."""
    return Trouble(account, Health.SUSPENDED, detail, sign_in_probe_gap_seconds(account.probes))


def times_slowed(connection: Connection, mail_id: UUID) -> int:
    """How often a reply to this mail was one for now about its whole account."""
    return connection.execute(_SLOWED, {"mail": mail_id}).scalar_one()


def note(connection: Connection, troubles: Sequence[Trouble]) -> list[None]:
    """Write down what was found out, unless the account was changed meanwhile."""
    for trouble in troubles:
        if trouble.blocked:
            pauses.pause(connection, trouble.account.id, trouble.detail, version=trouble.account.version)
            if trouble.health is not Health.OK:
                continue  # it is as well or unwell as it was
        kept.set_health(connection, trouble.account, trouble.health, trouble.detail, trouble.probe_in_seconds)
    return [None] * len(troubles)
