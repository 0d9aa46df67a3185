"""Who is measured against whom, and what each keeps of a mail's outcome."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from bench import house
from bench.rivals.bullmq import system as bullmq
from bench.rivals.naive_celery import system as naive_celery
from bench.rivals.post_office import system as post_office
from bench.sink import Sink
from bench.system import System

CONNECTIONS: Final = 10


@dataclass(frozen=True, slots=True)
class Contestant:
    """One system that is measured.

    Attributes:
        name: what the tables call it.
        durable: whether a mail's outcome is recorded so that it lasts.
        mails: how many it sends in two to four seconds, in clear and by STARTTLS.
        start: given a folder and where to send, runs it, sending or only taking mail.
    """

    name: str
    durable: str
    mails: tuple[int, int]
    start: Callable[..., AbstractContextManager[System]]


@contextmanager
def _postroom(database: house.DatabaseKind, folder: Path, to: Sink, *, sending: bool = True) -> Iterator[System]:
    with house.started(folder, to, database, connections=CONNECTIONS, sending=sending) as running:
        yield running.system


BARE_CELERY: Final = Contestant(
    naive_celery.NAME,
    "no: nothing is recorded",
    (600, 80),
    partial(naive_celery.started, connections=CONNECTIONS),
)
BULLMQ: Final = Contestant(
    bullmq.NAME,
    "in Redis, on disk within 2 s",
    (1800, 1800),
    partial(bullmq.started, connections=CONNECTIONS),
)
POSTROOM: Final = tuple(
    Contestant(house.NAMES[database], "yes, before the next dot", (1800, 1800), partial(_postroom, database))
    for database in house.NAMES
)
ALL: Final = (
    *POSTROOM,
    BULLMQ,
    Contestant(
        post_office.NAME,
        "after a batch of 500 has gone",
        (1000, 1000),
        partial(post_office.started, connections=CONNECTIONS),
    ),
    BARE_CELERY,
)
