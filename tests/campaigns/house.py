"""A campaign's house: real worker processes over a real Redis and database, sending to a server that counts.

Time is moved, not waited for: what is due later is due now, what lies in the inbox is a stray at once, and the
scheduler's chores are asked for several times a second.
"""

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import kombu.exceptions
import redis
from celery import Celery
from sqlalchemy import func, select, update

from campaigns.books import Books, arrivals, balance
from campaigns.child import Child
from long_form import LONG
from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.database import Database, now
from postroom.config.settings import Settings
from postroom.config.states import Auth, MailState, Outcome, Security
from postroom.config.tables import accounts, attempts, mails, slots
from postroom.config.vault import keygen, public_key
from postroom.producer import BrokerUnavailable, Mail, Producer, names
from postroom.producer.broker import celery_url
from postroom.producer.identifiers import uuid7
from postroom.worker.celery_app import chore_task
from servers.command import wait_until
from servers.redis_server import RedisServer
from servers.scripted_smtp import ScriptedSMTP

LEASE_SECONDS = 1.0
_A_LITTLE_SECONDS = 1.0 if LONG else 0.2  # each time all that lies in the inbox is a stray again
PATIENCE_SECONDS = 300.0 if LONG else 40.0
SETTLES_IN_SECONDS = 600.0 if LONG else 60.0
UNENDED = (MailState.QUEUED, MailState.SENDING, MailState.DEFERRED, MailState.UNCERTAIN)


