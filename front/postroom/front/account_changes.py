"""Adding, changing and removing accounts: what the command line and the web pages both do (design §6).

Nothing unproved is stored. Whatever moves mail between lanes says so to the drains.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import Connection

from postroom.config import accounts
from postroom.config.accounts import Account
from postroom.config.states import Auth
from postroom.front.access import Access
from postroom.front.proof import prove
from postroom.producer.errors import InvalidMail, Refused
from postroom.producer.mail import Address
from postroom.worker import lanes, limits
from postroom.worker.verify import Progress

Tell: TypeAlias = Callable[[Progress], None]

MOST_CONNECTIONS: Final = 100
MOST_IN_A_LIMIT: Final = 1_000_000_000
_LAST_PORT: Final = 65535
_PRIORITY_LIMIT: Final = 1_000_000
_LONGEST_NAME: Final = 200
_OWNER: Final = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_HOST: Final = re.compile(r"[^\s\x00-\x1f\x7f/@\[\]]{1,253}")
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


class InvalidAccount(Refused):
    """A field of an account is wrong.

    Attributes:
        field: its name, as in `Account`, or `password`.
        why: what is wrong with it.
    """

    def __init__(self, field: str, why: str) -> None:
        self.field = field
        self.why = why
        super().__init__(f"{field}: {why}")


class PasswordNeeded(Refused):
    """The change would send the stored password elsewhere, so it has to be given again."""

    def __init__(self) -> None:
        super().__init__(
            "host, port, security, auth, login and allow-cleartext say where the password goes: to change one of them, "
            "give the password again (--password-stdin or --password-file)"
        )


def add_account(access: Access, candidate: Account, password: str | None, tell: Tell) -> Account:
    """Have a new account proved and store it; held mail that it can send leaves at once.

    Args:
        access: the ledger and the workers.
        candidate: the account without its password.
        password: None for `auth` none.
        tell: told of each step of the proof.

    Raises:
        InvalidAccount: a field is wrong.
        NotProved: nothing was stored.
        Refused: the same account is there already.
        BrokerUnavailable: Redis did not answer.
    """
    candidate = _with_password(access, _checked(candidate, password), password)
    with access.read() as connection:
        accounts.refuse_twin(connection, candidate)
    prove(access, candidate, tell)
    with access.write() as connection:
        added = accounts.add(connection, candidate)
    access.nudges.release()
    return added


def needs_password(before: Account, after: Account) -> bool:
    """Whether this change would send the stored password elsewhere."""
    return after.auth is not Auth.NONE and after.goes_elsewhere(before)


def edit_account(access: Access, before: Account, after: Account, password: str | None, tell: Tell) -> Account:
    """Change an account; a change of address, password or destination is proved first.

    Args:
        access: the ledger and the workers.
        before: the account as it was read.
        after: the same with its fields changed, the stored password still in it.
        password: the password given again, or a new one; None: the stored one.
        tell: told of each step of the proof.

    Raises:
        InvalidAccount: a field is wrong.
        PasswordNeeded: the change needs the password again, and it was not given.
        NotProved: nothing was changed.
        Refused: somebody else changed the account meanwhile, or another one is the same.
        BrokerUnavailable: Redis did not answer.
    """
    if password is None and needs_password(before, after):
        raise PasswordNeeded
    after = _with_password(access, _checked(after, password, stored=before.password is not None), password)
    with access.read() as connection:
        accounts.refuse_twin(connection, after)
    proving = (
        before.goes_elsewhere(after) or before.address_key != after.address_key or before.password != after.password
    )
    if proving:
        prove(access, after, tell)
    store = accounts.replace_proved if proving else accounts.replace_unproved
    with access.write() as connection:
        stored = store(connection, before, after)
        limits.changed(connection, before, stored)
        got_mail = set() if _chosen_alike(before, after) else _clear_at_once(connection, stored.id)
    access.nudges.drain(got_mail)
    _may_send(access, stored)
    return stored


def verify_account(access: Access, account: Account, tell: Tell) -> Account:
    """Prove a stored account again, with its stored password; it is healthy after that.

    Raises:
        NotProved: nothing was changed.
        Refused: somebody else changed the account meanwhile.
        BrokerUnavailable: Redis did not answer.
    """
    prove(access, account, tell)
    with access.write() as connection:
        proved = accounts.replace_proved(connection, account, account)
    _may_send(access, proved)
    return proved


def activate(access: Access, account_id: UUID) -> Account:
    """Let an account send again; held mail that it can send leaves at once.

    Raises:
        Refused: there is no such account.
    """
    with access.write() as connection:
        account = _with_active(connection, account_id, active=True)
    _may_send(access, account)
    return account


def deactivate(access: Access, account_id: UUID) -> Account:
    """Take an account out of every claim made from now on; its waiting mail is chosen anew.

    Raises:
        Refused: there is no such account.
    """
    with access.write() as connection:
        account = _with_active(connection, account_id, active=False)
        [cleared] = lanes.clear(connection, [lanes.Clearing(account_id)])
    access.nudges.drain(cleared.accounts)
    _choose_anew(access, cleared.go_on)
    return account


def remove(access: Access, account_id: UUID) -> None:
    """Remove an account for good; its waiting mail is chosen anew.

    Raises:
        Refused: there is no such account.
    """
    deactivate(access, account_id)
    with access.write() as connection:
        accounts.remove(connection, account_id)


def _checked(account: Account, password: str | None, *, stored: bool = False) -> Account:
    """The account with its address in its usual form.

    Raises:
        InvalidAccount: at the first field that is wrong.
    """
    try:
        address = Address(address=account.address).address
    except InvalidMail as error:
        raise InvalidAccount("address", error.why) from None
    checked = replace(account, address=address, host=account.host.strip("[]"))
    mistake = next(_mistakes(checked, password, stored=stored), None)
    if mistake is not None:
        raise InvalidAccount(*mistake)
    return checked


def _mistakes(account: Account, password: str | None, *, stored: bool) -> Iterator[tuple[str, str]]:
    """What is wrong, as (field, why)."""
    signs_in = account.auth is not Auth.NONE
    no_owner = account.owner is not None and not _OWNER.fullmatch(account.owner)
    no_name = _CONTROLS.search(account.name) or len(account.name) > _LONGEST_NAME
    missing = "is missing; an account without sign-in has auth none"
    limit = f"must be 1 to {MOST_IN_A_LIMIT}, or none; `postroom account deactivate` lets nothing through"
    checks = (
        (not _HOST.fullmatch(account.host), "host", "must be a server's name or IP address"),
        (not 0 < account.port <= _LAST_PORT, "port", f"must be 1 to {_LAST_PORT}"),
        (no_owner, "owner", "must be 1 to 64 of A-Z a-z 0-9 . _ : @ -"),
        (no_name, "name", f"must be at most {_LONGEST_NAME} characters on one line"),
        (_CONTROLS.search(account.login), "login", "must not hold control characters"),
        (not 0 < account.connections <= MOST_CONNECTIONS, "connections", f"must be 1 to {MOST_CONNECTIONS}"),
        (_wrong_limit(account.mails_per_minute), "mails_per_minute", limit),
        (_wrong_limit(account.recipients_per_day), "recipients_per_day", limit),
        (abs(account.priority) > _PRIORITY_LIMIT, "priority", f"must be -{_PRIORITY_LIMIT} to {_PRIORITY_LIMIT}"),
        (signs_in and not account.login, "login", missing),
        (signs_in and not (password or stored), "password", missing),
        (password is not None and not signs_in, "password", "is not used with auth none"),
        (password is not None and _CONTROLS.search(password), "password", "must not hold control characters"),
    )
    return ((field, why) for wrong, field, why in checks if wrong)


def _wrong_limit(limit: int | None) -> bool:
    return limit is not None and not 0 < limit <= MOST_IN_A_LIMIT


def _with_password(access: Access, account: Account, password: str | None) -> Account:
    """The account with its password sealed for its destination; without sign-in it has none."""
    if account.auth is Auth.NONE:
        return replace(account, password=None)
    if password is None:
        return account
    return replace(account, password=access.public_key.seal(password.encode(), account.password_identity))


def _with_active(connection: Connection, account_id: UUID, *, active: bool) -> Account:
    account = accounts.get(connection, account_id)
    if account is None:
        raise Refused(f"there is no account {account_id}")
    if account.active is active:
        return account
    return accounts.replace_unproved(connection, account, replace(account, active=active))


def _chosen_alike(before: Account, after: Account) -> bool:
    """Whether the same mails would be put into the lanes of both."""
    return (before.address_key, before.owner, before.priority) == (after.address_key, after.owner, after.priority)


def _clear_at_once(connection: Connection, account_id: UUID) -> set[UUID]:
    """Choose anew for a whole lane in the transaction that changed its account: none of its mail may be claimed by an
    account that now has another address or owner.
    """
    got_mail: set[UUID] = set()
    part: lanes.Clearing | None = lanes.Clearing(account_id)
    while part is not None:
        [cleared] = lanes.clear(connection, [part])
        got_mail |= cleared.accounts
        part = cleared.go_on
    return got_mail


def _choose_anew(access: Access, part: lanes.Clearing | None) -> None:
    """Choose anew for what is left in the lane of an account that nothing claims for, a bounded number of mails a
    transaction.
    """
    while part is not None:
        with access.write() as connection:
            [cleared] = lanes.clear(connection, [part])
        access.nudges.drain(cleared.accounts)
        part = cleared.go_on


def _may_send(access: Access, account: Account) -> None:
    """Its own lane may hold mail that could not leave; held mail may find its way to it."""
    access.nudges.drain([account.id])
    access.nudges.release()
