"""What every house of a test can do: set a scene in its ledger."""

from dataclasses import replace
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import update

from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.states import Auth, Security
from postroom.config.tables import metadata
from postroom.config.vault import public_key
from postroom.producer import Mail
from postroom.producer.identifiers import uuid7
from postroom.worker.process import Process


class Server(Protocol):
    """Where an account may point."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class LedgerHouse:
    """A house with a process of its own."""

    process: Process

    def add_account(self, server: Server, address: str = "shop@shop.example", **changes: Any) -> Account:
        """Store an account as a proof would have left it. A `password` given in clear is sealed."""
        password = changes.pop("password", None)
        account = Account(
            id=uuid7(),
            address=address,
            host=server.host,
            port=server.port,
            security=changes.pop("security", Security.NONE),
            auth=changes.pop("auth", Auth.NONE),
            **changes,
        )
        if password is not None:
            sealed = public_key(self.process.settings).seal(password.encode(), account.password_identity)
            account = replace(account, password=sealed)
        with self.process.database.write() as connection:
            return kept.add(connection, account)

    def change(self, table: str, row_id: UUID, **values: Any) -> None:
        """Edit a row behind Postroom's back: time moved, a column tampered with."""
        target = metadata.tables[table]
        with self.process.database.write() as connection:
            changed = connection.execute(update(target).where(target.c.id == row_id).values(values))
        assert changed.rowcount == 1


def order(**fields: Any) -> Mail:
    """A shop's mail, with these fields changed."""
    given = {"from_": "shop@shop.example", "to": "anna@client.example", "subject": "Order 7", "text": "Thank you"}
    return Mail(**{**given, **fields})
