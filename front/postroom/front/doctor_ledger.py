"""What the doctor reads in the ledger: held and rejected mail, pauses, and the keys that what is sealed there needs.

Which keys the private ring holds is told by the workers, as ids: the ring itself stays closed to the doctor.
"""

from collections import Counter
from contextlib import suppress
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, func, select

from postroom.config import pauses
from postroom.config.accounts import rfc3339
from postroom.config.settings import Settings
from postroom.config.states import MailState
from postroom.config.tables import accounts, letters, mails, rejects
from postroom.config.vault import public_key
from postroom.front.doctor_checks import Finding
from postroom.producer.errors import KeyUnusable

_NEWEST: Final = 500
"""Letters that are looked at; the index on mails makes the newest cheap."""
_KEY_ID: Final = (4, 8)
"""Place and length, in SQL's counting, of the key's id in a sealed box."""


def findings(connection: Connection, settings: Settings, ring: str | None) -> tuple[Finding, ...]:
    """For held mail, pauses, rejected jobs and keys; `ring` has the ids of the workers' keys, None if none has told."""
    return _held(connection), _pauses(connection), _rejects(connection), _keys(connection, settings, ring)


def _held(connection: Connection) -> Finding:
    held = select(mails.c.reason, func.count()).where(mails.c.held_at.is_not(None), mails.c.state == MailState.HELD)
    found = {str(reason): count for reason, count in connection.execute(held.group_by(mails.c.reason))}
    if not found:
        return Finding(True, "no mail is held")
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(found.items()))
    return Finding(True, f"held: {told}", "`postroom mail list --state held` shows them; `postroom mail explain` why")


def _pauses(connection: Connection) -> Finding:
    all_paused_since = pauses.since(connection)
    alone = pauses.of_accounts(connection)
    if all_paused_since is None and not alone:
        return Finding(True, "nothing is paused")
    every = [] if all_paused_since is None else [f"all accounts since {rfc3339(all_paused_since)}"]
    told = [f"{each.address} since {rfc3339(each.paused_at)}{_why(each)}" for each in alone]
    blocked = any(each.paused_why for each in alone)
    first = "Have the provider lift its block; then " if blocked else ""
    return Finding(
        True,
        f"paused: {'; '.join([*every, *told])}",
        f"{first}`postroom resume [ACCOUNT]` lets them send; their mail is held until then",
    )


def _why(paused: pauses.Paused) -> str:
    return f", blocked by its provider: {paused.paused_why}" if paused.paused_why else ""


def _rejects(connection: Connection) -> Finding:
    waiting = select(func.count()).select_from(rejects).where(rejects.c.replayed_at.is_(None))
    count = connection.execute(waiting).scalar_one()
    if not count:
        return Finding(True, "none waits")
    return Finding(True, f"{count} waiting", "`postroom reject list` shows why; replay those whose cause is gone")


def _keys(connection: Connection, settings: Settings, ring: str | None) -> Finding:
    needed = _needed(connection)
    with suppress(KeyUnusable):  # another check tells
        needed.setdefault(public_key(settings).key_id.hex(), []).append("what is sealed from now on")
    if ring is None:
        return Finding(True, f"needed: {', '.join(sorted(needed)) or 'none'}; no worker has told which it holds")
    missing = {key_id: what for key_id, what in needed.items() if key_id not in ring.split()}
    if missing:
        named = "; ".join(f"{key_id}: {' and '.join(what)}" for key_id, what in sorted(missing.items()))
        action = (
            "Restore the private ring that these belong to from its backup and restart the workers; if it is the "
            "public key that is strange, take the one that `postroom keygen` makes where the ring is"
        )
        return Finding(False, f"not in the workers' private ring: {named}", action)
    return Finding(True, f"{len(needed)} needed, all in the workers' private ring")


def _needed(connection: Connection) -> dict[str, list[str]]:
    """Id of a key → what is sealed with it. Of letters the newest that have not ended are looked at."""
    newest = select(mails.c.id).where(mails.c.ended_at.is_(None)).order_by(mails.c.created_at.desc()).limit(_NEWEST)
    sealed = {
        "passwords": select(_key_id(accounts.c.password)).where(accounts.c.password.is_not(None)),
        "letters": select(_key_id(letters.c.sealed)).where(letters.c.mail_id.in_(newest)),
    }
    needed: dict[str, list[str]] = {}
    for what, query in sealed.items():
        for key_id, count in Counter(bytes(found) for found in connection.execute(query).scalars()).items():
            needed.setdefault(key_id.hex(), []).append(f"{count} {what}")
    return needed


def _key_id(column: Any) -> Any:
    return func.substr(column, *_KEY_ID, type_=LargeBinary)
