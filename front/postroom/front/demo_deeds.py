"""What the demo's story consists of: adding an account, handing a mail over, seeing it arrive; told and checked."""

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from postroom.config import accounts, mails
from postroom.config.accounts import Account
from postroom.config.states import Auth, HeldReason, MailState, Security
from postroom.front import demo_letters
from postroom.front.access import Access
from postroom.front.account_changes import add_account
from postroom.front.demo_telling import Telling
from postroom.front.mail_server import HOST, Arrived, MailServer
from postroom.producer import Address, Mail, Producer
from postroom.producer.errors import PostroomError
from postroom.producer.identifiers import uuid7
from postroom.worker.verify import Progress

_PATIENCE_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.01
_STEPS: Final = {"connect", "starttls", "auth", "message"}


class NotAsTold(PostroomError):
    """The demo saw something else than what it tells."""


def must(condition: bool, otherwise: str) -> None:
    """Fail unless the story holds.

    Raises:
        NotAsTold: it does not.
    """
    if not condition:
        raise NotAsTold(f"this did not go as told: {otherwise}")


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A mail after `enqueue`.

    Attributes:
        began_at: `time.monotonic()` before the call.
        milliseconds: how long the call took.
    """

    mail: Mail
    mail_id: UUID
    began_at: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Delivered:
    """A mail that arrived as it was handed over.

    Attributes:
        since: what the time to the server's 250 is counted from.
        milliseconds: from there to the 250.
    """

    given: HandedOver
    arrived: Arrived
    since: str
    milliseconds: float


class Deeds:
    """Does things in a house in which everything is up.

    Attributes:
        delivered: the mails that arrived, in order.
        proofs: how many test mails of proofs arrived.
        stored_at: `time.monotonic()` when the last account had been stored.
    """

    def __init__(self, telling: Telling, access: Access, server: MailServer, passwords: dict[str, str]) -> None:
        self.delivered: list[Delivered] = []
        self.proofs = 0
        self.stored_at = 0.0
        self._telling = telling
        self._access = access
        self._server = server
        self._passwords = passwords

    def add_account(
        self,
        address: str,
        name: str,
        owner: str | None = None,
        *,
        password: str | None = None,
        each_step: bool = True,
    ) -> Account:
        """Add an account as the command line does, and see its test mail arrive.

        Args:
            address: also its login.
            name: shown beside the address.
            owner: whose it is; None: shared.
            password: another one than the mailbox's.
            each_step: whether the steps of the proof are told as they end.

        Raises:
            NotProved: nothing was stored.
        """
        options = {"address": address, "name": name, "owner": owner, "host": HOST, "port": str(self._server.port)}
        given = [f"--{option} {shlex.quote(value)}" for option, value in options.items() if value]
        self._telling.command(f"postroom account add {' '.join(given)} --security starttls")
        self._telling.password()
        candidate = Account(
            id=uuid7(),
            address=address,
            name=name,
            owner=owner,
            host=HOST,
            port=self._server.port,
            security=Security.STARTTLS,
            auth=Auth.AUTO,
            login=address,
        )
        went_well: set[str] = set()

        def tell(progress: Progress) -> None:
            went_well.update({progress.step} if progress.ok else ())
            if each_step:
                self._telling.step(progress)

        began_at = time.monotonic()
        added = add_account(self._access, candidate, password or self._passwords[address], tell)
        self.stored_at = time.monotonic()
        took = _milliseconds(began_at, self.stored_at)
        must(went_well >= _STEPS, f"the proof of {address} left out {_STEPS - went_well}")
        self._first(lambda each: each.recipients == (address,), f"the test mail of {address}")
        self.proofs += 1
        self._telling.good(f"Proved over STARTTLS and stored in {took:.0f} ms; its test mail arrived")
        return added

    def count_accounts(self) -> int:
        """How many accounts are stored."""
        with self._access.read() as connection:
            return len(accounts.newest(connection, limit=1000))

    def hand_over(self, producer: Producer, fields: dict[str, Any]) -> HandedOver:
        """What a site's code does."""
        self._telling.call("producer.enqueue(Mail", fields)
        mail = Mail(**fields)
        began_at = time.monotonic()
        mail_id = producer.enqueue(mail)
        return HandedOver(mail, mail_id, began_at, _milliseconds(began_at, time.monotonic()))

    def see_arrive(self, given: HandedOver, account: Account, *, since: tuple[str, float] | None = None) -> Delivered:
        """Wait until the mail is there, hold it against what was handed over, and wait until the ledger says `sent`.

        Args:
            given: the mail.
            account: over which it must have come, and whose name stands in From unless the mail has one.
            since: what its time counts from, and when that was; None: from the call of `enqueue`.
        """
        mail = given.mail
        arrived = self._first(lambda each: demo_letters.read(each)["Subject"] == mail.subject, repr(mail.subject))
        must(arrived.login == account.login, f"it left over {arrived.login}, not over {account.login}")
        named = mail.from_.name if mail.from_ else ""
        sender = Address(address=account.address, name=named or account.name)
        different = demo_letters.differences(mail, sender, arrived)
        must(not different, "; ".join(different))
        self.wait_for_state(given.mail_id, MailState.SENT)
        what, began_at = since or ("enqueue", given.began_at)
        delivered = Delivered(given, arrived, what, _milliseconds(began_at, arrived.at))
        self.delivered.append(delivered)
        return delivered

    def wait_for_state(self, mail_id: UUID, wanted: MailState) -> HeldReason | None:
        """Wait until the ledger says so; gives the reason."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            with self._access.read() as connection:
                found = mails.state_of(connection, mail_id)
            if found is not None and found[0] is wanted:
                return found[1]
            state = found[0] if found else "not in the ledger"
            must(time.monotonic() < until, f"mail {mail_id} is {state}, not {wanted}")
            time.sleep(_LOOK_SECONDS)

    def _first(self, wanted: Callable[[Arrived], bool], what: str) -> Arrived:
        arrived = self._server.wait_for(wanted, _PATIENCE_SECONDS)
        if arrived is None:
            raise NotAsTold(f"{what} did not arrive within {_PATIENCE_SECONDS:.0f} s")
        return arrived


def _milliseconds(began_at: float, ended_at: float) -> float:
    return (ended_at - began_at) * 1000
