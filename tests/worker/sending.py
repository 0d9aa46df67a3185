"""Workers without a network: they go through the ledger as a drain does, and a test says what their server answers."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import update

from postroom.config.accounts import Account
from postroom.config.database import Database, now
from postroom.config.states import Effect, Outcome, Scope
from postroom.config.tables import slots
from postroom.producer.identifiers import uuid7
from postroom.worker import claim, ledger
from postroom.worker.claim import ClaimedMail, Enter, Leave, More
from postroom.worker.ledger import Mark, RecipientRecord, Record, Turn, TurnDone
from postroom.worker.retry import decide, recipient_state
from postroom.worker.smtp.delivery import Delivery, RecipientResult
from postroom.worker.smtp.replies import Reply, Verdict

LEASE_SECONDS = 60.0


class Rcpt(StrEnum):
    """What the server answers to one RCPT."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REFUSED = "refused"
    TOO_MANY = "too many"


class End(StrEnum):
    """How the transaction ends."""

    TAKEN = "taken"
    TAKEN_AND_LOST = "taken, and the reply lost"
    LOST = "not taken, and the reply lost"
    DEFERRED = "deferred at the dot"
    REFUSED = "refused at the dot"
    BROKEN = "broken before the dot"
    SENDER_REFUSED = "sender refused"
    ACCOUNT_SLOW = "account to slow down"


_TAKES = {End.TAKEN, End.TAKEN_AND_LOST}
_REPLIES = {Outcome.ACCEPTED: 250, Outcome.DEFERRED: 451, Outcome.FAILED: 550}
_BEFORE_THE_DOT = {
    End.SENDER_REFUSED: Verdict(Outcome.FAILED, Scope.SENDER, Effect.NONE, "sender"),
    End.ACCOUNT_SLOW: Verdict(Outcome.DEFERRED, Scope.ACCOUNT, Effect.SLOW, "slow"),
}
_AT_RCPT = {
    Rcpt.DEFERRED: Verdict(Outcome.DEFERRED, Scope.RECIPIENT, Effect.NONE, "class_4"),
    Rcpt.REFUSED: Verdict(Outcome.FAILED, Scope.RECIPIENT, Effect.NONE, "class_5"),
    Rcpt.TOO_MANY: Verdict(Outcome.DEFERRED, Scope.RECIPIENT, Effect.NONE, "too_many", wait_seconds=0),
}
_AT_DOT = {
    End.TAKEN: Verdict(Outcome.ACCEPTED, Scope.MAIL, Effect.NONE, "accepted"),
    End.DEFERRED: Verdict(Outcome.DEFERRED, Scope.MAIL, Effect.NONE, "class_4"),
    End.REFUSED: Verdict(Outcome.FAILED, Scope.MAIL, Effect.NONE, "class_5"),
}


@dataclass
class Server:
    """What was taken: how many copies of each mail went to each of its recipients, by position."""

    copies: Counter[tuple[UUID, int]] = field(default_factory=Counter)


