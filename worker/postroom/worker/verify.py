"""The proof of an account: a worker connects, signs in and sends a test mail to the account's own address (design §6).

A worker proves, since that is where mail will leave from. The front lays the sealed candidate into Redis and nudges;
the steps come back over a stream of that proof as they run. Both are gone after minutes, and the test mail is no row
of the ledger.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import redis
import structlog

from postroom.config.accounts import Account
from postroom.config.states import Auth, Health, Outcome, Security
from postroom.config.vault import Ring
from postroom.producer.errors import CannotOpen
from postroom.producer.identifiers import uuid7
from postroom.worker.letter.compose import compose, needs_smtputf8
from postroom.worker.letter.content import Letter, Mailbox
from postroom.worker.process import Process
from postroom.worker.smtp import hints
from postroom.worker.smtp.errors import OpenFailed
from postroom.worker.smtp.server import Server
from postroom.worker.smtp.session import Delivery, Envelope, Session, Step

CANDIDATE_SECONDS: Final = 120
STEPS_SECONDS: Final = 300
_LONGEST_STEP_SECONDS: Final = 30.0
_LONGEST_DOT_SECONDS: Final = 60.0

_STEP_OF_COMMAND: Final = {"MAIL": "mail_from", "RCPT": "rcpt_to", "DATA": "data", ".": "message"}

log = structlog.get_logger(__name__)


def candidate_key(proof_id: UUID) -> str:
    """Redis key of the sealed candidate."""
    return f"postroom:verify:{proof_id}"


def steps_key(proof_id: UUID) -> str:
    """Redis key of the stream of steps."""
    return f"postroom:verify:{proof_id}:steps"


def candidate_identity(proof_id: UUID) -> bytes:
    """Associated data of a sealed candidate."""
    return b"postroom:verify:" + proof_id.bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """One entry of the stream.

    Attributes:
        step: `worker` (a worker took the proof), one of the session's steps, or `done`.
        ok: whether it went well; for `done` whether the account is proved.
        detail: for people: what was found, or the server's reply.
        hint: what to do about a failure; may be empty.
    """

    step: str
    ok: bool
    detail: str = ""
    hint: str = ""
    duration_seconds: float = 0.0

    def to_json(self) -> str:
        """As it lies in the stream."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "Progress":
        """Read an entry of the stream."""
        return cls(**json.loads(text))


def candidate_to_json(account: Account) -> bytes:
    """A candidate, to be sealed: what has to be proved, its password sealed as it will be stored."""
    fields: dict[str, Any] = {
        "id": account.id.hex,
        "address": account.address,
        "name": account.name,
        "owner": account.owner,
        "host": account.host,
        "port": account.port,
        "security": account.security,
        "auth": account.auth,
        "login": account.login,
        "allow_cleartext": account.allow_cleartext,
        "pipelining": account.pipelining,
        "password": None if account.password is None else base64.b64encode(account.password).decode(),
    }
    return json.dumps(fields).encode()


def candidate_from_json(text: bytes) -> Account:
    """Read a candidate."""
    fields = json.loads(text)
    fields["id"] = UUID(fields["id"])
    fields["security"] = Security(fields["security"])
    fields["auth"] = Auth(fields["auth"])
    fields["password"] = None if fields["password"] is None else base64.b64decode(fields["password"])
    return Account(**fields, health=Health.OK)


def server_of(account: Account, ring: Ring) -> Server:
    """Where and how an account sends, its password opened.

    Raises:
        CannotOpen: the password was sealed for another account or destination, or with a key not in the ring.
    """
    password = ""
    if account.password is not None:
        password = ring.open(account.password, account.password_identity).decode()
    return Server(
        account.host,
        account.port,
        account.security,
        account.auth,
        account.login,
        password,
        account.allow_cleartext,
        account.pipelining,
    )


def verify(process: Process, proof_id: UUID) -> None:
    """Prove a candidate, and tell each step as it ends."""
    sealed = process.redis.getdel(candidate_key(proof_id))
    if not isinstance(sealed, bytes):
        log.info("a proof is no longer asked for", proof=str(proof_id))
        return
    tell = _Stream(process.redis, proof_id)
    tell(Progress("worker", True, "a worker took the proof"))
    try:
        account = candidate_from_json(process.ring.open(sealed, candidate_identity(proof_id)))
        server = server_of(account, process.ring)
    except CannotOpen as error:
        hint = "Give the password again (--password-stdin), sealed with the public key of the workers' private ring."
        tell(Progress("worker", False, str(error), hint))
        tell(Progress("done", False, f"the sealed password cannot be opened. {hint}", hint))
        return
    proved = _prove(process, account, server, tell)
    log.info("proved an account" if proved else "an account was not proved", proof=str(proof_id))


class _Stream:
    """Tells steps to whoever asked for the proof."""

    def __init__(self, client: redis.Redis, proof_id: UUID) -> None:
        self._redis = client
        self._key = steps_key(proof_id)

    def __call__(self, progress: Progress) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.xadd(self._key, {"progress": progress.to_json()})
        pipeline.expire(self._key, STEPS_SECONDS)
        pipeline.execute()


def _prove(process: Process, account: Account, server: Server, tell: Callable[[Progress], None]) -> bool:
    timeouts = process.client.timeouts.at_most(_LONGEST_STEP_SECONDS, dot_seconds=_LONGEST_DOT_SECONDS)

    failed = False

    def on_step(step: Step) -> None:
        nonlocal failed
        if not failed:  # what the server says to the commands pipelined behind a refused one follows from that
            tell(Progress(step.name, step.ok, step.detail, duration_seconds=step.duration_seconds))
        failed = failed or not step.ok

    try:
        session = Session.open(server, replace(process.client, timeouts=timeouts), on_step=on_step)
    except OpenFailed as failure:
        tell(Progress("done", False, str(failure), failure.hint))
        return False
    try:
        letter = _test_letter(account)
        content = compose(letter, eight_bit=session.extensions.eight_bit_mime)
        envelope = Envelope(account.address, (account.address,), needs_smtputf8(letter))
        delivery = session.deliver(envelope, content, lambda: True)
    finally:
        session.close()
    tell(_verdict(delivery, account.auth))
    return delivery.outcome is Outcome.ACCEPTED


def _verdict(delivery: Delivery, auth: Auth) -> Progress:
    if delivery.outcome is Outcome.ACCEPTED:
        return Progress("done", True, "the account can send", duration_seconds=delivery.duration_seconds)
    hint = delivery.verdict.hint if delivery.verdict else ""
    reply = delivery.reply
    if reply and delivery.verdict:
        hint = hints.of_refusal(reply, delivery.verdict, auth)
    if reply is None:
        return Progress("done", False, f"message: {delivery.trouble or 'refused'}. {hint}".strip(), hint)
    step = _STEP_OF_COMMAND.get(reply.command, "message")
    return Progress("done", False, f"{step}: refused. The server said: {reply}. {hint}".strip(), hint)


def _test_letter(account: Account) -> Letter:
    domain = account.address_key.rpartition("@")[2]
    return Letter(
        message_id=f"<{uuid7().hex}@{domain}>",
        date=datetime.now(UTC),
        from_=Mailbox(account.address, account.name),
        to=(Mailbox(account.address),),
        subject="Postroom: this mailbox can send / этот ящик может отправлять",
        text=(
            "This is the test mail by which Postroom proved that this mailbox can send. Nothing needs to be done.\n\n"
            "Это пробное письмо, которым Postroom проверил, что этот ящик может отправлять. Делать ничего не нужно.\n"
        ),
        headers=(("Auto-Submitted", "auto-generated"),),
    )
