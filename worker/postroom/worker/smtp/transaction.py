"""One mail over one open connection: MAIL, RCPT, DATA, content, and the final dot once it is permitted.

The order that everything hangs on (design §4): the content is written without its final dot, then `permit` is asked,
which makes the mark durable, and only then the dot goes. A break before it is `unreached`: surely nobody has the mail.
A break after it is `uncertain`.

Pipelining (RFC 2920): MAIL, every RCPT and DATA go in one write. So DATA may be accepted although every recipient was
refused; then a lone dot ends that empty transaction, as RFC 2920 §3.1 says. It needs no permit: nobody can receive it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from postroom.config.states import Outcome
from postroom.worker.smtp.content import stuffed, wire_content
from postroom.worker.smtp.delivery import SIZE, SMTPUTF8, SMTPUTF8_FOR_ALL, Delivery, Envelope, RecipientResult
from postroom.worker.smtp.errors import Broken, Closed, Surprise
from postroom.worker.smtp.opening import Extensions, Step
from postroom.worker.smtp.replies import Reply, Verdict, classify
from postroom.worker.smtp.server import Timeouts
from postroom.worker.smtp.wire import Wire

_GROUP: Final = 100
"""Commands in one write: their replies must fit the receive buffers, or both sides wait for ever (RFC 2920 §3.1)."""
_CLOSING: Final = 421
_UNASKED: Final = "the server said something that it was not asked"


class _Refused(Exception):
    """The server refused the mail as a whole."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class Transaction:
    """One run over a wire. Afterwards it says in which state it left the connection.

    Attributes:
        broken: the connection must not be used again.
        needs_reset: RSET must come before the next MAIL.
        refusals: how many 4yz and 5yz replies there were.
    """

    def __init__(
        self,
        wire: Wire,
        extensions: Extensions,
        timeouts: Timeouts,
        *,
        lockstep: bool,
        reset_first: bool,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self.broken = False
        self.needs_reset = reset_first
        self.refusals = 0
        self._wire = wire
        self._extensions = extensions
        self._timeouts = timeouts
        self._lockstep = lockstep or not extensions.pipelining
        self._on_step = on_step
        self._began = self._step_began = time.perf_counter()
        self._all_recipients: tuple[str, ...] = ()
        self._recipients: tuple[str, ...] = ()
        self._smtputf8 = False
        self._mail: Reply | None = None
        self._rcpt: list[Reply] = []
        self._data: Reply | None = None
        self._permitted = False
        self._dotted = False

    def run(self, envelope: Envelope, content: bytes, permit: Callable[[], bool]) -> Delivery:
        """Sends the mail. Exceptions of `permit` pass through, with the connection closed before the dot."""
        self._all_recipients = envelope.recipients
        self._smtputf8 = self._extensions.smtputf8 and _needs_smtputf8(envelope)
        self._recipients = tuple(filter(self._can_be_named, envelope.recipients))
        content = wire_content(content)
        limit = self._extensions.size_bytes
        if limit is not None and len(content) > limit:
            return self._result(verdict=SIZE)
        for_all = envelope.smtputf8 or not envelope.reverse_path.isascii()
        if not self._recipients or (for_all and not self._smtputf8):
            return self._result(verdict=SMTPUTF8_FOR_ALL if for_all else SMTPUTF8)
        try:
            return self._converse(envelope.reverse_path, content, permit)
        except _Refused as refusal:
            return self._result(reply=refusal.reply)
        except Broken as error:
            self.broken = True
            return self._after_break(error)
        except BaseException:
            self.broken = True
            self._wire.close()
            raise

    def _converse(self, reverse_path: str, content: bytes, permit: Callable[[], bool]) -> Delivery:
        self._envelope(list(self._commands(reverse_path, content)))
        accepted = self._mail_accepted and any(reply.code < 400 for reply in self._rcpt)  # noqa: PLR2004 - 2yz
        go_ahead = self._data is not None and self._data.code == 354  # noqa: PLR2004 - RFC 5321 §4.1.1.4
        if not accepted:
            if go_ahead:
                self._end_empty()
            else:
                self.needs_reset = self._mail_accepted
            return self._result(reply=None if self._mail_accepted else self._mail)
        assert self._data is not None  # noqa: S101 - lockstep leaves DATA out only where nobody was accepted
        if not go_ahead:
            self.needs_reset = True
            return self._result(reply=self._data)
        self._wire.write_content(stuffed(content), block_timeout_seconds=self._timeouts.block_seconds)
        self._still_listening()
        if not permit():
            self.broken = True
            self._wire.close()
            return self._result(outcome=Outcome.UNREACHED, trouble="the final dot was not permitted")
        self._still_listening()  # what it said while the permit was awaited must not pass for the answer to the dot
        return self._result(reply=self._dot())

    def _still_listening(self) -> None:
        if self._wire.waiting():
            raise Closed("the server broke off before the final dot")

    def _dot(self) -> Reply:
        self._permitted = self._dotted = True  # from here on a break is uncertain, even one inside the write
        self._wire.write(b".\r\n", timeout_seconds=self._timeouts.block_seconds)
        reply = self._wire.read_reply(".", timeout_seconds=self._timeouts.dot_seconds)
        if 300 <= reply.code < 400:  # noqa: PLR2004 - 3yz has no meaning here
            raise Surprise("the server asked for more after the final dot")
        self._count(reply)
        self.broken = self.broken or reply.code == _CLOSING
        self._report("message", reply)
        return reply

    def _commands(self, reverse_path: str, content: bytes) -> Iterator[tuple[str, bytes]]:
        if self.needs_reset:
            yield "RSET", b"RSET\r\n"
        parameters = f" SIZE={len(content)}" if self._extensions.size_bytes is not None else ""
        if self._extensions.eight_bit_mime and (self._smtputf8 or not content.isascii()):
            parameters += " BODY=8BITMIME"
        if self._smtputf8:
            parameters += " SMTPUTF8"
        yield "MAIL", f"MAIL FROM:<{reverse_path}>{parameters}\r\n".encode()
        for address in self._recipients:
            yield "RCPT", f"RCPT TO:<{address}>\r\n".encode()
        yield "DATA", b"DATA\r\n"

    def _envelope(self, commands: Sequence[tuple[str, bytes]]) -> None:
        if self._wire.waiting():
            raise Surprise(_UNASKED)
        waiting = iter(commands)
        while group := list(islice(waiting, 1 if self._lockstep else _GROUP)):
            if self._lockstep and group[0][0] == "DATA" and all(reply.code >= 400 for reply in self._rcpt):  # noqa: PLR2004
                return
            self._wire.write(b"".join(line for _, line in group), timeout_seconds=self._patience_seconds(group[0][0]))
            for verb, _ in group:
                self._read(verb)
            if self._wire.has_unread:
                self._unasked()
            if self._mail is not None and not self._mail_accepted:
                return

    def _unasked(self) -> None:
        """The server said more than was asked. A 421 takes nothing back; anything else makes every reply doubtful."""
        words = self._wire.last_words()
        if words is None or words.code != _CLOSING:
            raise Surprise(_UNASKED)
        self.broken = True
        if self._data is None:
            raise _Refused(words)

    def _patience_seconds(self, verb: str) -> float:
        timeouts = self._timeouts
        of_verb = {"MAIL": timeouts.mail_seconds, "RCPT": timeouts.rcpt_seconds, "DATA": timeouts.data_seconds}
        return of_verb.get(verb, timeouts.command_seconds)

    def _read(self, verb: str) -> None:
        reply = self._wire.read_reply(verb, timeout_seconds=self._patience_seconds(verb))
        self._count(reply)
        right = reply.code == 354 if verb == "DATA" else reply.code < 300  # noqa: PLR2004 - RFC 5321 §4.3.2
        if not right and reply.code < 400:  # noqa: PLR2004 - neither go-ahead nor refusal, such as 334 to DATA
            raise Surprise(f"the server answered {verb} with {reply.code}")
        match verb:
            case "RSET":
                if reply.code >= 400 and reply.code != _CLOSING:  # noqa: PLR2004 - RFC 5321 §4.1.1.5 knows no refusal
                    raise Surprise("the server refused RSET")
                self.needs_reset = False
            case "MAIL":
                self._mail = reply
                self._report("mail_from", reply)
            case "RCPT":
                self._rcpt.append(reply)
                if len(self._rcpt) == len(self._recipients):
                    worst = max(self._rcpt, key=lambda each: each.code)
                    self._report("rcpt_to", worst)
            case "DATA":
                self._data = reply
                self._report("data", reply)
        if reply.code == _CLOSING:  # the replies still due will not come (RFC 5321 §3.8)
            self.broken = True
            raise _Refused(reply)

    def _end_empty(self) -> None:
        """Ends a transaction that has no recipient though DATA was accepted."""
        self.needs_reset = False
        if any(reply.code < 400 for reply in self._rcpt):  # noqa: PLR2004 - MAIL refused, yet a recipient taken
            self.broken = True  # such a server might deliver the empty letter: no dot for it
            return
        try:
            self._wire.write(b".\r\n", timeout_seconds=self._timeouts.block_seconds)
            reply = self._wire.read_reply(".", timeout_seconds=self._timeouts.dot_seconds)
        except Broken:
            self.broken = True  # nothing was at stake
        else:
            self.broken = self.broken or reply.code == _CLOSING

    def _after_break(self, error: Broken) -> Delivery:
        if self._dotted:
            self._wire.close()
            self._report_trouble(error)
            return self._result(outcome=Outcome.UNCERTAIN, trouble=str(error))
        words = None if isinstance(error, Surprise) else self._wire.last_words()
        self._wire.close()
        self._report_trouble(error)
        if words is not None and words.code >= 400:  # noqa: PLR2004 - it told why it hung up; the dot was not sent
            return self._result(reply=replace(words, command="." if self._data is not None else ""))
        return self._result(outcome=Outcome.UNREACHED, trouble=str(error))

    # -- what came of it

    def _can_be_named(self, address: str) -> bool:
        return self._smtputf8 or address.isascii()

    @property
    def _mail_accepted(self) -> bool:
        return self._mail is not None and self._mail.code < 400  # noqa: PLR2004 - 2yz

    def _count(self, reply: Reply) -> None:
        self.refusals += reply.code >= 400  # noqa: PLR2004 - 4yz and 5yz

    def _result(
        self,
        *,
        reply: Reply | None = None,
        verdict: Verdict | None = None,
        outcome: Outcome | None = None,
        trouble: str | None = None,
    ) -> Delivery:
        """The delivery, where `reply`, `verdict` or `outcome` decides for everybody whom RCPT did not refuse."""
        if reply is not None:
            verdict = classify(reply)
        if verdict is not None:
            outcome = verdict.outcome
        results = tuple(self._recipient_results(reply, verdict, outcome))
        whole = min((result.outcome for result in results), key=_WEIGHT.index)
        decisive = next(result for result in results if result.outcome is whole)
        return Delivery(
            outcome=whole,
            recipients=results,
            reply=decisive.reply,
            verdict=decisive.verdict,
            trouble=trouble,
            permitted=self._permitted,
            stale=self.broken and (self._mail is None or self._mail.code == _CLOSING),
            duration_seconds=time.perf_counter() - self._began,
        )

    def _recipient_results(
        self, reply: Reply | None, verdict: Verdict | None, outcome: Outcome | None
    ) -> Iterator[RecipientResult]:
        answers = iter(self._rcpt if self._mail_accepted else ())
        for address in self._all_recipients:
            own = next(answers, None) if self._can_be_named(address) else None
            if not self._can_be_named(address) and outcome is not Outcome.FAILED:
                yield RecipientResult(address, SMTPUTF8.outcome, None, SMTPUTF8)
            elif own is not None and own.code >= 400:  # noqa: PLR2004 - refused by RCPT
                own_verdict = classify(own)
                if own_verdict.wait_seconds == 0 and all(each.code >= 400 for each in self._rcpt):  # noqa: PLR2004
                    own_verdict = replace(own_verdict, wait_seconds=None)  # not even one was taken: no use in hurrying
                yield RecipientResult(address, own_verdict.outcome, own, own_verdict)
            else:
                assert outcome is not None  # noqa: S101 - without a decision for all, RCPT refused each
                yield RecipientResult(address, outcome, reply, verdict)

    # -- steps, for whoever watches a proof

    def _report(self, name: str, reply: Reply) -> None:
        if self._on_step is None:
            return
        now = time.perf_counter()
        self._on_step(Step(name, reply.code < 400, str(reply), now - self._step_began))  # noqa: PLR2004 - refused
        self._step_began = now

    def _report_trouble(self, error: Broken) -> None:
        if self._on_step is None:
            return
        due = next(
            (name for name, reply in (("mail_from", self._mail), ("data", self._data)) if reply is None), "message"
        )
        if due == "data" and len(self._rcpt) < len(self._recipients):
            due = "rcpt_to"
        self._on_step(Step(due, False, str(error), time.perf_counter() - self._step_began))


def _needs_smtputf8(envelope: Envelope) -> bool:
    addresses = (envelope.reverse_path, *envelope.recipients)
    return envelope.smtputf8 or not all(address.isascii() for address in addresses)


_WEIGHT: Final = (Outcome.ACCEPTED, Outcome.UNCERTAIN, Outcome.UNREACHED, Outcome.DEFERRED, Outcome.FAILED)
"""Which outcome of a recipient becomes that of the attempt, first match."""