@dataclass
class Worker:
    """One drain of one lane. `current` is composed and its mark was asked for; `record` is not written yet."""

    database: Database
    server: Server
    account: Account | None = None
    token: UUID = field(default_factory=uuid4)
    hand: deque[ClaimedMail] = field(default_factory=deque)
    current: ClaimedMail | None = None
    attempt_id: UUID | None = None
    marked: bool = False
    record: Record | None = None

    def enter(self, account_id: UUID, most: int = 10, *, answer_lost: bool = False) -> bool:
        """Ask for a slot and its first mails; whether there was one."""
        for _ in range(1 + answer_lost):
            with self.database.write() as connection:
                (lane,) = claim.enter(connection, [Enter(account_id, self.token, most, LEASE_SECONDS)])
        if lane is None:
            return False
        self.account, self.hand = lane.account, deque(lane.mails)
        return True

    def more(self, most: int) -> None:
        """Claim more."""
        assert self.account is not None
        with self.database.write() as connection:
            (mails,) = claim.more(connection, [More(self.account, self.token, most)])
        self.hand.extend(mails)

    def turn(self, *, mark: bool, answer_lost: bool = False) -> TurnDone:
        """Write the outcome of the last mail, and the mark of the next one if there is one."""
        record, self.record = self.record, None
        asked = None
        if mark and self.hand:
            self.current, self.attempt_id = self.hand.popleft(), uuid7()
            asked = Mark(self.current.id, self.token, self.attempt_id)
        done = write(self.database, record, asked)
        if answer_lost:
            assert write(self.database, record, asked).marked == done.marked
        self.marked = done.marked
        return done

    def send(self, at_rcpt: Sequence[Rcpt], end: End) -> Record:
        """One transaction; its dot goes only if the mark stands."""
        mail, self.current = self.current, None
        assert mail is not None
        delivery = _deliver(mail, at_rcpt, end if self.marked or end in _BEFORE_THE_DOT else End.BROKEN)
        if delivery.permitted and end in _TAKES:
            taken = [at for at, answer in zip(mail.pending, at_rcpt, strict=False) if answer is Rcpt.ACCEPTED]
            self.server.copies.update((mail.id, recipient.position) for recipient in taken)
        self.record = self._record(mail, delivery)
        return self.record

    def leave(self) -> None:
        """Give back what was not sent."""
        assert self.account is not None
        unsent = self.current.id if self.current else None
        with self.database.write() as connection:
            claim.leave(connection, [Leave(self.account.id, self.token, unsent)])

    def lose_lease(self) -> None:
        """Its heart has not beaten for longer than its lease."""
        with self.database.write() as connection:
            connection.execute(update(slots).where(slots.c.claim == self.token).values(lease_until=now(-1)))

    def renew(self) -> bool:
        """Whether its slot still stands."""
        with self.database.write() as connection:
            (standing,) = claim.renew(connection, [claim.Renew(frozenset({self.token}), LEASE_SECONDS)])
        return bool(standing)

    def _record(self, mail: ClaimedMail, delivery: Delivery) -> Record:
        assert self.account is not None
        assert self.attempt_id is not None
        return Record(
            mail_id=mail.id,
            claim=self.token,
            attempt_id=self.attempt_id,
            account_id=self.account.id,
            duration_seconds=delivery.duration_seconds,
            outcome=delivery.outcome,
            scope=delivery.verdict.scope if delivery.verdict else None,
            rule=delivery.verdict.rule if delivery.verdict else None,
            reply=str(delivery.reply) if delivery.reply else delivery.trouble,
            enhanced_status_code=None,
            recipients=tuple(
                RecipientRecord(recipient.position, recipient_state(result), None, None)
                for recipient, result in zip(mail.pending, delivery.recipients, strict=True)
            ),
            next=decide(mail.facts, delivery),
        )


def write(database: Database, record: Record | None, mark: Mark | None = None) -> TurnDone:
    """One turn of a lane."""
    with database.write() as connection:
        (done,) = ledger.turn(connection, [Turn(record, mark)])
    return done


def _deliver(mail: ClaimedMail, at_rcpt: Sequence[Rcpt], end: End) -> Delivery:
    refusal = _BEFORE_THE_DOT.get(end)
    if end is End.BROKEN or refusal is not None:
        outcome = refusal.outcome if refusal else Outcome.UNREACHED
        return _delivery([_result(recipient.address, outcome, refusal) for recipient in mail.pending], refusal)
    results = []
    for recipient, answer in zip(mail.pending, at_rcpt, strict=False):
        verdict = _AT_RCPT.get(answer) or _AT_DOT.get(end)
        results.append(_result(recipient.address, verdict.outcome if verdict else Outcome.UNCERTAIN, verdict))
    permitted = Rcpt.ACCEPTED in at_rcpt[: len(results)]
    return _delivery(results, _AT_DOT.get(end) if permitted else results[0].verdict, permitted=permitted)


def _result(address: str, outcome: Outcome, verdict: Verdict | None) -> RecipientResult:
    return RecipientResult(address, outcome, _reply(verdict), verdict)


def _reply(verdict: Verdict | None) -> Reply | None:
    return None if verdict is None else Reply(_REPLIES[verdict.outcome], None, verdict.rule, "")


def _delivery(results: list[RecipientResult], verdict: Verdict | None, *, permitted: bool = False) -> Delivery:
    found = {result.outcome for result in results}
    order = [Outcome.ACCEPTED, Outcome.UNCERTAIN, Outcome.UNREACHED, Outcome.DEFERRED, Outcome.FAILED]
    outcome = next(each for each in order if each in found)
    trouble = None if verdict else "the connection was lost"
    return Delivery(outcome, tuple(results), _reply(verdict), verdict, trouble, permitted, False, 0.01)
