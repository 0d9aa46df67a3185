"""How a command gets at the ledger and the workers."""
# ruff: noqa: PLC0415 - commands start fast: what is heavy is imported by the command that needs it

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.front.access import Access


@contextmanager
def opened() -> Iterator["Access"]:
    """Access under the settings in force, closed when the block ends.

    Raises:
        SettingsInvalid: a setting cannot be used.
    """
    from postroom.config import settings
    from postroom.front.access import Access

    with Access(settings.load()) as access:
        yield access
