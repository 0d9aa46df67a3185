"""The workers: the tasks of the three queues, and how each kind of worker is started.

A task's arguments say where work is and never what it is. A task that fails tells Celery, and so Flower, only the kind
of its error: a message or a traceback could hold an address.
"""

import functools
import gc
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import redis
import structlog
from celery import Celery, signals
from celery.exceptions import Ignore, SecurityWarning
from celery.utils.nodenames import gethostname, nodename

from postroom.config import settings as configuration
from postroom.config.away import is_away
from postroom.config.settings import Settings
from postroom.producer import names
from postroom.producer.errors import PostroomError, Refused
from postroom.worker import logs
from postroom.worker.accept import accept
from postroom.worker.celery_app import (
    LAST_RUN_KEPT_SECONDS,
    QUEUES,
    RING_KEY,
    ROUND,
    Kind,
    chore_task,
    last_run_key,
    make_celery,
)
from postroom.worker.chores.due import due
from postroom.worker.chores.erase import erase
from postroom.worker.chores.expire import expire
from postroom.worker.chores.leases import leases
from postroom.worker.chores.probe import probe
from postroom.worker.chores.prune import prune
from postroom.worker.chores.release import release
from postroom.worker.chores.strays import strays
from postroom.worker.drain import drain
from postroom.worker.erase_by_address import erase_by_address
from postroom.worker.nudges import CeleryNudges
from postroom.worker.outages import DatabaseOutage
from postroom.worker.process import Process
from postroom.worker.room import wait_for_room
from postroom.worker.verify import verify

CHORES: Final[dict[str, Callable[[Process], int]]] = {
    "strays": strays,
    "leases": leases,
    "due": due,
    "release": release,
    "probe": probe,
    "expire": expire,
    "erase": erase,
    "prune": prune,
}

_ACCEPT_THREADS: Final = 2
_CARE_THREADS: Final = 16
_BEAT_SECONDS: Final = 5
"""How often a worker tells Flower, and whoever watches its file, that it listens."""
_SECOND_SIGINT_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class TaskFailed(PostroomError):
    """A task failed; the worker's log says where."""


def make_app(settings: Settings) -> Celery:
    """The Celery app for these settings, with its tasks. Nothing is connected to yet."""
    app = make_celery(settings)
    nudges = CeleryNudges(app)
    process = Process(settings, nudges)
    app.postroom_process = process
    _add_tasks(app, process, nudges)
    return app


def _add_tasks(app: Celery, process: Process, nudges: CeleryNudges) -> None:
    def accept_task(fields: list[str], templates: list[dict[str, Any]]) -> None:  # noqa: ARG001 - shown by Flower
        accept(process, fields)

    def drain_task(account_id: str) -> None:
        account = UUID(account_id)
        nudges.drain_begins(account)
        drain(process, account)

    def verify_task(proof_id: str) -> None:
        verify(process, UUID(proof_id))

    def erase_task(request_id: str) -> None:
        erase_by_address(process, UUID(request_id))

    tasks: dict[str, Callable[..., None]] = {
        names.TASK_ACCEPT: accept_task,
        names.TASK_DRAIN: drain_task,
        names.TASK_VERIFY: verify_task,
        names.TASK_ERASE: erase_task,
    }
    outage = DatabaseOutage()
    for name, task in tasks.items():
        app.task(name=name, shared=False)(_discreet(task, outage))
    chores = {name: _discreet(_chore(name, chore, process), outage) for name, chore in CHORES.items()}
    for name, chore_alone in {**chores, ROUND: _round(chores)}.items():
        # day and night: Flower would show little else, and events are most of what a chore costs
        app.task(name=chore_task(name), shared=False, send_events=False)(chore_alone)


def _chore(name: str, chore: Callable[[Process], int], process: Process) -> Callable[[], None]:
    def run() -> None:
        found = chore(process)
        if found:
            log.info("chore", chore=name, found=found)
        process.redis.set(last_run_key(name), b"", ex=LAST_RUN_KEPT_SECONDS)

    run.__name__ = name
    return run


