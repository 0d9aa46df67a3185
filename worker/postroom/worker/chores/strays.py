"""Strays: jobs that have lain in the inbox for 30 s. Their nudge was lost, or a worker died with them in hand."""

from postroom.worker.process import Process


def strays(process: Process) -> int:
    """Nudge `accept` for them; returns how many were found."""
    found = process.inbox.strays()
    process.nudges.accept(found)
    return len(found)
