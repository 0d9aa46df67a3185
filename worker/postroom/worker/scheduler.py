"""The clock that asks for the chores: Celery beat. It keeps nothing, since all of them are periodic."""

from postroom.config.settings import Settings
from postroom.worker import logs
from postroom.worker.celery_app import make_celery


def run_scheduler(settings: Settings) -> None:
    """Run it in this process until it is told to stop."""
    logs.also_for_celery(settings.log_level)
    # not by Celery's command line, which imports every plugin that is installed, such as Flower
    make_celery(settings).Beat(scheduler="celery.beat:Scheduler", loglevel=settings.log_level, quiet=True).run()
