"""Lines on their way to the terminal."""

import os
from pathlib import Path

from postroom.front.display import Display, Lines
from postroom.front.process import ending
from postroom.front.supervisor import next_pause


def test_lines_are_cut_wherever_the_reads_fall() -> None:
    lines = Lines()
    assert lines.feed(b"one\ntw") == [b"one"]
    assert lines.feed(b"o\n\nthree") == [b"two", b""]
    assert lines.last() == [b"three"]
    assert lines.last() == []


def test_a_line_that_never_ends_is_cut_and_nothing_of_it_is_lost() -> None:
    lines = Lines()
    found = lines.feed(b"x" * 200_000)
    assert b"".join([*found, *lines.last()]) == b"x" * 200_000
    assert len(found) == 3


def test_no_escape_sequence_of_a_stranger_reaches_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "out"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    display = Display(descriptor, ["drain"])
    display.show("drain", b"550 \x1b]0;owned\x07 \xff no\tsuch user\r")
    display.show("drain", "Привет")
    os.close(descriptor)
    assert path.read_text() == "drain | 550 �]0;owned� � no\tsuch user\ndrain | Привет\n"


def test_the_pause_before_a_restart_grows_to_half_a_minute() -> None:
    pauses = [0.0]
    while len(pauses) < 8:
        pauses.append(next_pause(pauses[-1]))
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]


def test_endings_are_told_by_name() -> None:
    assert [ending(code) for code in (0, 2, -9, -99)] == [
        "exit code 0",
        "exit code 2",
        "killed by SIGKILL",
        "killed by signal 99",
    ]
