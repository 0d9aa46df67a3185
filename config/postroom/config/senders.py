"""Senders: addresses that a CRM user may put in From once confirmed (design §7)."""

from collections.abc import Iterable

from sqlalchemy import Connection, select, tuple_

from postroom.config.tables import senders


def confirmed_names(connection: Connection, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Which (owner, address key) pairs are confirmed, with each one's display name."""
    pairs = list(wanted)
    if not pairs:
        return {}
    query = select(senders.c.owner, senders.c.address_key, senders.c.name).where(
        tuple_(senders.c.owner, senders.c.address_key).in_(pairs), senders.c.confirmed_at.is_not(None)
    )
    return {(row.owner, row.address_key): row.name for row in connection.execute(query)}
