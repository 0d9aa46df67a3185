"""Pausing and resuming: what the command line and the web pages both do. A pause survives whatever is restarted."""

from uuid import UUID

from postroom.config import accounts, pauses
from postroom.config.accounts import Account
from postroom.front.access import Access
from postroom.producer.errors import Refused
from postroom.worker import lanes


def pause(access: Access, account_id: UUID) -> tuple[Account, bool]:
    """Pause one account. What is being sent is finished; its waiting mail goes to another one, or is held.

    Returns:
        The account, and whether this paused it: False, it was paused already.

    Raises:
        Refused: there is no such account.
    """
    with access.write() as connection:
        paused = pauses.pause(connection, account_id)
        account = _there(accounts.get(connection, account_id), account_id)
        [cleared] = lanes.clear(connection, [lanes.Clearing(account_id)])
    access.nudges.drain(cleared.accounts)
    access.nudges.release()
    return account, paused


def resume(access: Access, account_id: UUID) -> tuple[Account, bool]:
    """Let one account send again; held mail that it can send leaves at once.

    Returns:
        The account, and whether this resumed it: False, it was not paused.

    Raises:
        Refused: there is no such account.
    """
    with access.write() as connection:
        resumed = pauses.resume(connection, account_id)
        account = _there(accounts.get(connection, account_id), account_id)
    access.nudges.drain([account_id])
    access.nudges.release()
    return account, resumed


def pause_all(access: Access) -> bool:
    """Pause the sending of all accounts; what is being sent is finished. False: it was paused already."""
    with access.write() as connection:
        paused = pauses.pause_all(connection)
    with access.read() as connection:
        claiming = pauses.may_be_claiming(connection)
    for account_id in claiming:
        with access.read() as connection:
            pauses.wait_for_claims(connection, account_id)
    access.nudges.release()
    return paused


def resume_all(access: Access) -> bool:
    """Lift the pause of all; accounts that are paused by themselves stay so. False: there was none."""
    with access.write() as connection:
        resumed = pauses.resume_all(connection)
    access.nudges.release()
    return resumed


def _there(account: Account | None, account_id: UUID) -> Account:
    if account is None:
        raise Refused(f"there is no account {account_id}")
    return account
