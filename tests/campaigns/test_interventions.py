"""People and providers meddle with accounts and mails in the middle of a drain; the books hold and nothing is stuck."""

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import pytest
from sqlalchemy import ColumnElement, select

from campaigns.books import arrivals
from campaigns.house import UNENDED, House
from long_form import LONG
from postroom.config import accounts as kept
from postroom.config import pauses
from postroom.config.accounts import Account
from postroom.config.states import Auth, HeldReason, MailState
from postroom.config.tables import mails
from postroom.config.vault import public_key
from postroom.producer.errors import Refused
from postroom.producer.identifiers import uuid7
from postroom.worker import interventions, limits
from postroom.worker.interventions import Resolution
from servers.scripted_smtp import Reply

pytestmark = pytest.mark.timeout(900 if LONG else 120)

ACTIONS = 250 if LONG else 24
IN_HAND = 500 if LONG else 12
SETTLES_IN_SECONDS = 300 if LONG else 80
FAULTS = ("dot-lost-once", "dot-drop-once", "dot-554-5.6.0-once", "rcpt-550-5.1.1-once", "dot-451-4.3.0-once")


class Meddling:
    """What may be done, to two accounts of one address. Each takes a step of its own transaction, as a command does."""

    def __init__(self, house: House, accounts: list[Account], dice: random.Random) -> None:
        self.done: Counter[str] = Counter()
        self.cancelled: set[UUID] = set()
        self._house = house
        self._ids = [account.id for account in accounts]
        self._dice = dice

    def anything(self) -> None:
        accounts = (self.deactivate_or_activate, self.refuse_a_sign_in, self.limit, self.pause_or_resume)
        action = self._dice.choice(
            [*accounts, self.pause_or_resume_all, self.resend, self.resolve, self.cancel, *3 * [self.cancel_in_hand]]
        )
        try:
            action()
        except Refused:
            self.done[f"{action.__name__} refused"] += 1
        else:
            self.done[action.__name__] += 1

    def deactivate_or_activate(self) -> None:
        self._change(lambda account: replace(account, active=not account.active))

    def limit(self) -> None:
        limit = self._dice.choice([None, 1, 5])
        self._change(lambda account: replace(account, mails_per_minute=limit, recipients_per_day=limit and limit * 10))

    def refuse_a_sign_in(self) -> None:
        self._house.smtp.script({"AUTH": [Reply("535 5.7.8 wrong login or password")]})
        self._house.smtp.disconnect_all()

    def pause_or_resume(self) -> None:
        account_id = self._dice.choice(self._ids)
        with self._house.database.write() as connection:
            if not pauses.pause(connection, account_id):
                pauses.resume(connection, account_id)

    def pause_or_resume_all(self) -> None:
        with self._house.database.write() as connection:
            if not pauses.pause_all(connection):
                pauses.resume_all(connection)

    def cancel(self) -> None:
        self._cancel(self._any(mails.c.ended_at.is_(None)))

    def cancel_in_hand(self) -> None:
        """Refused, if its mark stands."""
        self._cancel(self._any(mails.c.state == MailState.SENDING))

    def _cancel(self, mail_id: UUID) -> None:
        with self._house.database.write() as connection:
            interventions.cancel(connection, mail_id)
        self.cancelled.add(mail_id)

    def resend(self) -> None:
        with self._house.database.write() as connection:
            interventions.resend(connection, self._any(mails.c.state == MailState.FAILED))

    def resolve(self) -> None:
        """Whoever says what became of a mail has asked its recipient."""
        held = (mails.c.state == MailState.HELD) & (mails.c.reason == HeldReason.UNCERTAIN)
        mail_id = self._any((mails.c.state == MailState.UNCERTAIN) | held)
        arrived = any(arrived_id == mail_id for arrived_id, _ in arrivals(self._house.journal))
        resolution: Resolution = self._dice.choice(["resend", "delivered" if arrived else "drop"])
        with self._house.database.write() as connection:
            interventions.resolve(connection, mail_id, resolution)
        if resolution == "drop":
            self.cancelled.add(mail_id)

    def make_good(self) -> None:
        """Everything that stands in the way of mail is taken away."""
        self._house.smtp.script({})
        with self._house.database.write() as connection:
            pauses.resume_all(connection)
        for account_id in self._ids:
            with self._house.database.write() as connection:
                pauses.resume(connection, account_id)
                account = kept.get(connection, account_id)
                assert account is not None
                free = replace(account, active=True, mails_per_minute=None, recipients_per_day=None)
                kept.replace_proved(connection, account, free)
                limits.changed(connection, account, free)

    def left(self) -> int:
        """How many mails wait for a person, or have not ended: what was held a moment ago may be on its way now."""
        waits = mails.c.state.in_([MailState.FAILED, MailState.HELD, *UNENDED])
        with self._house.database.read() as connection:
            query = select(mails.c.id).where(waits, mails.c.id.in_(self._house.handed_over))
            return len(connection.execute(query).all())

    def _change(self, change: Callable[[Account], Account]) -> None:
        with self._house.database.write() as connection:
            account = kept.get(connection, self._dice.choice(self._ids))
            assert account is not None
            kept.replace_unproved(connection, account, change(account))
            limits.changed(connection, account, change(account))

    def _any(self, where: ColumnElement[bool]) -> UUID:
        with self._house.database.read() as connection:
            query = select(mails.c.id).where(where, mails.c.id.in_(self._house.handed_over))
            found = list(connection.execute(query.order_by(mails.c.id)).scalars())
        if not found:
            raise Refused("there is none")
        mail_id: UUID = self._dice.choice(found)
        return mail_id