class House:
    """Everything of one campaign. Processes are started by name and ended with the house."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        redis_server: RedisServer,
        smtp: ScriptedSMTP | None = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.redis = redis_server
        self.smtp = smtp or ScriptedSMTP(size_bytes=None)
        self.smtp.journal = self.journal = folder / "arrived.jsonl"
        self.settings = Settings(
            _env_file=None,
            data_dir=folder,
            database_url=database_url,
            broker_url=redis_server.url,
            lease_seconds=LEASE_SECONDS,
            drain_threads=16,
            **settings,
        )
        keygen(self.settings)
        self.database = Database(self.settings.database)
        self._celery = Celery("campaign", broker=celery_url(redis_server.url), set_as_current=False)
        self.handed_over: list[UUID] = []
        self.account_id = UUID(int=0)
        self.address = ""
        self.chores: tuple[str, ...] = ("strays", "leases", "due", "release", "probe")
        self._arrived_before = 0
        self.supervised = False
        """Whether a process that ends by itself is started again, as by `up`, systemd and compose."""
        self.started_again = 0
        self._again: dict[str, Callable[[], object]] = {}
        self._children: dict[str, Child] = {}

    def __enter__(self) -> Self:
        self.smtp.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children.values():
            child.send_signal(signal.SIGKILL)
            child.wait()
        self.smtp.stop()
        self.database.close()
        self._celery.close()

    def start(self, kind: str, *faults: str, name: str | None = None, settings: Settings | None = None) -> str:
        """Start a process, by the house's settings if none are given; returns its name, which is its kind if not given.

        POSTROOM_TEST_FAULT is planted in every process: so is it proved that a campaign notices.
        """
        name = name or kind
        if name in self._children:
            self.kill(name)
        self._again[name] = partial(self.start, kind, *faults, name=name, settings=settings)
        faults = (*filter(None, [os.environ.get("POSTROOM_TEST_FAULT")]), *faults)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("POSTROOM_")}
        settings = settings or self.settings
        chosen = settings.model_fields_set
        environment |= {f"POSTROOM_{name.upper()}": str(getattr(settings, name)) for name in chosen}
        self._children[name] = Child(kind, name, faults=faults, environment=environment, folder=self.folder)
        return name

    def signal(self, name: str, number: signal.Signals) -> None:
        self._children[name].send_signal(number)

    def wait_stopped(self, name: str) -> None:
        """Wait for a process that a fault stops."""
        wait_until(lambda: _state(self._children[name].pid) == "T")

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self._children[name].send_signal(signal.SIGKILL)
        self._children[name].wait()

    def stop(self, name: str, *numbers: int, within_seconds: float = 15) -> float:
        """Stop a process as a service manager does (SIGTERM), or by signals given; it must end well and in time.

        Returns:
            How many seconds it took.
        """
        child = self._children[name]
        wait_until(lambda: _catches(child.pid, signal.SIGTERM))  # before that, nothing is in hand
        began_at = time.monotonic()
        for place, number in enumerate(numbers or (signal.SIGTERM,)):
            time.sleep(place)  # two in a row may be one Ctrl-C, which the terminal and `up` both tell
            child.send_signal(number)
        status = child.wait(within_seconds)
        assert numbers or status == 0, f"it ended with {status}"
        return time.monotonic() - began_at

    def ended(self, name: str) -> bool:
        return self._children[name].status is not None

    def wait_ended(self, name: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a process whose fault ends it."""
        self._children[name].wait(seconds)

    @property
    def log(self) -> str:
        """What the processes have said."""
        return (self.folder / "workers.log").read_text()

    def open_books(self, *, password: str | None = None, **changes: Any) -> Account:
        """Begin to count anew, with an account of the campaign's own."""
        account_id = uuid7()
        self.handed_over = []
        self.account_id = account_id
        self.address = f"shop-{account_id.hex}@shop.example"
        self._arrived_before = len(self.smtp.accepted)
        account = Account(
            id=account_id,
            address=self.address,
            host=self.smtp.host,
            port=self.smtp.port,
            **{"security": Security.NONE, "auth": Auth.NONE, "connections": 4, **changes},
        )
        if password is not None:
            sealed = public_key(self.settings).seal(password.encode(), account.password_identity)
            account = replace(account, password=sealed)
        with self.database.write() as connection:
            return kept.add(connection, account)

    def enqueue(self, count: int, **given: object) -> list[UUID]:
        """Hand mails over as a site would that does not give up: the same mail again until Redis takes it."""
        mails_to_send = self._mails(count, given)
        with Producer(self.settings.broker, public_key=public_key(self.settings)) as producer:
            for mail in mails_to_send:
                self._hand_over(producer, mail)
        return [mail.id for mail in mails_to_send]

    def _mails(self, count: int, given: dict[str, object]) -> list[Mail]:
        fields = {"from_": self.address, "to": "anna@client.example", "subject": "Order", "text": "Thank you"}
        return [Mail(**{**fields, **given}) for _ in range(count)]  # type: ignore[arg-type]

    @contextmanager
    def load(self, count: int, *, every_seconds: float = 0.01, **given: object) -> Iterator[None]:
        """Hand mails over, one after another, while the block runs; at its end all are handed over."""

        def hand_over() -> None:
            for mail in to_send:
                self._hand_over(producer, mail)
                time.sleep(every_seconds)

        to_send = self._mails(count, given)
        with Producer(self.settings.broker, public_key=public_key(self.settings)) as producer:
            thread = threading.Thread(target=hand_over, daemon=True)
            thread.start()
            yield
            thread.join()

    def _hand_over(self, producer: Producer, mail: Mail) -> None:
        while True:
            try:
                self.handed_over.append(producer.enqueue(mail))
            except BrokerUnavailable:
                continue
            return

    def wait_arrived(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        until = time.monotonic() + seconds
        while (arrived := len(self.smtp.accepted) - self._arrived_before) < count:
            assert time.monotonic() < until, f"{arrived} of {count} arrived; the workers said:\n{self.log[-6000:]}"
            self.move_time()
            time.sleep(_A_LITTLE_SECONDS)

    @property
    def arrived(self) -> int:
        """How many transactions the server took since the books were opened."""
        return len(self.smtp.accepted) - self._arrived_before

    def arrived_from(self, hello_name: str) -> int:
        """How many of them came from the process that calls itself so."""
        return sum(each.hello == hello_name for each in self.smtp.accepted[self._arrived_before :])

    def wait_recorded(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the ledger has so many of the account's mails and the inbox is empty."""
        counted = select(func.count()).select_from(mails).where(mails.c.account_id == self.account_id)
        until = time.monotonic() + seconds
        while True:
            with self.database.read() as connection, self.redis.client() as client:
                if connection.execute(counted).scalar_one() >= count and not client.hlen(names.INBOX):
                    return
            assert time.monotonic() < until, f"not all recorded; the workers said:\n{self.log[-6000:]}"
            self.move_time()
            time.sleep(_A_LITTLE_SECONDS)

    @property
    def clock(self) -> datetime:
        """The database's."""
        with self.database.read() as connection:
            return connection.execute(select(now())).scalar_one()

    def uncertain_at(self) -> list[datetime]:
        """When each attempt of the account was marked that ended uncertain."""
        lost = (attempts.c.account_id == self.account_id, attempts.c.outcome == Outcome.UNCERTAIN)
        with self.database.read() as connection:
            return list(connection.execute(select(attempts.c.started_at).where(*lost)).scalars())

    def in_hand(self) -> tuple[int, int]:
        """How many connections of the account, and how many of its mails, are claimed."""
        claimed = select(func.count()).select_from(mails).where(mails.c.claim.is_not(None))
        with self.database.read() as connection:
            return (
                connection.execute(select(func.count()).select_from(slots)).scalar_one(),
                connection.execute(claimed).scalar_one(),
            )

    @property
    def under_way(self) -> bool:
        """Whether some mail has not yet arrived."""
        return self.arrived < len(self.handed_over)

    def settle(self, seconds: float = SETTLES_IN_SECONDS) -> None:
        """Wait until every mail has ended or waits for a person; waits of the clock are over at once."""
        until = time.monotonic() + seconds
        while unended := self._unended():
            if time.monotonic() > until:
                raise AssertionError(
                    f"after {seconds} s there are still {unended}; the workers said:\n{self.log[-6000:]}"
                )
            self.move_time()
            time.sleep(_A_LITTLE_SECONDS)

    def _unended(self) -> str:
        with self.redis.client() as client:
            inbox = client.hlen(names.INBOX)
        with self.database.read() as connection:
            counted = select(mails.c.state, func.count()).where(mails.c.state.in_(UNENDED)).group_by(mails.c.state)
            states: dict[str, int] = {state: number for state, number in connection.execute(counted)}  # noqa: C416
        return ", ".join(f"{number} {state}" for state, number in {**states, "in the inbox": inbox}.items() if number)

    def move_time(self) -> None:
        """Let what waits for the clock be due: deferred and uncertain mail, accounts in trouble, jobs in the inbox, and
        the chores.
        """
        if self.supervised:
            for name in [name for name in self._children if self.ended(name)]:
                self._again[name]()
                self.started_again += 1
        with self.database.write() as connection:
            waits = (mails.c.state.in_((MailState.DEFERRED, MailState.UNCERTAIN)), mails.c.due_at > now())
            free = select(mails.c.id).where(*waits).with_for_update(skip_locked=True)  # a worker may have it in hand
            connection.execute(update(mails).where(mails.c.id.in_(free)).values(due_at=now()))
            in_trouble = select(accounts.c.id).where(accounts.c.probe_at > now()).with_for_update(skip_locked=True)
            connection.execute(update(accounts).where(accounts.c.id.in_(in_trouble)).values(probe_at=now()))
        with suppress(redis.RedisError, kombu.exceptions.OperationalError), self.redis.client() as client:
            for field in client.zrange(names.INBOX_AT, 0, -1):
                client.zadd(names.INBOX_AT, {field: 1.0}, xx=True)
            for chore in self.chores:
                self._celery.send_task(chore_task(chore), queue=names.QUEUE_CARE, expires=2, ignore_result=True)

    def books(self) -> Books:
        with self.database.read() as connection:
            return balance(connection, self.handed_over, arrivals(self.journal))


def _catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    [caught] = re.findall(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (number - 1) & 1)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def seeded() -> Iterator[random.Random]:
    """A random generator whose seed is told when the campaign fails."""
    seed = int(os.environ.get("POSTROOM_SEED") or random.SystemRandom().randrange(2**32))
    try:
        yield random.Random(seed)  # noqa: S311
    except BaseException as error:
        error.add_note(f"POSTROOM_SEED={seed}")
        raise
