"""What one worker process holds: settings, keys, database, Redis, and for draining the writer and the open sessions."""

import ssl
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from uuid import UUID

import redis
import structlog

from postroom.config.database import Database
from postroom.config.settings import Settings
from postroom.config.vault import FrontKey, Ring
from postroom.producer.broker import redis_client
from postroom.producer.errors import SettingsInvalid
from postroom.worker import claim
from postroom.worker.claim import Leave
from postroom.worker.following import Following
from postroom.worker.heartbeat import Heartbeat
from postroom.worker.inbox import Inbox
from postroom.worker.nudges import Nudges
from postroom.worker.pacing import Pacing
from postroom.worker.patience import Patience, Run
from postroom.worker.smtp.pool import Pool
from postroom.worker.smtp.server import Client, Timeouts, default_hello_name, tls_context
from postroom.worker.writer import Writer

log = structlog.get_logger(__name__)


def letter_identity(mail_id: UUID) -> bytes:
    """Associated data of a letter in the ledger: a box moved to another mail does not open."""
    return b"postroom:letter:" + mail_id.bytes


class Process:
    """Made once a process, after it was forked or started; each part is made when it is first needed."""

    def __init__(self, settings: Settings, nudges: Nudges) -> None:
        self.settings = settings
        self.nudges = nudges
        self.stopping = threading.Event()
        self.releasing = threading.Lock()
        self.pacing = Pacing()
        self._parts: list[Callable[[], None]] = []

    @cached_property
    def database(self) -> Database:
        """The ledger's database."""
        database = Database(self.settings.database)
        self._parts.append(database.close)
        return database

    @cached_property
    def ring(self) -> Ring:
        """The private ring; only worker processes come here."""
        return Ring.load(self.settings.ring_file)

    @cached_property
    def front_key(self) -> FrontKey:
        """The key of the keyed hashes of bodies."""
        return FrontKey.load(self.settings.front_file)

    @cached_property
    def inbox(self) -> Inbox:
        """The inbox in Redis."""
        return Inbox(self.redis)

    @cached_property
    def redis(self) -> redis.Redis:
        """The Redis of inbox and nudges."""
        client = redis_client(self.settings.broker)
        self._parts.append(client.close)
        return client

    @cached_property
    def writer(self) -> Writer:
        """The thread that groups the writing of all lanes."""
        writer = Writer(self.database)
        self._parts.append(writer.close)
        return writer

    @cached_property
    def heartbeat(self) -> Heartbeat:
        """The thread that renews leases."""
        heartbeat = Heartbeat(self.writer, self.settings.lease_seconds)
        self._parts.append(heartbeat.close)
        return heartbeat

    @cached_property
    def _client(self) -> Following[Client]:
        return Following(self.settings.smtp_ca_file, lambda: smtp_client(self.settings))

    @property
    def client(self) -> Client:
        """How this process appears to SMTP servers from now on. Its TLS context is costly, so it is made anew only when
        the file of CA certificates changes.
        """
        return self._client.now()

    @cached_property
    def pool(self) -> Pool:
        """Open sessions, by account and version."""
        pool = Pool(self.client, self.settings.session_idle_seconds, self.settings.session_age_seconds)
        self._parts.append(pool.close_all)
        return pool

    @cached_property
    def patience(self) -> Patience:
        """What runs the lanes."""
        return Patience(self.settings.drain_threads, self.nudges.drain, self.stopping)

    def prepare(self, kind: str) -> None:
        """Make what this kind of worker needs before its threads would all make it, and fail early where one cannot
        be made.

        Raises:
            KeyUnusable: a key file is missing, malformed, or open to other users.
        """
        _ = self.ring, self.database, self.redis
        if kind == "accept":
            _ = self.front_key, self.inbox
        if kind == "drain":
            _ = self.patience, self.writer, self.heartbeat, self.pool, self.client
        if kind == "care":
            _ = self.inbox, self.client

    def close(self) -> None:
        """End the lanes, and close the parts, the last made first. Takes 12 s at most, whatever does not answer."""
        self.stopping.set()
        if "patience" in vars(self):
            for run in self.patience.close():
                self._leave(run)
        while self._parts:
            self._parts.pop()()

    def _leave(self, run: Run) -> None:
        """Give back what a lane has claimed that did not end in time. What it has marked is found by its lease."""
        if run.claim is not None:
            self.writer.submit(claim.leave, Leave(run.account_id, run.claim))


def smtp_client(settings: Settings) -> Client:
    """The SMTP client that the settings describe.

    Raises:
        SettingsInvalid: the file of CA certificates cannot be used.
    """
    return Client(
        hello_name=settings.smtp_hello_name or default_hello_name(),
        timeouts=Timeouts(
            connect_seconds=settings.smtp_connect_timeout_seconds,
            tls_seconds=settings.smtp_tls_timeout_seconds,
            greeting_seconds=settings.smtp_greeting_timeout_seconds,
            command_seconds=settings.smtp_command_timeout_seconds,
            mail_seconds=settings.smtp_mail_timeout_seconds,
            rcpt_seconds=settings.smtp_rcpt_timeout_seconds,
            data_seconds=settings.smtp_data_timeout_seconds,
            block_seconds=settings.smtp_block_timeout_seconds,
            dot_seconds=settings.smtp_dot_timeout_seconds,
            quit_seconds=settings.smtp_quit_timeout_seconds,
        ),
        tls=_trusting(settings.smtp_ca_file),
    )


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return tls_context(None if ca_file is None else ca_file.resolve())
    except OSError as error:
        why = error.strerror or "holds no certificate"
        raise SettingsInvalid(
            f"POSTROOM_SMTP_CA_FILE: {ca_file}: {why}; it must be a file of PEM certificates"
        ) from None
