"""An open, signed-in connection to an account's server. One thread at a time uses it, for any number of mails."""

import contextlib
import time
from collections.abc import Callable
from typing import Final, Self

from postroom.config.states import Outcome
from postroom.worker.smtp import network
from postroom.worker.smtp.delivery import Delivery, Envelope, RecipientResult
from postroom.worker.smtp.errors import Broken, Closed, OpenFailed, Surprise, TimedOut
from postroom.worker.smtp.judging import Answers, Judgement, judged
from postroom.worker.smtp.opening import Extensions, Opening, Step
from postroom.worker.smtp.outgoing import Outgoing, prepared
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
        lockstep: send one command at a time even where PIPELINING is offered.
        out_of_step: it broke in a way that makes one doubt whether this server can bear pipelining.
        opened_at: `time.monotonic()` when it was open.
        last_used_at: the same, when its last mail ended.
    """

    def __init__(
        self,
        wire: Wire,
        extensions: Extensions,
        timeouts: Timeouts,
        on_step: Callable[[Step], None] | None = None,
        *,
        lockstep: bool = False,
    ) -> None:
        self.extensions = extensions
        self.reusable = True
        self.lockstep = lockstep
        self.out_of_step = False
        self.opened_at = self.last_used_at = time.monotonic()
        self._wire = wire
        self._timeouts = timeouts
        self._on_step = on_step
        self._needs_reset = False
        self._refusals = 0
        self._ahead: Outgoing | None = None
        self._bears_pipelining = False

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
        return cls(wire, extensions, client.timeouts, on_step, lockstep=not server.pipelining)

    @property
    def promised(self) -> Envelope | None:
        """The envelope that went ahead of its mail (`following`); the next mail of this session must be that one."""
        return None if self._ahead is None else self._ahead.envelope

    def deliver(
        self,
        envelope: Envelope,
        content: bytes,
        permit: Callable[[], bool],
        *,
        following: tuple[Envelope, bytes] | None = None,
    ) -> Delivery:
        """Sends one mail in one transaction. Never raises for what the server does; see `Delivery`.

        Args:
            envelope: who sends and who receives.
            content: the whole letter (RFC 5322), dots not stuffed. With 8-bit bytes only if `extensions` say so.
            permit: asked when only the final dot is missing, or that and a short content; may block, as a database
                commit does. Not True, or an exception, which passes through: the connection is aborted and nobody has
                the mail.
            following: envelope and content of the mail that comes next, if that is settled. Where the server can bear
                it, its envelope goes right behind the final dot (RFC 2920 §3.1), and the `deliver` of that mail begins
                with the replies. `promised` tells then. Another mail cannot go over this session any more: `deliver`
                closes it, and that mail's delivery is `stale`; and `close` and the pool break it off, which is all that
                can be done once DATA was accepted. Nobody has a mail by its envelope.

        Raises:
            RuntimeError: the session is not reusable.
        """
        if not self.reusable:
            raise RuntimeError("this session is over")
        self.reusable = False  # until it is known to be in order again
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            outgoing = prepared(envelope, content, self.extensions)
        elif (ahead.envelope, ahead.letter) == (envelope, content):
            outgoing = ahead
        else:
            self._wire.close()
            return _unreached(prepared(envelope, content, self.extensions), "the session was ready for another mail")
        lockstep = self.lockstep or not self.extensions.pipelining
        next_ = None
        if following is not None and not lockstep:
            next_ = prepared(*following, self.extensions)
        transaction = Transaction(
            self._wire,
            self._timeouts,
            lockstep=lockstep,
            reset_first=self._needs_reset,
            on_step=self._on_step,
        )
        delivery = transaction.run(
            outgoing,
            permit,
            following=next_ if next_ is not None and next_.fits_one_write else None,
            already_sent=ahead is not None,
        )
        self.last_used_at = time.monotonic()
        self._needs_reset = transaction.needs_reset
        self._refusals = 0 if delivery.outcome == "accepted" else self._refusals + transaction.refusals
        if transaction.broken:
            self.out_of_step = not lockstep and self._doubts(transaction, ahead)
            self._wire.close()
            return delivery
        self._bears_pipelining = self._bears_pipelining or ahead is not None
        if transaction.went_ahead:
            self._ahead = next_
        unasked = self._ahead is None and self._wire.has_unread
        self.reusable = not (unasked or self._refusals >= _MOST_REFUSALS)
        return delivery

    def _doubts(self, transaction: Transaction, ahead: Outgoing | None) -> bool:
        """Whether a break may come of pipelining: nonsense; or silence or an end where an envelope went ahead.

        An end comes of other things as well, and does not tell where envelopes that went ahead were answered before.
        """
        error = transaction.broken_by
        waited = transaction.went_ahead or (ahead is not None and transaction.answers.data is None)
        return isinstance(error, Surprise) or (
            waited and error is not None and (isinstance(error, TimedOut) or not self._bears_pipelining)
        )

    def alive(self) -> bool:
        """Whether it can be used once more; cheap, and never blocks.

        False when the server closed it while it lay idle, or said something, such as a 421, that nobody asked for; and
        when an envelope went ahead whose mail did not follow.
        """
        if self.reusable and (self._ahead is not None or self._wire.waiting()):
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


def _unreached(outgoing: Outgoing, why: str) -> Delivery:
    return judged(outgoing, Answers(), Judgement(outcome=Outcome.UNREACHED, trouble=why), stale=True)
