"""What is set and what is kept: settings, the database, the vault, accounts and senders.

Raises:
    MissingExtra: this is a bare install, which can only enqueue.
"""

from importlib.util import find_spec

from postroom.producer.errors import MissingExtra

for _needed in ("sqlalchemy", "pydantic_settings"):
    if find_spec(_needed) is None:
        raise MissingExtra(f"{_needed} is not installed; run: pip install 'postroom[worker]' (or 'postroom[front]')")
