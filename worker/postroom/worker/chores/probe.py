"""Probe: accounts that could not be reached, or were refused at sign-in, are tried again when their gap is over."""

from postroom.config import accounts as kept
from postroom.worker.process import Process


def probe(process: Process) -> int:
    """Nudge a drain of each; it takes the turn, connects and signs in. Returns how many were due."""
    with process.database.read() as connection:
        due = kept.due_for_probe(connection)
    for account_id in due:
        process.nudges.drain(account_id)
    return len(due)
