"""The Celery app: its three queues and their tasks, the scheduler's chores, and how each kind of worker is started.

A task's arguments say where work is and never what it is. A task that fails tells Celery, and so Flower, only the kind
of its error: a message or a traceback could hold an address.
"""

import functools
import os
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal
from uuid import UUID

import redis
import structlog
from celery import Celery, signals
from celery.exceptions import Ignore, SecurityWarning

from postroom.config import settings as configuration
from postroom.config.away import is_away
from postroom.config.settings import Settings
from postroom.producer import names
from postroom.producer.broker import celery_url
from postroom.producer.errors import PostroomError, Refused
from postroom.worker import logs
from postroom.worker.accept import accept
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

Kind = Literal["accept", "drain", "care"]

QUEUES: Final[dict[Kind, str]] = {
    "accept": names.QUEUE_ACCEPT,
    "drain": names.QUEUE_DRAIN,
    "care": names.QUEUE_CARE,
}

CHORES: Final[dict[str, tuple[Callable[[Process], int], float]]] = {
    "strays": (strays, 10.0),
    "leases": (leases, 5.0),
    "due": (due, 1.0),
    "release": (release, 2.0),
    "probe": (probe, 5.0),
    "expire": (expire, 30.0),
    "erase": (erase, 60.0),
    "prune": (prune, 300.0),
}
"""Each chore with its period in seconds."""

RING_KEY: Final = "postroom:ring"
"""Redis key of the ids of the keys in the private ring, as the worker that started last told them."""

_ACCEPT_THREADS: Final = 2
_CARE_THREADS: Final = 16
_SOFT_STOP_SECONDS: Final = 10
_CHORE_LIVES_SECONDS: Final = 30.0
"""For so long a worker takes a chore that was asked for: by then the two clocks may differ."""
_SECOND_SIGINT_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class TaskFailed(PostroomError):
    """A task failed; the worker's log says where."""


def chore_task(name: str) -> str:
    """The task name of a chore."""
    return f"postroom.chore.{name}"


def last_run_key(chore: str) -> str:
    """Redis key of the Unix time at which a chore last ended."""
    return f"postroom:chore:{chore}:at"


def make_app(settings: Settings) -> Celery:
    """The Celery app for these settings. Nothing is connected to yet."""
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        os.environ.pop(name, None)  # another Celery's, and it would go before what is set here
    app = Celery("postroom", set_as_current=True)
    app.conf.update(_configuration(settings))
    process = Process(settings, CeleryNudges(app))
    app.postroom_process = process
    _add_tasks(app, process)
    return app


def _configuration(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": celery_url(settings.broker),
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_create_missing_queues": True,
        "task_default_queue": names.QUEUE_CARE,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_send_task_events": True,
        "worker_soft_shutdown_timeout": _SOFT_STOP_SECONDS,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_limit": 32,
        "broker_transport_options": {
            "max_connections": settings.drain_threads + 64,
            "socket_keepalive": True,
            "socket_connect_timeout": 5,
            "health_check_interval": 25,
        },
        "beat_schedule": {
            name: {
                "task": chore_task(name),
                "schedule": seconds,
                "options": {
                    "queue": names.QUEUE_CARE,
                    "expires": max(seconds, _CHORE_LIVES_SECONDS),
                    "ignore_result": True,
                },
            }
            for name, (_, seconds) in CHORES.items()
        },
        "timezone": "UTC",
    }


def _add_tasks(app: Celery, process: Process) -> None:
    def accept_task(fields: list[str], templates: list[dict[str, Any]]) -> None:  # noqa: ARG001 - shown by Flower
        accept(process, fields)

    def drain_task(account_id: str) -> None:
        drain(process, UUID(account_id))

    def verify_task(proof_id: str) -> None:
        verify(process, UUID(proof_id))

    def erase_task(request_id: str) -> None:
        erase_by_address(process, UUID(request_id))

    tasks: dict[str, Callable[..., None]] = {
        names.TASK_ACCEPT: accept_task,
        names.TASK_DRAIN: drain_task,
        names.TASK_VERIFY: verify_task,
        names.TASK_ERASE: erase_task,
        **{chore_task(name): _chore_task(process, name, chore) for name, (chore, _) in CHORES.items()},
    }
    outage = DatabaseOutage()
    for name, task in tasks.items():
        app.task(name=name)(_discreet(task, outage))


def _chore_task(process: Process, name: str, chore: Callable[[Process], int]) -> Callable[[], None]:
    def run() -> None:
        found = chore(process)
        if found:
            log.info("chore", chore=name, found=found)
        seconds, microseconds = process.redis.time()  # one clock for all who write and read it
        process.redis.set(last_run_key(name), f"{seconds}.{microseconds:06}")

    run.__name__ = name
    return run


def _discreet(task: Callable[..., None], outage: DatabaseOutage) -> Callable[..., None]:
    """Let only the kind of an error out of a task; the log gets the places it passed through, and no values. That the
    database is away is no failure of the task: what it was about is found when the database is back.
    """

    @functools.wraps(task)
    def run(*arguments: Any) -> None:
        try:
            task(*arguments)
            outage.over()
        except Exception as error:  # noqa: BLE001 - told by its kind
            if is_away(error):
                outage.note(error)
                raise Ignore from None
            places = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
            # not log.exception: a traceback shows values
            where = " ".join(places[-6:])
            log.error("a task failed", task=task.__name__, error=type(error).__name__, at=where)  # noqa: TRY400
            raise TaskFailed(type(error).__name__) from None

    return run


def worker_argv(kind: Kind, settings: Settings, *, name: str | None = None) -> list[str]:
    """Arguments of `Celery.worker_main` for one kind of worker."""
    threads = {"accept": _ACCEPT_THREADS, "drain": settings.drain_threads, "care": _CARE_THREADS}[kind]
    return [
        "--quiet",
        "worker",
        "--queues",
        QUEUES[kind],
        "--hostname",
        f"{name or kind}@%h",
        "--pool",
        "threads",
        "--concurrency",
        str(threads),
        "--without-gossip",
        "--without-mingle",
        "--loglevel",
        settings.log_level,
    ]


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
    _log_by(settings)
    signals.worker_shutting_down.connect(stop, weak=False)
    logs.set_up(settings.log_level)
    try:
        wait_for_room(process, kind)
        _tell_keys(process)
        worker_app.worker_main(worker_argv(kind, settings, name=name))
        if not process.stopping.is_set():  # Celery has logged why, and leaves with 0
            raise Refused("the worker ended without being told to; start it again")
    finally:
        process.close()


def _tell_keys(process: Process) -> None:
    """Tell the doctor which keys can be opened here, by their ids: it may not read the private ring."""
    with suppress(redis.RedisError):
        process.redis.set(RING_KEY, " ".join(key_id.hex() for key_id in process.ring.keys))


def run_scheduler(settings: Settings) -> None:
    """Run Celery beat in this process until it is told to stop. It keeps nothing: its chores are all periodic."""
    _log_by(settings)
    scheduler_app = make_app(settings)
    words = ["--quiet", "beat", "--scheduler", "celery.beat:Scheduler", "--pidfile=", "--loglevel", settings.log_level]
    scheduler_app.start(words)


def _log_by(settings: Settings) -> None:
    def set_up(**_: Any) -> None:
        logs.set_up(settings.log_level)

    signals.setup_logging.connect(set_up, weak=False)


def __getattr__(name: str) -> Any:
    """`app`, made when it is first asked for: ``celery -A postroom.worker.app`` finds it here."""
    if name == "app":
        return make_app(configuration.load())
    raise AttributeError(name)
