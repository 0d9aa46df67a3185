"""The clock that asks for the chores: Celery beat. It keeps nothing, since all of them are periodic.

Once a second it asks for all whose time has come, by one message: taking a message costs a worker more than a chore
that finds nothing to do.
"""

from datetime import UTC, datetime
from functools import partial
from typing import Final

from celery.beat import BeatLazyFunc
from celery.schedules import schedule

from postroom.config.settings import Settings
from postroom.producer import names
from postroom.worker import logs
from postroom.worker.celery_app import CHORE_PERIODS_SECONDS, ROUND, chore_task, make_celery

_ROUND_SECONDS: Final = 1.0
_ROUND_LIVES_SECONDS: Final = 30.0
"""For so long a worker takes what was asked for: by then the two clocks may differ."""


class Rounds:
    """Which chores are asked for in which round."""

    def __init__(self) -> None:
        self._number = 0

    def next(self) -> list[str]:
        """The chores of the next round, the most frequent first."""
        self._number += 1
        now_seconds = self._number * _ROUND_SECONDS
        return [
            name
            for name, seconds in sorted(CHORE_PERIODS_SECONDS.items(), key=lambda each: each[1])
            if now_seconds % seconds == 0
        ]


def run_scheduler(settings: Settings) -> None:
    """Run it in this process until it is told to stop."""
    logs.also_for_celery(settings.log_level)
    app = make_celery(settings)
    app.conf.beat_schedule = {
        ROUND: {
            "task": chore_task(ROUND),
            # Celery's own clock looks each time whether summer time ends in UTC
            "schedule": schedule(_ROUND_SECONDS, nowfun=partial(datetime.now, UTC)),
            "args": (BeatLazyFunc(Rounds().next),),
            "options": {"queue": names.QUEUE_CARE, "expires": _ROUND_LIVES_SECONDS, "ignore_result": True},
        }
    }
    # not by Celery's command line, which imports every plugin that is installed, such as Flower
    app.Beat(scheduler="celery.beat:Scheduler", loglevel=settings.log_level, quiet=True).run()
