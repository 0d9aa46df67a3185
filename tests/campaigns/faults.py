"""Faults planted in a worker of a campaign, at named points of a mail's way.

A fault is ``kill@POINT:N`` (SIGKILL of itself at the N-th time it passes the point), ``stop@POINT:N`` (SIGSTOP),
``clock@SECONDS`` (this process's clock is ahead by so much), ``nudges@HOW`` (tripled, shuffled or dropped),
``dial@PORT:OTHER`` (who would connect to the one port of a mail server connects to the other), or ``without@PART`` (a
part of the protocol taken out, to prove that the campaigns notice).

    point       where
    taken       accept: jobs are in hand, the ledger knows nothing of them
    accepted    accept: the ledger has the job, the inbox has it still
    claimed     drain: the claim is durable, nothing was said to a server
    marked      drain: the mark is durable, the final dot was not written
    half_data   drain: half of the content was written
    dotted      drain: the final dot was written, its reply was not read
    replied     drain: the reply was read, nothing was recorded
    recorded    drain: the outcome is durable
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import Celery
from sqlalchemy import delete, update

from postroom.config import database
from postroom.config.database import now
from postroom.config.tables import mails, slots
from postroom.worker import app, drain, ledger
from postroom.worker.chores import leases
from postroom.worker.inbox import Inbox
from postroom.worker.nudges import CeleryNudges
from postroom.worker.smtp import network, wire


def plant(fault: str) -> None:
    """Plant one fault in this process."""
    what, _, where = fault.partition("@")
    if what == "without":
        _WITHOUT[where]()
        return
    if what == "nudges":
        for name in ("accept", "drain"):
            setattr(CeleryNudges, name, distorted(getattr(CeleryNudges, name), where))
        return
    if what == "dial":
        _dial(*map(int, where.split(":")))
        return
    if what == "clock":
        _set_clock_ahead(float(where))
        return
    _note_turns()
    point, _, number = where.partition(":")
    _PLANTS[point](_bomb({"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[what], int(number)))


def _set_clock_ahead(seconds: float) -> None:
    usual_time, usual_now = time.time, Celery.now
    time.time = lambda: usual_time() + seconds
    Celery.now = lambda self: usual_now(self) + timedelta(seconds=seconds)


def distorted(nudge: Callable[..., None], how: str) -> Callable[..., None]:
    """A nudge that comes three times; late and so out of order; or half of the time not at all."""
    dice = random.Random()  # noqa: S311

    def changed(*arguments: Any) -> None:
        if how == "tripled":
            for _ in range(3):
                nudge(*arguments)
        elif how == "shuffled":
            late = threading.Timer(dice.random() * _LATEST_SECONDS, _or_never, (nudge, arguments))
            late.daemon = True
            late.start()
        elif dice.random() < _GOES:
            nudge(*arguments)

    return changed


def _or_never(nudge: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with suppress(Exception):  # who nudged is gone meanwhile
        nudge(*arguments)


_LATEST_SECONDS = 1.0
_GOES = 0.5


def _dial(port: int, other: int) -> None:
    usual = network._connect_one

    def changed(address: network.Address, timeout_seconds: float) -> Any:
        host, asked, *more = address.sockaddr
        sockaddr: Any = (host, other if asked == port else asked, *more)
        return usual(network.Address(address.family, sockaddr), timeout_seconds)

    network._connect_one = changed


def _bomb(number: signal.Signals, at: int) -> Callable[[], None]:
    passed = 0

    def passes() -> None:
        nonlocal passed
        passed += 1
        if passed == at:
            with ExitStack() as quiet:
                for turn in _TURNS:  # stopped in its turn to write, it would stop every writer of a SQLite
                    quiet.enter_context(turn._thread_turn)
                os.kill(os.getpid(), number)
                time.sleep(_GOES_STILL_SECONDS)

    return passes


_GOES_STILL_SECONDS = 0.05
"""A process of several threads stops a little after the signal was sent."""

_TURNS: list[database._FileTurn] = []


def _note_turns() -> None:
    usual = database._FileTurn.__init__

    def noted(self: database._FileTurn, path: Path) -> None:
        usual(self, path)
        _TURNS.append(self)

    database._FileTurn.__init__ = noted  # type: ignore[method-assign]


def _before(owner: Any, name: str, do: Callable[[], None]) -> None:
    usual = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        do()
        return usual(*arguments, **named)

    setattr(owner, name, changed)


def _after(owner: Any, name: str, do: Callable[[], None], when: Callable[[Any], bool]) -> None:
    usual = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        result = usual(*arguments, **named)
        if when(result):
            do()
        return result

    setattr(owner, name, changed)


def _plant_half_data(bomb: Callable[[], None]) -> None:
    usual = wire.Wire.write_content

    def halves(self: Any, content: bytes, **named: Any) -> None:
        if content.startswith(b".\r\n"):  # the dot, behind a content that was too long to go with it
            usual(self, content, **named)
            return
        middle = len(content) // 2
        usual(self, content[:middle], **named)
        bomb()
        usual(self, content[middle:], **named)

    wire.Wire.write_content = halves  # type: ignore[method-assign]


def _plant_recorded(bomb: Callable[[], None]) -> None:
    usual = drain._Drain._turn

    def waits(self: Any, record: Any, upcoming: Any) -> Any:
        future = usual(self, record, upcoming)
        if record is not None:
            future.result()
            bomb()
        return future

    drain._Drain._turn = waits  # type: ignore[method-assign]


def _plant_dotted(bomb: Callable[[], None]) -> None:
    usual = wire.Wire.write

    def changed(self: Any, data: Any, **named: Any) -> None:
        usual(self, data, **named)
        if b"\r\n.\r\n" in b"\r\n" + bytes(data):
            bomb()

    wire.Wire.write = changed  # type: ignore[method-assign]


_PLANTS: dict[str, Callable[[Callable[[], None]], None]] = {
    "taken": lambda bomb: _after(Inbox, "take", bomb, bool),
    "accepted": lambda bomb: _before(Inbox, "done", bomb),
    "claimed": lambda bomb: _before(drain._Drain, "_compose", bomb),
    "marked": lambda bomb: _after(drain._Drain, "_permit", bomb, bool),
    "half_data": _plant_half_data,
    "dotted": _plant_dotted,
    "replied": lambda bomb: _before(drain._Drain, "_record", bomb),
    "recorded": _plant_recorded,
}


def _without_fence() -> None:
    """A mark stands whoever claimed the mail meanwhile, and so does a record."""
    ledger._may_go_at_once = lambda records, marks: False
    ledger._MARK = ledger._MARKS.statement(
        lambda given: (
            update(mails)
            .where(mails.c.id == given.c.mail)
            .values(attempt_id=given.c.attempt, marked_at=now())
            .returning(mails.c.attempt_id)
        )
    )


def _without_mark() -> None:
    """The final dot goes without asking the database."""
    drain._Drain._permit = lambda self, turn: True  # type: ignore[method-assign]
    ledger._may_go_at_once = lambda records, marks: False
    ledger.mark = lambda connection, marks: {each.attempt_id for each in marks}


def _without_inbox() -> None:
    """Accept removes a job from the inbox when it reads it, as a queue does."""
    usual = Inbox.take

    def pops(self: Inbox, fields: Any) -> Any:
        taken = usual(self, fields)
        self.done(taken)
        return taken

    Inbox.take = pops  # type: ignore[method-assign]


def _without_lease() -> None:
    """The chore takes claims back whether their leases have ended or not."""
    usual = leases.leases

    def hasty(process: Any) -> int:
        with process.database.write() as connection:
            connection.execute(delete(slots))
        return usual(process)

    leases.leases = hasty
    app.CHORES["leases"] = hasty


_WITHOUT: dict[str, Callable[[], None]] = {
    "fence": _without_fence,
    "mark": _without_mark,
    "inbox": _without_inbox,
    "lease": _without_lease,
}
