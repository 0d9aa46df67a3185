"""One mail over one open connection: MAIL, RCPT, DATA, content, and the final dot once it is permitted.

The order that everything hangs on (design §4): `permit`, which makes the mark durable, is asked before the final dot
goes. A break before the dot is `unreached`: surely nobody has the mail. A break after it is `uncertain`.

Pipelining (RFC 2920): MAIL, every RCPT and DATA go in one write, and that of the next mail may go right behind this
one's dot. So DATA may be accepted although every recipient was refused; then a lone dot ends that empty transaction, as
RFC 2920 §3.1 says. It needs no permit: nobody can receive it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from postroom.config.states import Outcome
from postroom.worker.smtp.content import stuffed
from postroom.worker.smtp.delivery import Delivery
from postroom.worker.smtp.errors import Broken, Closed, Surprise
from postroom.worker.smtp.judging import Answers, Judgement, judged
from postroom.worker.smtp.opening import Step
from postroom.worker.smtp.outgoing import GROUP, Outgoing
from postroom.worker.smtp.replies import Reply
from postroom.worker.smtp.server import Timeouts
from postroom.worker.smtp.wire import Wire

_ONE_FLIGHT_BYTES: Final = 14_000
"""So much TCP sends at once, even after a pause (RFC 6928). Content that fits goes with its dot in one write: the dot
arrives no later than if the content had gone while the permit was awaited."""
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
        broken_by: what broke it, if the server did not say so itself.
        needs_reset: RSET must come before the next MAIL.
        refusals: how many 4yz and 5yz replies there were.
        went_ahead: the envelope of `following` is on its way.
    """

    def __init__(
        self,
        wire: Wire,
        timeouts: Timeouts,
        *,
        lockstep: bool,
        reset_first: bool,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self.broken = False
        self.broken_by: Broken | None = None
        self.needs_reset = reset_first
        self.refusals = 0
        self.went_ahead = False
        self.answers = Answers()
        self._wire = wire
        self._timeouts = timeouts
        self._lockstep = lockstep
        self._on_step = on_step
        self._began = self._step_began = time.perf_counter()
        self._dotted = False

    def run(
        self, outgoing: Outgoing, permit: Callable[[], bool], *, following: Outgoing | None, already_sent: bool
    ) -> Delivery:
        """Sends the mail. Exceptions of `permit` pass through, with the connection closed before the dot.

        Args:
            outgoing: the mail.
            permit: see `Session.deliver`.
            following: whose envelope to write behind the final dot.
            already_sent: the envelope of this mail was `following` before: only its replies are due.
        """
        self._outgoing = outgoing
        if outgoing.refusal is not None:
            return self._judged(Judgement(verdict=outgoing.refusal))
        try:
            if already_sent:
                self._replies(outgoing.commands)
            else:
                self._envelope(outgoing.commands)
            return self._judged(self._converse(permit, following))
        except _Refused as refusal:
            return self._judged(Judgement(reply=refusal.reply))
        except Broken as error:
            self.broken = True
            self.broken_by = error
            return self._judged(self._after_break(error))
        except BaseException:
            self.broken = True
            self._wire.close()
            raise

    def _converse(self, permit: Callable[[], bool], following: Outgoing | None) -> Judgement:
        """From the replies to the envelope on."""
        answers = self.answers
        go_ahead = answers.data is not None and answers.data.code == 354  # noqa: PLR2004 - RFC 5321 §4.1.1.4
        if not (answers.mail_accepted and answers.rcpt_accepted):
            if go_ahead:
                self._end_empty()
            else:
                self.needs_reset = answers.mail_accepted
            return Judgement(reply=None if answers.mail_accepted else answers.mail)
        if not go_ahead:
            self.needs_reset = True
            return Judgement(reply=answers.data)
        last = stuffed(self._outgoing.content)
        if len(last) > _ONE_FLIGHT_BYTES:
            self._wire.write_content(last, block_timeout_seconds=self._timeouts.block_seconds)
            self._still_listening()
            last = b""
        if not permit():
            self.broken = True
            self._wire.close()
            return Judgement(outcome=Outcome.UNREACHED, trouble="the final dot was not permitted")
        self._still_listening()  # what it said while the permit was awaited must not pass for the answer to the dot
        return Judgement(reply=self._dot(last, following))

    def _still_listening(self) -> None:
        if self._wire.waiting():
            raise Closed("the server broke off before the final dot")

    def _dot(self, rest: bytes, following: Outgoing | None) -> Reply:
        """Writes what is left of the content, the final dot and the next envelope; and waits for the reply."""
        self._dotted = True  # from here on a break is uncertain, even one inside the write
        behind = () if following is None else (line for _, line in following.commands)
        self.went_ahead = following is not None
        self._wire.write_content(
            b"".join((rest, b".\r\n", *behind)), block_timeout_seconds=self._timeouts.block_seconds
        )
        reply = self._wire.read_reply(".", timeout_seconds=self._timeouts.dot_seconds)
        if 300 <= reply.code < 400:  # noqa: PLR2004 - 3yz has no meaning here
            raise Surprise("the server asked for more after the final dot")
        self._count(reply)
        self.broken = self.broken or reply.code == _CLOSING
        self._report("message", reply)
        return reply

    def _envelope(self, commands: Sequence[tuple[str, bytes]]) -> None:
        if self._wire.waiting():
            raise Surprise(_UNASKED)
        if self.needs_reset:
            commands = (("RSET", b"RSET\r\n"), *commands)
        answers = self.answers
        waiting = iter(commands)
        while group := list(islice(waiting, 1 if self._lockstep else GROUP)):
            if self._lockstep and group[0][0] == "DATA" and not answers.rcpt_accepted:
                return
            self._wire.write(b"".join(line for _, line in group), timeout_seconds=self._patience_seconds(group[0][0]))
            self._replies(group)
            if answers.mail is not None and not answers.mail_accepted:
                return

    def _replies(self, group: Sequence[tuple[str, bytes]]) -> None:
        for verb, _ in group:
            self._read(verb)
        if self._wire.has_unread:
            self._unasked()

    def _unasked(self) -> None:
        """The server said more than was asked. A 421 takes nothing back; anything else makes every reply doubtful."""
        words = self._wire.last_words()
        if words is None or words.code != _CLOSING:
            raise Surprise(_UNASKED)
        self.broken = True
        if self.answers.data is None:
            raise _Refused(words)

    def _patience_seconds(self, verb: str) -> float:
        match verb:
            case "MAIL":
                return self._timeouts.mail_seconds
            case "RCPT":
                return self._timeouts.rcpt_seconds
            case "DATA":
                return self._timeouts.data_seconds
        return self._timeouts.command_seconds

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
                self.answers.mail = reply
                self._report("mail_from", reply)
            case "RCPT":
                self.answers.rcpt.append(reply)
                if len(self.answers.rcpt) == len(self._outgoing.recipients):
                    worst = max(self.answers.rcpt, key=lambda each: each.code)
                    self._report("rcpt_to", worst)
            case "DATA":
                self.answers.data = reply
                self._report("data", reply)
        if reply.code == _CLOSING:  # the replies still due will not come (RFC 5321 §3.8)
            self.broken = True
            raise _Refused(reply)

    def _end_empty(self) -> None:
        """Ends a transaction that has no recipient though DATA was accepted."""
        self.needs_reset = False
        if self.answers.rcpt_accepted:  # MAIL refused, yet a recipient taken
            self.broken = True  # such a server might deliver the empty letter: no dot for it
            return
        try:
            self._wire.write(b".\r\n", timeout_seconds=self._timeouts.block_seconds)
            reply = self._wire.read_reply(".", timeout_seconds=self._timeouts.dot_seconds)
        except Broken:
            self.broken = True  # nothing was at stake
        else:
            self.broken = self.broken or reply.code == _CLOSING

    def _after_break(self, error: Broken) -> Judgement:
        if self._dotted:
            self._wire.close()
            self._report_trouble(error)
            return Judgement(outcome=Outcome.UNCERTAIN, trouble=str(error))
        words = None if isinstance(error, Surprise) else self._wire.last_words()
        self._wire.close()
        self._report_trouble(error)
        if words is not None and words.code >= 400:  # noqa: PLR2004 - it told why it hung up; the dot was not sent
            return Judgement(reply=replace(words, command="." if self.answers.data is not None else ""))
        return Judgement(outcome=Outcome.UNREACHED, trouble=str(error))

    def _count(self, reply: Reply) -> None:
        self.refusals += reply.code >= 400  # noqa: PLR2004 - 4yz and 5yz

    def _judged(self, judgement: Judgement) -> Delivery:
        mail = self.answers.mail
        return judged(
            self._outgoing,
            self.answers,
            judgement,
            permitted=self._dotted,
            stale=self.broken and (mail is None or mail.code == _CLOSING),
            duration_seconds=time.perf_counter() - self._began,
        )

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
        answers = self.answers
        due = next(
            (name for name, reply in (("mail_from", answers.mail), ("data", answers.data)) if reply is None), "message"
        )
        if due == "data" and len(answers.rcpt) < len(self._outgoing.recipients):
            due = "rcpt_to"
        self._on_step(Step(due, False, str(error), time.perf_counter() - self._step_began))
