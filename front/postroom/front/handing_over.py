"""Following a mail that was just handed over: from the inbox to the ledger, or to the reject list."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from postroom.config import accounts, mails, rejects
from postroom.config.accounts import Account
from postroom.config.states import Health, HeldReason, MailState, RecipientState
from postroom.front.access import Access
from postroom.front.nudges import broker_answers
from postroom.producer import names

_LOOK_SECONDS: Final = 0.05
_LONGEST_LOOK_SECONDS: Final = 0.5

INBOX: Final = "inbox"
"""The state of a mail that was handed over and that no worker has taken into the ledger yet."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a mail is.

    Attributes:
        state: its state in the ledger, `inbox` before that, or `rejected`.
        why: for people: why it is held, rejected or not sent, the server's last words, or who was refused of a mail
            that was sent; may be empty.
    """

    state: str
    why: str = ""


class Follower:
    """Looks where one mail is. Made before the mail is handed over, since its id may have been used before."""

    def __init__(self, access: Access, mail_id: UUID) -> None:
        self._access = access
        self._mail_id = mail_id
        self._rejected_before = self._rejects().keys()

    def until(self, arrived: Callable[[str], bool], *, timeout_seconds: float) -> Whereabouts:
        """Look until its state is one that was waited for, or the time is over; says where it is then.

        Raises:
            Refused: the database cannot be read.
            BrokerUnavailable: Redis does not answer.
        """
        until = time.monotonic() + timeout_seconds
        pause_seconds = _LOOK_SECONDS
        while True:
            found = self._look()
            if arrived(found.state) or time.monotonic() >= until:
                return found
            time.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.2, _LONGEST_LOOK_SECONDS)

    def _look(self) -> Whereabouts:
        with broker_answers():
            waits = self._access.redis.hexists(names.INBOX, str(self._mail_id))
        if waits:  # whatever the ledger has under this id is an earlier mail's
            return Whereabouts(INBOX)
        new = [error for reject, error in self._rejects().items() if reject not in self._rejected_before]
        if new:
            return Whereabouts("rejected", new[0])
        with self._access.read() as connection:
            state = mails.state_of(connection, self._mail_id)
            if state is None:
                return Whereabouts(INBOX)
            shown = mails.show(connection, self._mail_id)
            account = accounts.get(connection, UUID(shown["account_id"])) if shown["account_id"] else None
        if state[0] is MailState.SENT:
            return Whereabouts(state[0], _refused(shown["recipients"]))
        return Whereabouts(state[0], _why(*state, _last_words(shown), account))

    def _rejects(self) -> dict[str, str]:
        with self._access.read() as connection:
            return {each["id"]: each["error"] for each in rejects.of_mail(connection, self._mail_id)}


def settled(state: str) -> bool:
    """Whether nothing more happens to a mail within the next minute."""
    return state not in {INBOX, MailState.QUEUED, MailState.SENDING}


def _last_words(shown: dict[str, Any]) -> str | None:
    """What the server said of a recipient who still waits, else what ended the last attempt."""
    waiting = [each["reply"] for each in shown["recipients"] if each["state"] == RecipientState.PENDING]
    tried = [each["reply"] for each in shown["attempts_log"]]
    return next((reply for reply in (*waiting, *reversed(tried)) if reply), None)


def _refused(recipients: list[dict[str, Any]]) -> str:
    """How many of a sent mail's recipients the server refused for good, and its words to the first."""
    refused = [each["reply"] for each in recipients if each["state"] == RecipientState.REFUSED]
    if not refused:
        return ""
    were = "was" if len(refused) == 1 else "were"
    return f"{len(refused)} of {len(recipients)} recipients {were} refused: {refused[0]}"


def _why(state: MailState, reason: HeldReason | None, reply: str | None, account: Account | None) -> str:
    if state is MailState.QUEUED and account is not None and account.health is not Health.OK:
        return f"its account is {account.health}: {account.health_detail}"
    return ". ".join(filter(None, (reason, f"The server's last words were: {reply}" if reply else None)))