def _round(chores: Mapping[str, Callable[[], None]]) -> Callable[[list[str]], None]:
    """The task that does those asked for, one after the other. One that fails does not keep the next from its turn."""

    def round_task(asked: list[str]) -> None:
        failed: Exception | None = None
        for name in asked:
            if name in chores:  # else a newer scheduler asks
                try:
                    chores[name]()
                except (TaskFailed, Ignore) as error:
                    failed = error
        if failed is not None:
            raise failed

    return round_task


def _discreet(task: Callable[..., None], outage: DatabaseOutage) -> Callable[..., None]:
    """Let only the kind of an error out of a task; the log gets the places it passed through, and no values. That the
    database is away is no failure of the task: what it was about is found when the database is back.
    """

    @functools.wraps(task)
    def run(*arguments: Any) -> None:
        try:
            task(*arguments)
            outage.over(task.__name__)
        except Exception as error:  # noqa: BLE001 - told by its kind
            if is_away(error):
                outage.note(task.__name__, error)
                raise Ignore from None
            places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            # not log.exception: a traceback shows values
            where = " ".join(places[-6:])
            log.error("a task failed", task=task.__name__, error=type(error).__name__, at=where)  # noqa: TRY400
            raise TaskFailed(type(error).__name__) from None

    return run


def _worker(app: Celery, kind: Kind, settings: Settings, name: str) -> Any:
    """Celery's worker, not by its command line: that imports every plugin that is installed, such as Flower."""
    threads = {"accept": _ACCEPT_THREADS, "drain": settings.drain_threads, "care": _CARE_THREADS}[kind]
    return app.Worker(
        queues=[QUEUES[kind]],
        hostname=nodename(name, gethostname()),
        pool_cls="threads",
        concurrency=threads,
        without_gossip=True,
        without_mingle=True,
        heartbeat_interval=_BEAT_SECONDS,
        loglevel=settings.log_level,
        quiet=True,
    )


def run_worker(kind: Kind, settings: Settings, *, name: str | None = None) -> None:
    """Run one worker in this process until it is told to stop: warmly within 15 s, by a second SIGINT at once. What was
    in hand then is found by its lease.

    Raises:
        KeyUnusable: the private ring or the front's key cannot be used; nothing was started.
        Refused: Celery gave up, such as when Redis got full; its log says why.
    """
    worker_app = make_app(settings)
    process: Process = worker_app.postroom_process
    process.prepare(kind)

    def stop(**_: Any) -> None:
        process.stopping.set()
        at_once_after = time.monotonic() + _SECOND_SIGINT_SECONDS  # one Ctrl-C may arrive twice
        signal.signal(signal.SIGINT, lambda *_: os._exit(130) if time.monotonic() > at_once_after else None)

    # Celery's long warning against running as root is about pickled tasks; only JSON is taken here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    logs.also_for_celery(settings.log_level)
    signals.worker_shutting_down.connect(stop, weak=False)
    logs.set_up(settings.log_level)
    try:
        wait_for_room(process, kind)
        _tell_keys(process)
        gc.freeze()  # what is there now stays
        _worker(worker_app, kind, settings, name or kind).start()
        if not process.stopping.is_set():  # Celery has logged why, and leaves with 0
            raise Refused("the worker ended without being told to; start it again")
    finally:
        process.close()


def _tell_keys(process: Process) -> None:
    """Tell the doctor which keys can be opened here, by their ids: it may not read the private ring."""
    with suppress(redis.RedisError):
        process.redis.set(RING_KEY, " ".join(key_id.hex() for key_id in process.ring.keys))


def __getattr__(name: str) -> Any:
    """`app`, made when it is first asked for: ``celery -A postroom.worker.app`` finds it here."""
    if name == "app":
        return make_app(configuration.load())
    raise AttributeError(name)
