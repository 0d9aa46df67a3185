"""An open, signed-in connection to an account's server. One thread at a time uses it, for any number of mails."""

import contextlib
import time
from collections.abc import Callable
from typing import Final, Self

from postroom.worker.smtp import network
from postroom.worker.smtp.delivery import Delivery, Envelope, RecipientResult
from postroom.worker.smtp.errors import Broken, Closed, OpenFailed, Surprise, TimedOut
from postroom.worker.smtp.opening import Extensions, Opening, Step
from postroom.worker.smtp.server import Client, Server, Timeouts
from postroom.worker.smtp.transaction import Transaction
from postroom.worker.smtp.wire import Wire

__all__ = [
    "Broken",
    "Closed",
    "Delivery",
    "Envelope",
    "Extensions",
    "OpenFailed",
    "RecipientResult",
    "Session",
    "Step",
    "Surprise",
    "TimedOut",
]

_MOST_REFUSALS: Final = 10
"""So many refused commands in a row, and servers grow slow (Postfix's smtpd_soft_error_limit is 10): start anew."""


class Session:
    """An SMTP session.

    Attributes:
        extensions: what the server offers.
        reusable: False after a time-out, a protocol surprise, a 421 or too many refusals: close it, use it no more.
        lockstep: set it to send one command at a time even where PIPELINING is offered.
        opened_at: `time.monotonic()` when it was open.
        last_used_at: the same, when its last mail ended.
    """

    def __init__(
        self,
        wire: Wire,
        extensions: Extensions,
        timeouts: Timeouts,
        on_step: Callable[[Step], None] | None = None,
    ) -> None:
        self.extensions = extensions
        self.reusable = True
        self.lockstep = False
        self.opened_at = self.last_used_at = time.monotonic()
        self._wire = wire
        self._timeouts = timeouts
        self._on_step = on_step
        self._needs_reset = False
        self._refusals = 0

    @classmethod
    def open(
        cls,
        server: Server,
        client: Client,
        *,
        on_step: Callable[[Step], None] | None = None,
        guard: network.Guard = network.allow_all,
    ) -> Self:
        """Connects and signs in.

        Args:
            server: where to, and how to sign in.
            client: who we are; the process's one.
            on_step: told of each step as it ends, here and in `deliver`.
            guard: asked with each IP address before it is connected to.

        Raises:
            OpenFailed: with the step, the server's reply and a hint; nothing is left open.
        """
        wire, extensions = Opening(server, client, on_step, guard).run()
        return cls(wire, extensions, client.timeouts, on_step)

    def deliver(self, envelope: Envelope, content: bytes, permit: Callable[[], bool]) -> Delivery:
        """Sends one mail in one transaction. Never raises for what the server does; see `Delivery`.

        Args:
            envelope: who sends and who receives.
            content: the whole letter (RFC 5322), dots not stuffed. With 8-bit bytes only if `extensions` say so.
            permit: asked when all but the final dot is written; may block, as a database commit does. Not True, or an
                exception, which passes through: the connection is aborted and nobody has the mail.

        Raises:
            RuntimeError: the session is not reusable.
        """
        if not self.reusable:
            raise RuntimeError("this session is over")
        self.reusable = False  # until it is known to be in order again
        transaction = Transaction(
            self._wire,
            self.extensions,
            self._timeouts,
            lockstep=self.lockstep,
            reset_first=self._needs_reset,
            on_step=self._on_step,
        )
        delivery = transaction.run(envelope, content, permit)
        self.last_used_at = time.monotonic()
        self._needs_reset = transaction.needs_reset
        self._refusals = 0 if delivery.outcome == "accepted" else self._refusals + transaction.refusals
        self.reusable = not (transaction.broken or self._wire.has_unread or self._refusals >= _MOST_REFUSALS)
        if transaction.broken:
            self._wire.close()
        return delivery

    def alive(self) -> bool:
        """Whether it can be used once more; cheap, and never blocks.

        False when the server closed it while it lay idle, or said something, such as a 421, that nobody asked for.
        """
        if self.reusable and self._wire.waiting():
            self.reusable = False
        return self.reusable

    def cut_off(self) -> None:
        """Ends, from another thread, the transaction that waits for its server: breaks its connection. Never raises."""
        self._wire.cut_off()

    def close(self, *, politely: bool = True) -> None:
        """Says QUIT if all is well, waits a moment for the reply, and closes. Never raises."""
        if politely and self.alive():
            self.reusable = False
            with contextlib.suppress(Broken):
                self._wire.write(b"QUIT\r\n", timeout_seconds=self._timeouts.quit_seconds)
                self._wire.read_reply("QUIT", timeout_seconds=self._timeouts.quit_seconds)
        self._wire.close()
