"""Logs: one line an event on stderr, for people and for grep. Nothing personal and nothing secret stands in one."""

import logging
import sys

import structlog
from celery import signals

from postroom.worker.outages import Outages


def set_up(level: str) -> None:
    """Send structlog's and the standard library's events to stderr."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=number, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    for handler in logging.getLogger().handlers:
        handler.addFilter(Outages())
    for chatty in ("celery.app.trace", "celery.worker.strategy", "celery.beat"):  # a line or two a task
        logging.getLogger(chatty).setLevel(logging.DEBUG if number <= logging.DEBUG else logging.WARNING)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


def also_for_celery(level: str) -> None:
    """Set up so as well when Celery would set up its own."""
    signals.setup_logging.connect(lambda **_: set_up(level), weak=False)
