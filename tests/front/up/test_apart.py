"""Work in a process of its own: its error comes back, its memory does not."""

import sys

import pytest

from postroom.front.apart import apart
from postroom.producer.errors import KeyUnusable

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)  # pytest's own threads


def _refuse(error: Exception) -> None:
    raise error


def test_what_it_does_to_memory_stays_there() -> None:
    there = dict(sys.modules)
    apart(sys.modules.clear)
    assert sys.modules == there


def test_an_error_comes_back() -> None:
    with pytest.raises(KeyUnusable, match=r"^ring: cannot be read$"):
        apart(lambda: _refuse(KeyUnusable("ring: cannot be read")))


def test_a_defect_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="it ended with 1"):
        apart(lambda: _refuse(ValueError("a defect")))
    assert "ValueError: a defect" in capfd.readouterr().err
