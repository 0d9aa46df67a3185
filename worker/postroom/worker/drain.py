"""Drain: send a lane over one open session until it is empty (design §4).

A turn of the loop is one transaction: the outcome of mail N and the mark of mail N+1. The session writes the next
letter while that transaction commits, and waits for it only before the final dot.
"""

import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID, uuid4

import structlog
from sqlalchemy.exc import SQLAlchemyError

from postroom.config.states import Health, HeldReason, MailState, Outcome, Scope
from postroom.producer.errors import CannotOpen
from postroom.producer.identifiers import uuid7
from postroom.worker import claim, health, lanes, ledger
from postroom.worker.claim import ClaimedMail, Enter, Lane, Leave, More
from postroom.worker.health import Trouble
from postroom.worker.ledger import Mark, RecipientRecord, Record, Turn, TurnDone
from postroom.worker.letter.compose import compose, needs_smtputf8
from postroom.worker.letter.content import Letter
from postroom.worker.patience import Run
from postroom.worker.process import Process, letter_identity
from postroom.worker.retry import Facts, Next, decide, recipient_state, slows_account
from postroom.worker.smtp.errors import OpenFailed
from postroom.worker.smtp.replies import Reply, Verdict
from postroom.worker.smtp.session import Delivery, Envelope, Session
from postroom.worker.verify import server_of

_YIELD_AFTER_SECONDS = 1.0
_CLAIM_AHEAD_SECONDS = 0.5
_FIRST_AHEAD_SECONDS = 0.1
_MOST_CLAIMED = 100
_MARK_WAIT_SECONDS = 20.0
_MARK_HOLDS_SECONDS = 0.25
"""Less than any lease lasts: for so long a mark that was made with the claim is as good as new."""

log = structlog.get_logger(__name__)


def drain(process: Process, account_id: UUID) -> None:
    """Send what waits in one account's lane, until it is empty, cannot go on, or others need the thread. Returns before
    that where its server is slow to answer: the lane goes on alone (see `patience`).
    """
    process.patience.run(account_id, partial(_drain, process, account_id))


def _drain(process: Process, account_id: UUID, run: Run) -> None:
    with process.database.read() as connection:
        if process.stopping.is_set() or not claim.has_work(connection, account_id):
            return
    run.claim = token = uuid4()
    asked_at = time.monotonic()
    asked = Enter(account_id, token, 1, process.settings.lease_seconds, process.pool.has_idle(account_id))
    lane = process.writer.do(claim.enter, asked)
    if lane is None:
        return
    drained = _Drain(process, lane, run, process.heartbeat.hold(token), asked_at)
    try:
        if lane.wants_another and process.patience.has_opened(account_id):
            process.nudges.drain(account_id)
        drained.run()
    finally:
        drained.tell()
        process.heartbeat.drop(token)
        process.writer.do(claim.leave, Leave(account_id, token, drained.unsent))
    if drained.trouble is not None:
        _note(process, drained.trouble)
    with process.database.read() as connection:
        left = claim.has_work(connection, account_id)
    if left and not process.stopping.is_set():
        process.nudges.drain(account_id)


