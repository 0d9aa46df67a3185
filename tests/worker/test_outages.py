"""Redis away is a line in the log, not a traceback a try; other errors are left as they are."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import sqlalchemy.exc
import structlog
import structlog.testing
from kombu.exceptions import OperationalError

from postroom.worker.outages import DatabaseOutage, Outages


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    told = Outages()
    caplog.handler.addFilter(told)
    caplog.set_level(logging.INFO)
    yield caplog
    caplog.handler.removeFilter(told)


def fail(name: str, error: Exception, *, cause: Exception | None = None, level: int = logging.ERROR) -> None:
    try:
        raise error from cause  # noqa: TRY301 - so that it has a traceback
    except Exception as raised:
        logging.getLogger(name).log(level, "it failed: %r", raised, exc_info=True)


def texts(said: Any) -> list[str]:
    return [record.getMessage() for record in said.records]


def test_an_outage_is_told_once_and_its_end(said: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        fail("celery.worker.consumer.consumer", redis.ConnectionError("Error 2 connecting"))
    assert len(said.records) == 1
    assert "Redis cannot be used (ConnectionError)" in texts(said)[0]
    assert "Traceback" not in said.text
    logging.getLogger("celery.worker.consumer.connection").info("Connected to redis://:s3cret@h")
    assert texts(said)[1].startswith("Redis is back after 0 s")
    fail("celery.worker.consumer.consumer", redis.ConnectionError("Error 2 connecting"))
    assert len(said.records) == 3


def test_a_long_outage_is_told_again_at_growing_pauses(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_at = []
    for second in range(400):
        monkeypatch.setattr("postroom.worker.outages.time.monotonic", lambda at=float(second): at)
        before = len(said.records)
        fail("celery.beat", OperationalError("away"))
        told_at += [second] * (len(said.records) - before)
    assert told_at == [0, 30, 90, 210]
    assert "still cannot be used" in texts(said)[1]


def test_each_kind_of_trouble_is_told(said: pytest.LogCaptureFixture) -> None:
    fail("celery.worker", redis.ConnectionError("x"))
    aborted = redis.exceptions.ExecAbortError("Transaction discarded")
    fail("celery.worker", redis.exceptions.OutOfMemoryError("x"), cause=aborted)
    fail("celery.beat", RuntimeError("Couldn't apply scheduled task"), cause=redis.ResponseError("MISCONF …"))
    assert [text.partition("(")[2].partition(")")[0] for text in texts(said)] == [
        "ConnectionError",
        "OutOfMemoryError",
        "ResponseError",
    ]


def test_what_is_critical_is_always_told(said: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        fail("celery.worker", redis.exceptions.OutOfMemoryError("x"), level=logging.CRITICAL)
    assert len(said.records) == 2


def test_other_errors_keep_their_traceback(said: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        fail("celery.worker", KeyError("x"))
        fail("postroom.worker", redis.ConnectionError("x"))
    assert len(said.records) == 4
    assert said.text.count("Traceback") == 4


def test_a_database_away_is_told_at_growing_pauses_and_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    outage = DatabaseOutage()
    told_at = []
    with structlog.testing.capture_logs() as said:
        outage.over("leases")
        for second in range(400):
            monkeypatch.setattr("postroom.worker.outages.time.monotonic", lambda at=float(second): at)
            before = len(said)
            outage.note("leases", sqlalchemy.exc.OperationalError("SELECT secret", {}, Exception("away")))
            told_at += [second] * (len(said) - before)
        outage.over("due")  # which only reads: a full disk does not keep it from that
        outage.over("leases")
        outage.over("leases")
    assert told_at == [0, 30, 90, 210]
    assert said[-1] == {"event": "the database is back", "after_seconds": 399, "log_level": "info"}
    assert len(said) == 5
    assert "secret" not in str(said)
