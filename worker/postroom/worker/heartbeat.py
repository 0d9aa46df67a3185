"""The heartbeat: renews the leases of all claims of one process, and tells a drain that lost its own."""

import threading
from uuid import UUID

import structlog

from postroom.worker.claim import Renew, renew
from postroom.worker.writer import Writer

_BEATS_A_LEASE = 4
_CLOSES_IN_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Heartbeat:
    """One thread a process; it beats four times a lease."""

    def __init__(self, writer: Writer, lease_seconds: float) -> None:
        self._writer = writer
        self._lease_seconds = lease_seconds
        self._held: dict[UUID, threading.Event] = {}
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def hold(self, claim: UUID) -> threading.Event:
        """Renew this claim from now on. The event is set when its lease was lost."""
        lost = threading.Event()
        with self._guard:
            self._held[claim] = lost
        return lost

    def drop(self, claim: UUID) -> None:
        """Renew this claim no longer."""
        with self._guard:
            self._held.pop(claim, None)

    def close(self) -> None:
        """End the thread, or leave it where it waits for a database that is away."""
        self._ended.set()
        self._thread.join(_CLOSES_IN_SECONDS)

    def _run(self) -> None:
        while not self._ended.wait(self._lease_seconds / _BEATS_A_LEASE):
            with self._guard:
                held = dict(self._held)
            if not held:
                continue
            try:
                standing = self._writer.do(renew, Renew(frozenset(held), self._lease_seconds))
            except Exception as error:  # noqa: BLE001 - without this thread every lease would be lost
                log.warning("the leases were not renewed", error=type(error).__name__)
                continue
            for claim in held.keys() - standing:
                with self._guard:
                    lost = self._held.get(claim)
                if lost is not None:
                    log.warning("a claim's lease was lost", claim=str(claim))
                    lost.set()
