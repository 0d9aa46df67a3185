"""What the replies of one transaction come to: its delivery."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from postroom.config.states import Outcome
from postroom.worker.smtp.delivery import SMTPUTF8, Delivery, RecipientResult
from postroom.worker.smtp.outgoing import Outgoing
from postroom.worker.smtp.replies import Reply, Verdict, classify

_WEIGHT: Final = (Outcome.ACCEPTED, Outcome.UNCERTAIN, Outcome.UNREACHED, Outcome.DEFERRED, Outcome.FAILED)
"""Which outcome of a recipient becomes that of the attempt, first match."""


@dataclass(slots=True)
class Answers:
    """The replies to an envelope, as far as they came; `rcpt` in the order of the recipients named."""

    mail: Reply | None = None
    rcpt: list[Reply] = field(default_factory=list)
    data: Reply | None = None

    @property
    def mail_accepted(self) -> bool:
        """Whether MAIL was."""
        return self.mail is not None and self.mail.code < 400  # noqa: PLR2004 - 2yz

    @property
    def rcpt_accepted(self) -> bool:
        """Whether any RCPT was, be it after a MAIL that was refused."""
        return any(reply.code < 400 for reply in self.rcpt)  # noqa: PLR2004 - 2yz


class Judgement(NamedTuple):
    """What decides for everybody whom RCPT did not refuse: a reply, a refusal of our own, or how it broke off."""

    reply: Reply | None = None
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    trouble: str | None = None


def judged(
    outgoing: Outgoing,
    answers: Answers,
    judgement: Judgement,
    *,
    permitted: bool = False,
    stale: bool = False,
    duration_seconds: float = 0.0,
) -> Delivery:
    """The delivery of a mail; see there for what the arguments mean."""
    reply = judgement.reply
    verdict = judgement.verdict if reply is None else classify(reply)
    outcome = judgement.outcome if verdict is None else verdict.outcome
    results = tuple(_recipient_results(outgoing, answers, reply, verdict, outcome))
    decisive = results[0] if len(results) == 1 else min(results, key=lambda result: _WEIGHT.index(result.outcome))
    return Delivery(
        outcome=decisive.outcome,
        recipients=results,
        reply=decisive.reply,
        verdict=decisive.verdict,
        trouble=judgement.trouble,
        permitted=permitted,
        stale=stale,
        duration_seconds=duration_seconds,
    )


def _recipient_results(
    outgoing: Outgoing, answers: Answers, reply: Reply | None, verdict: Verdict | None, outcome: Outcome | None
) -> Iterator[RecipientResult]:
    own_answers = iter(answers.rcpt if answers.mail_accepted else ())
    for address in outgoing.envelope.recipients:
        can_be_named = outgoing.can_be_named(address)
        own = next(own_answers, None) if can_be_named else None
        if not can_be_named and outcome is not Outcome.FAILED:
            yield RecipientResult(address, SMTPUTF8.outcome, None, SMTPUTF8)
        elif own is not None and own.code >= 400:  # noqa: PLR2004 - refused by RCPT
            own_verdict = classify(own)
            if own_verdict.wait_seconds == 0 and not answers.rcpt_accepted:
                own_verdict = replace(own_verdict, wait_seconds=None)  # not even one was taken: no use in hurrying
            yield RecipientResult(address, own_verdict.outcome, own, own_verdict)
        else:
            assert outcome is not None  # noqa: S101 - without a decision for all, RCPT refused each
            yield RecipientResult(address, outcome, reply, verdict)
