"""Choosing: a table of accounts and mails, and the verdict on each."""

from uuid import UUID

import pytest

from postroom.config.accounts import Account
from postroom.config.states import Auth, Health, HeldReason, Security
from postroom.worker.choose import Sending, choose


def account(number: int, address: str = "info@shop.example", **changes: object) -> Account:
    given = {"host": "smtp.shop.example", "port": 587, "security": Security.STARTTLS, "auth": Auth.AUTO}
    return Account(id=UUID(int=number), address=address, **{**given, **changes})  # type: ignore[arg-type]


SHARED = account(1)
MINE = account(2, owner="u7")
THEIRS = account(3, owner="u8")
IDLE = account(4, active=False)
FAILING = account(5, health=Health.FAILING)
SUSPENDED = account(6, health=Health.SUSPENDED)
LATER = account(7, priority=9)
OTHER = account(8, address="sales@shop.example")


@pytest.mark.parametrize(
    ("accounts", "owner", "confirmed", "chosen", "held"),
    [
        ([], None, False, None, HeldReason.NO_ACCOUNT),
        ([OTHER], None, False, None, HeldReason.NO_ACCOUNT),
        ([SHARED], None, False, SHARED, None),
        ([IDLE], None, False, None, HeldReason.NO_ACCOUNT),
        ([MINE], None, False, None, HeldReason.NO_ACCOUNT),
        ([THEIRS], "u7", False, None, HeldReason.NO_ACCOUNT),
        ([SHARED, MINE], "u7", False, MINE, None),
        ([SHARED, MINE], "u7", True, MINE, None),
        ([SHARED], "u7", False, None, HeldReason.SENDER_NOT_CONFIRMED),
        ([SHARED], "u7", True, SHARED, None),
        ([LATER, SHARED], None, False, SHARED, None),
        ([FAILING, LATER], None, False, LATER, None),
        ([SUSPENDED, LATER], None, False, LATER, None),
        ([SUSPENDED, FAILING], None, False, FAILING, None),
        ([SUSPENDED], None, False, None, HeldReason.ACCOUNT_SUSPENDED),
    ],
)
def test_the_account_chosen(
    accounts: list[Account], owner: str | None, confirmed: bool, chosen: Account | None, held: HeldReason | None
) -> None:
    choice = choose(Sending("info@shop.example", owner, confirmed), accounts)
    assert (choice.account, choice.held) == (chosen, held)
    assert {verdict.account.id for verdict in choice.verdicts} == {each.id for each in accounts}
    assert all(verdict.why for verdict in choice.verdicts)


def test_an_account_that_refused_the_from_is_passed_over() -> None:
    sending = Sending("info@shop.example", refused_by={SHARED.id})
    assert choose(sending, [SHARED, LATER]).account == LATER
    assert choose(sending, [SHARED]).held is HeldReason.SENDER_REFUSED


def test_a_suspended_account_may_not_send_and_a_failing_one_keeps_the_mail_waiting() -> None:
    verdicts = choose(Sending("info@shop.example"), [FAILING, SUSPENDED]).verdicts
    assert {verdict.account.id: verdict.ok for verdict in verdicts} == {FAILING.id: True, SUSPENDED.id: False}