def open_books(house: House) -> list[Account]:
    """Two accounts of one address; each signs in, and mail goes over the first while it can."""
    house.smtp.login, house.smtp.password = "shop", "secret"
    signs_in = {"auth": Auth.PLAIN, "login": "shop", "allow_cleartext": True}
    first = house.open_books(password="secret", connections=2, **signs_in)
    second = replace(first, id=uuid7(), host="localhost", priority=first.priority + 1)
    sealed = public_key(house.settings).seal(b"secret", second.password_identity)
    with house.database.write() as connection:
        return [first, kept.add(connection, replace(second, password=sealed))]


def test_meddling_in_the_middle_of_a_drain(house: House, dice: random.Random) -> None:
    meddling = Meddling(house, open_books(house), dice)
    house.start("drain")
    house.enqueue(4)
    house.wait_arrived(4, SETTLES_IN_SECONDS)
    for _ in range(ACTIONS):
        for kind in (dice.choice(FAULTS), f"dot-wait-{dice.randrange(400)}"):
            to = f"{kind}+{dice.getrandbits(64):x}@client.example"
            house.enqueue(1, to=to, priority=dice.choice(["high", "normal", "bulk"]))
        time.sleep(dice.random() * 0.1)
        meddling.anything()
        house.move_time()
    meddling.make_good()
    until = time.monotonic() + SETTLES_IN_SECONDS
    while True:
        house.settle(SETTLES_IN_SECONDS)
        if not meddling.left():
            break
        assert time.monotonic() < until, f"{meddling.left()} mails wait for a person or for something that is there"
        for what in (meddling.resend, meddling.resolve):
            with suppress(Refused):
                what()
        house.move_time()
    house.kill("drain")
    books = house.books()
    print(f"{dict(meddling.done)}; {books}")
    assert books.balance, books
    assert (books.sent, books.cancelled) == (books.enqueued - len(meddling.cancelled), len(meddling.cancelled))
    assert "a task failed" not in house.log


def test_cancelling_what_is_in_hand(house: House, dice: random.Random) -> None:
    """Either it is cancelled and never arrives, or its mark stands, and the cancelling is refused."""
    meddling = Meddling(house, open_books(house), dice)
    before = len(house.smtp.accepted)
    house.start("drain")
    house.enqueue(IN_HAND, to="dot-wait-100@client.example")
    house.wait_arrived(1, SETTLES_IN_SECONDS)
    until = time.monotonic() + SETTLES_IN_SECONDS
    while len(meddling.cancelled) + len(house.smtp.accepted) - before < IN_HAND:
        assert time.monotonic() < until
        with suppress(Refused):
            meddling.cancel_in_hand()
    house.settle(SETTLES_IN_SECONDS)
    house.kill("drain")
    books = house.books()
    print(books)
    assert books.balance, books
    assert (books.sent, books.cancelled) == (IN_HAND - len(meddling.cancelled), len(meddling.cancelled))
