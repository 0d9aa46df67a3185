"""An account's health: what trouble in reaching a server or signing in does to its account (design §6, §8).

No mail loses an attempt by it: the lane pauses or is held, and its waiting mail is chosen anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.states import Effect, Health
from postroom.worker.retry import probe_gap_seconds, sign_in_probe_gap_seconds
from postroom.worker.smtp.errors import OpenFailed
from postroom.worker.smtp.replies import Verdict

_SLOW_SECONDS = 60.0
_QUOTA_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was found out about an account.

    Attributes:
        probe_in_seconds: when it may be tried next; None: only after a change of the account.
    """

    account: Account
    health: Health
    detail: str | None = None
    probe_in_seconds: float | None = None


def of_open_failure(account: Account, failure: OpenFailed) -> Trouble:
    """What a connection that could not be opened says about the account."""
    if failure.verdict is not None and failure.verdict.effect in {Effect.SUSPEND, Effect.BLOCK}:
        return suspended(account, str(failure))
    if failure.verdict is not None and failure.verdict.effect is Effect.QUOTA:
        return Trouble(account, Health.FAILING, str(failure), failure.verdict.wait_seconds or _QUOTA_SECONDS)
    return Trouble(account, Health.FAILING, str(failure), probe_gap_seconds(account.probes))


def of_verdict(account: Account, verdict: Verdict, reply: str) -> Trouble | None:
    """What a reply within a transaction says about the account; None: nothing."""
    match verdict.effect:
        case Effect.NONE:
            return None
        case Effect.SUSPEND | Effect.BLOCK:
            return suspended(account, reply)
        case Effect.SLOW:
            return Trouble(account, Health.FAILING, reply, verdict.wait_seconds or _SLOW_SECONDS)
        case Effect.QUOTA:
            return Trouble(account, Health.FAILING, reply, verdict.wait_seconds or _QUOTA_SECONDS)


def suspended(account: Account, detail: str) -> Trouble:
    """Signing in was refused, or cannot even be tried: one refusal holds the lane."""
    return Trouble(account, Health.SUSPENDED, detail, sign_in_probe_gap_seconds(account.probes))


def note(connection: Connection, troubles: Sequence[Trouble]) -> list[None]:
    """Write down what was found out, unless the account was changed meanwhile."""
    for trouble in troubles:
        kept.set_health(connection, trouble.account, trouble.health, trouble.detail, trouble.probe_in_seconds)
    return [None] * len(troubles)
