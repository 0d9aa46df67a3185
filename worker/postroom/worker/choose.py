"""Which account sends a mail: a verdict for every account, and the one chosen (design §6). Decides; reads nothing.

Never another address, never a rewritten From: an account may send only as its own address.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from postroom.config.accounts import Account, rfc3339
from postroom.config.states import Health, HeldReason


@dataclass(frozen=True, slots=True)
class Sending:
    """What choosing goes by: the From address key, the owner, whether that owner confirmed the address as a sender,
    and the accounts that have already refused this mail's From.
    """

    from_key: str
    owner: str | None = None
    confirmed: bool = False
    refused_by: Collection[UUID] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether one account may send, and why, in words for an administrator."""

    account: Account
    ok: bool
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The account whose lane the mail waits in, or why it is held; with the verdict on every account."""

    account: Account | None
    held: HeldReason | None
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> dict[str, Any]:
        """The shape of design §10."""
        return {
            "chosen": None if self.account is None else str(self.account.id),
            "held": self.held,
            "verdicts": [
                {
                    "account_id": str(verdict.account.id),
                    "address": verdict.account.address,
                    "ok": verdict.ok,
                    "why": verdict.why,
                }
                for verdict in self.verdicts
            ],
        }


def choose(sending: Sending, accounts: Sequence[Account], all_paused_since: datetime | None = None) -> Choice:
    """Choose among all accounts: the owner's own with that address, then a shared one; lowest `priority` first, the
    next when one is paused or not healthy.

    An account that is only failing keeps the mail waiting in its lane when no healthy one is left; a paused or
    suspended one holds it.

    Args:
        sending: what is to be sent.
        accounts: those that may have its From; the others get a verdict too.
        all_paused_since: since when the sending of all accounts is paused.
    """
    verdicts = tuple(_verdict(sending, account, all_paused_since) for account in sorted(accounts, key=_rank))
    able = [verdict.account for verdict in verdicts if verdict.ok]
    healthy = [account for account in able if account.health is Health.OK]
    chosen = next(iter([*healthy, *able]), None)
    held = None if chosen else _held(sending, accounts)
    return Choice(chosen, held, verdicts)


def _rank(account: Account) -> tuple[bool, int, str]:
    return account.owner is None, account.priority, account.id.hex


def _owns(sending: Sending, account: Account) -> bool:
    return account.active and account.address_key == sending.from_key and account.owner in {None, sending.owner}


def _held(sending: Sending, accounts: Sequence[Account]) -> HeldReason:
    silent = [account for account in accounts if _refusal(sending, account) is None]
    if any(account.health is not Health.SUSPENDED for account in silent):
        return HeldReason.PAUSED
    if silent:
        return HeldReason.ACCOUNT_SUSPENDED
    owning = [account for account in accounts if _owns(sending, account)]
    if any(account.id in sending.refused_by for account in owning):
        return HeldReason.SENDER_REFUSED
    if sending.owner is not None and not sending.confirmed:
        return HeldReason.SENDER_NOT_CONFIRMED if owning else HeldReason.NO_ACCOUNT
    return HeldReason.NO_ACCOUNT


def _verdict(sending: Sending, account: Account, all_paused_since: datetime | None) -> Verdict:
    refusal = _refusal(sending, account) or _pause(account, all_paused_since)
    if refusal is not None:
        return Verdict(account, False, refusal)
    whose = "shared account" if account.owner is None else f"{account.owner}'s own account"
    if account.health is Health.OK:
        waits = f", but its limits let nothing through until {rfc3339(account.open_at)}" if account.open_at else ""
        return Verdict(account, True, f"{whose}, priority {account.priority}{waits}")
    detail = f": {account.health_detail}" if account.health_detail else ""
    able = account.health is not Health.SUSPENDED
    return Verdict(account, able, f"{whose}, priority {account.priority}, but {account.health}{detail}")


def _refusal(sending: Sending, account: Account) -> str | None:
    if account.address_key != sending.from_key:
        return f"sends as {account.address}, not as {sending.from_key}"
    if not account.active:
        return "is not active; `postroom account activate` makes it so"
    if account.owner is not None and account.owner != sending.owner:
        whose = "the mail has no owner" if sending.owner is None else f"the mail's owner is {sending.owner}"
        return f"belongs to {account.owner}, and {whose}"
    if account.owner is None and sending.owner is not None and not sending.confirmed:
        return f"is shared, and {sending.owner} has not confirmed {sending.from_key} as a sender"
    if account.id in sending.refused_by:
        return "its server refused this From for this mail"
    return None


def _pause(account: Account, all_paused_since: datetime | None) -> str | None:
    if account.paused_at is not None:
        why = f", since its provider said: {account.paused_why}" if account.paused_why else ""
        since = rfc3339(account.paused_at)
        return f"is paused since {since}{why}; `postroom resume {account.address}` lets it send again"
    if all_paused_since is not None:
        return f"is paused since {rfc3339(all_paused_since)}, as all are; `postroom resume` lets them send again"
    return None