def _note(process: Process, trouble: Trouble) -> None:
    """Write down an account's trouble and choose anew for its waiting mail; or that it is well again."""
    process.writer.do(health.note, trouble)
    if trouble.blocked:
        log.error("an account is paused: its provider has blocked it", account=str(trouble.account.id))
    elif trouble.health is Health.OK:
        return
    else:
        log.warning("an account is in trouble", account=str(trouble.account.id), health=trouble.health.value)
        if trouble.health is trouble.account.health:
            return
    cleared = process.writer.do(lanes.clear, lanes.Clearing(trouble.account.id))
    for account_id in cleared.accounts:
        process.nudges.drain(account_id)
    if cleared.go_on is not None:
        process.nudges.release()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A mail that is composed for the session at hand."""

    mail: ClaimedMail
    envelope: Envelope
    content: bytes
    attempt_id: UUID


class _Drain:
    """One drain of one lane. `trouble` is what it found out about its account; `unsent` is a mail whose mark was
    asked for and whose final dot surely did not go.
    """

    def __init__(self, process: Process, lane: Lane, run: Run, lost: threading.Event, asked_at: float) -> None:
        assert run.claim is not None  # noqa: S101 - it is the lane's
        self.trouble: Trouble | None = None
        self.unsent: UUID | None = lane.mails[0].id if lane.attempt_id else None
        self._process = process
        self._account = lane.account
        self._wants_another = lane.wants_another
        self._run = run
        self._token = run.claim
        self._lost = lost
        self._hand = deque(lane.mails)
        self._marked = Mark(self.unsent, run.claim, lane.attempt_id) if self.unsent and lane.attempt_id else None
        self._asked_at = asked_at
        self._more: Future[tuple[ClaimedMail, ...]] | None = None
        self._began = time.monotonic()
        self._database_is_away = False
        self._outcomes: Counter[Outcome] = Counter()
        self._seconds_a_mail: float | None = None

    def run(self) -> None:
        probing = self._account.health is not Health.OK
        while (self._hand or probing) and not self._must_end():
            try:
                session, reused = self._open()
            except OpenFailed as failure:
                self._process.patience.did_not_open(self._account.id)
                self.trouble = health.of_open_failure(self._account, failure)
                return
            except CannotOpen as failure:
                self.trouble = health.suspended(self._account, f"its password cannot be opened: {failure}")
                return
            if probing:
                self.trouble = Trouble(self._account, Health.OK)
                probing = False
            try:
                if self._run.opened() and self._wants_another:
                    self._process.nudges.drain(self._account.id)
                self._send_over(session, reused=reused)
            finally:
                self._process.pool.give_back(self._pool_key, session)
            if self.trouble is not None:
                return

    def tell(self) -> None:
        """Log what became of the mails of this drain."""
        if self._outcomes:
            counted = {outcome.value: number for outcome, number in self._outcomes.items()}
            seconds = round(time.monotonic() - self._began, 3)
            log.info("drained a lane", account=str(self._account.id), **counted, seconds=seconds)

    @property
    def _pool_key(self) -> tuple[UUID, int]:
        return self._account.id, self._account.version

    def _open(self) -> tuple[Session, bool]:
        """Take a session from the pool or open one; and whether it had been used before."""
        opened = []

        def open_new() -> Session:
            opened.append(True)
            self._unmark()
            server = server_of(self._account, self._process.ring)
            with self._run.opening():
                return Session.open(server, self._process.client)

        session = self._process.pool.take(self._pool_key, open_new)
        return session, not opened

    def _send_over(self, session: Session, *, reused: bool) -> None:
        current = self._next(session)
        if current is None:
            return
        turn = self._first_turn(current)
        while current is not None:
            upcoming = None if self._must_end() else self._next(session)
            self._claim_ahead()
            following = None if upcoming is None else (upcoming.envelope, upcoming.content)
            with self._run.sending(session.cut_off):
                delivery = session.deliver(
                    current.envelope, current.content, partial(self._permit, turn), following=following
                )
            self.unsent = None
            self._seconds_a_mail = _smoothed(self._seconds_a_mail, delivery.duration_seconds)
            record = self._record(current, delivery, reused=reused)
            reused = True
            if upcoming is not None and not self._goes_on(session):
                self._hand.appendleft(upcoming.mail)
                upcoming = None
            turn = self._turn(record, upcoming)
            self._take_more()
            if upcoming is None and self._goes_on(session):
                upcoming = self._next(session)
                if upcoming is not None:
                    turn = self._turn(None, upcoming)
            current = upcoming

    def _unmark(self) -> None:
        """The session that the first mail was marked for is no more, and opening one may take long."""
        if self._marked is not None:
            self._process.writer.submit(ledger.unmark, self._marked)
            self._marked = None

    def _first_turn(self, first: _Ready) -> Future[TurnDone]:
        """The mark of the first mail over a session: it has it if it was claimed for that a moment ago. Where this
        process stood still meanwhile, the claim may be gone: the mail is marked again if it still stands.
        """
        marked, self._marked = self._marked, None
        late = self._lost.is_set() or time.monotonic() - self._asked_at > _MARK_HOLDS_SECONDS
        if late or marked is None or marked.attempt_id != first.attempt_id:
            return self._turn(None, first)
        done: Future[TurnDone] = Future()
        done.set_result(TurnDone(settled=False, marked=True))
        return done

    def _turn(self, record: Record | None, upcoming: _Ready | None) -> Future[TurnDone]:
        mark = None if upcoming is None else Mark(upcoming.mail.id, self._token, upcoming.attempt_id)
        self.unsent = None if upcoming is None else upcoming.mail.id
        return self._process.writer.submit(ledger.turn, Turn(record, mark))

    def _permit(self, turn: Future[TurnDone]) -> bool:
        """Whether the mark is durable and its claim stood, so that the final dot may go."""
        try:
            with self._run.busy():
                stands = turn.result(_MARK_WAIT_SECONDS).marked
        except NotYet:
            self._database_is_away = True
            return False
        if stands:
            self.unsent = None
        return stands

    def _goes_on(self, session: Session) -> bool:
        """Whether to go on with the next mail: one whose envelope the server has by now costs a session if not."""
        if not session.reusable or self.trouble is not None or self._must_stop():
            return False
        return session.promised is not None or not self._must_end()

    def _must_stop(self) -> bool:
        """Whether no further mail may go: a warm stop, a lost lease, or no way to write down what becomes of it."""
        return self._process.stopping.is_set() or self._lost.is_set() or self._database_is_away

    def _must_end(self) -> bool:
        """Whether to ask for no further mail: so it is too where a server is so slow that the lane's task has left it,
        and where other lanes wait for a thread.
        """
        if self._must_stop() or self._run.alone:
            return True
        return time.monotonic() - self._began > _YIELD_AFTER_SECONDS and self._process.patience.lanes_wait()

    def _claim_ahead(self) -> None:
        """Ask for more mails while the last one in hand is on its way: about half a second's worth, and less at first,
        when the account's other lanes that slow this one down may not have begun.
        """
        if self._hand or self._more is not None or self._must_end():
            return
        ahead_seconds = min(_CLAIM_AHEAD_SECONDS, max(_FIRST_AHEAD_SECONDS, (time.monotonic() - self._began) / 4))
        seconds_a_mail = self._seconds_a_mail or _CLAIM_AHEAD_SECONDS
        most = max(1, min(_MOST_CLAIMED, int(ahead_seconds / seconds_a_mail)))
        self._more = self._process.writer.submit(claim.more, More(self._account, self._token, most))

    def _take_more(self) -> None:
        if self._more is not None and (not self._hand or self._more.done()):
            self._hand.extend(self._more.result())
            self._more = None

    def _next(self, session: Session) -> _Ready | None:
        """Compose the next mail in hand. One that cannot be composed is held for a person; the lane goes on."""
        while self._hand:
            mail = self._hand.popleft()
            try:
                return self._compose(mail, session)
            except SQLAlchemyError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the mails behind it must go on
                self._marked = None
                log.warning("a letter cannot be composed", mail=str(mail.id), error=type(error).__name__)
                self._process.writer.do(ledger.turn, Turn(self._poison(mail, error)))
        return None

    def _compose(self, mail: ClaimedMail, session: Session) -> _Ready:
        sealed = mail.sealed_letter
        if sealed is None:
            with self._process.database.read() as connection:
                sealed = claim.sealed_letter(connection, mail.id)
        if sealed is None:
            raise CannotOpen("its letter was erased")
        letter = Letter.from_content(self._process.ring.open(sealed, letter_identity(mail.id)))
        if not letter.from_.name:
            letter = replace(letter, from_=replace(letter.from_, name=self._account.name))
        content = compose(letter, eight_bit=session.extensions.eight_bit_mime)
        envelope = Envelope(
            self._account.address, tuple(recipient.address for recipient in mail.pending), needs_smtputf8(letter)
        )
        attempt_id = self._marked.attempt_id if self._marked and self._marked.mail_id == mail.id else uuid7()
        return _Ready(mail, envelope, content, attempt_id)

    def _record(self, ready: _Ready, delivery: Delivery, *, reused: bool) -> Record:
        # A session that served before was over: a new one is tried at once, and a 421 of the old says nothing more.
        again = reused and delivery.stale
        step = (
            Next(MailState.QUEUED, due_in_seconds=0, counts=False)
            if again
            else decide(self._facts(ready.mail, delivery), delivery)
        )
        reply = delivery.reply
        if delivery.verdict is not None and reply is not None and not again:
            self.trouble = health.of_verdict(self._account, delivery.verdict, str(reply)) or self.trouble
        self._outcomes[delivery.outcome] += 1
        tell = log.debug if delivery.outcome is Outcome.ACCEPTED else log.info  # such lines took a sixth of a drain
        tell(
            "tried a mail",
            mail=str(ready.mail.id),
            account=str(self._account.id),
            outcome=delivery.outcome.value,
            code=reply.code if reply else None,
            seconds=round(delivery.duration_seconds, 3),
        )
        return Record(
            mail_id=ready.mail.id,
            claim=self._token,
            attempt_id=ready.attempt_id,
            account_id=self._account.id,
            duration_seconds=delivery.duration_seconds,
            outcome=delivery.outcome,
            scope=delivery.verdict.scope if delivery.verdict else None,
            rule=delivery.verdict.rule if delivery.verdict else None,
            reply=_words(reply, delivery.trouble, delivery.verdict),
            enhanced_status_code=reply.enhanced_status_code if reply else None,
            recipients=tuple(
                RecipientRecord(
                    recipient.position,
                    recipient_state(result),
                    _words(result.reply, delivery.trouble, result.verdict),
                    result.reply.enhanced_status_code if result.reply else None,
                )
                for recipient, result in zip(ready.mail.pending, delivery.recipients, strict=True)
            ),
            next=step,
        )

    def _facts(self, mail: ClaimedMail, delivery: Delivery) -> Facts:
        """What is known of a mail; and where its account has to slow down, whether that was so before."""
        if delivery.verdict is None or not slows_account(delivery.verdict):
            return mail.facts
        with suppress(SQLAlchemyError), self._process.database.read() as connection:
            return replace(mail.facts, slowed=health.times_slowed(connection, mail.id))
        return mail.facts

    def _poison(self, mail: ClaimedMail, error: Exception) -> Record:
        return Record(
            mail_id=mail.id,
            claim=self._token,
            attempt_id=uuid7(),
            account_id=self._account.id,
            duration_seconds=0,
            outcome=Outcome.FAILED,
            scope=Scope.MAIL,
            rule="cannot_be_composed",
            reply=f"cannot be composed: {error}",
            enhanced_status_code=None,
            recipients=(),
            next=Next(MailState.HELD, HeldReason.POISON, counts=False),
        )


def _smoothed(before: float | None, latest: float) -> float:
    return latest if before is None else 0.7 * before + 0.3 * latest


def _words(reply: Reply | None, trouble: str | None, verdict: Verdict | None) -> str | None:
    """What is kept of an answer: the server's words, how the connection broke, or why we refused it ourselves."""
    if reply is not None:
        return str(reply)
    return trouble or (verdict.hint if verdict else None)
