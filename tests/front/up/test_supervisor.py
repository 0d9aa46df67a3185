"""The supervisor over small stand-in programs: order, warm stop, restarts, no orphans, and output that never blocks."""

import fcntl
import os
import re
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from long_form import LONG
from servers.command import Command, is_running, wait_until

Run = Callable[..., Command]

HOUSE = {"store": (0, "plain"), "one": (1, "plain"), "two": (1, "plain")}


def stopped_at(command: Command, name: str) -> float:
    return float(command.wait_for(rf"{name} +\| .*stopped at ([\d.]+)")[1])


def test_starts_floor_by_floor_and_says_when_all_is_up(supervise: Run) -> None:
    command = supervise(HOUSE)
    command.wait_for("all up")
    assert command.output.index("store is up") < min(command.output.index(f"{name} is up") for name in ("one", "two"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_warm_stop_ends_the_lowest_floor_last_and_exits_0(supervise: Run, number: signal.Signals) -> None:
    command = supervise(HOUSE)
    command.wait_for("all up")
    command.process.send_signal(number)
    assert command.ends() == 0
    assert stopped_at(command, "store") > max(stopped_at(command, "one"), stopped_at(command, "two"))


def test_stops_within_15_seconds_whoever_is_deaf(supervise: Run) -> None:
    command = supervise({"store": (0, "deaf"), "one": (1, "plain"), "two": (1, "deaf")})
    command.wait_for("all up")
    began_at = time.monotonic()
    command.process.terminate()
    assert command.ends() == 0
    assert 14 < time.monotonic() - began_at < (16 if LONG else 25)
    assert "two had not stopped: killed" in command.output
    assert "store had not stopped: killed" in command.output
    assert not any(map(is_running, command.pids().values()))


def test_a_second_ctrl_c_stops_at_once(supervise: Run) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "deaf")})
    command.wait_for("all up")
    began_at = time.monotonic()
    while "SIGINT again" not in command.output and time.monotonic() < began_at + 10:
        command.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            command.process.wait(0.4)
    assert command.ends() == 130
    assert time.monotonic() - began_at < 10, "less than a warm stop is given"
    stopped_at(command, "store")  # it was asked, not killed
    assert not any(map(is_running, command.pids().values()))


def test_the_same_ctrl_c_passed_on_by_a_wrapper_is_still_a_warm_stop(supervise: Run) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "slow")})
    command.wait_for("all up")
    command.process.send_signal(signal.SIGINT)
    command.wait_for("SIGINT: finishing what is in hand")
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == 0
    stopped_at(command, "one")


def test_ctrl_c_at_the_terminal_reaches_the_supervisor_alone(supervise: Run) -> None:
    command = supervise(HOUSE)
    command.wait_for("all up")
    assert {os.getsid(pid) for pid in command.pids().values()} == set(command.pids().values())


@pytest.mark.parametrize("behaviour", ["plain", "chatters"])
def test_a_terminal_that_goes_away_is_a_warm_stop(supervise: Run, behaviour: str, tmp_path: Path) -> None:
    command = supervise(
        {"store": (0, "plain"), "one": (1, behaviour)}, terminal=True, preexec_fn=_lead_a_session_on_stdout
    )
    command.wait_for("all up")
    pids = command.pids()
    command.hang_up()
    assert command.process.wait(15) == 0
    assert not any(map(is_running, pids.values()))


def _lead_a_session_on_stdout() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


def test_nohup_keeps_it_running_without_its_terminal(supervise: Run) -> None:
    command = supervise(HOUSE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    command.wait_for("all up")
    command.process.send_signal(signal.SIGHUP)
    os.kill(command.pids()["one"], signal.SIGKILL)
    command.wait_for("one ended unasked")
    assert command.process.poll() is None


def test_a_reader_that_went_away_stops_nothing(supervise: Run, tmp_path: Path) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "chatters")})
    command.hang_up()
    wait_until((tmp_path / "said-all").exists)
    assert command.process.poll() is None


@pytest.mark.parametrize("terminal", [True, False])
def test_a_held_terminal_blocks_no_child(supervise: Run, tmp_path: Path, terminal: bool) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "chatters")}, terminal=terminal)
    command.reading.clear()  # as Ctrl-S does
    wait_until((tmp_path / "said-all").exists)
    command.reading.set()
    command.wait_for("lines left out: the terminal was too slow")
    command.process.terminate()
    assert command.ends() == 0


def test_a_child_that_dies_is_started_again_after_a_growing_pause(supervise: Run) -> None:
    command = supervise(HOUSE)
    command.wait_for("all up")
    died = re.compile(r"one ended unasked \(killed by SIGKILL\); starting it again in (\d+) s")
    for pause in (1, 2):
        seen = len(command.output)
        began_at = time.monotonic()
        os.kill(command.pids()["one"], signal.SIGKILL)
        assert int(command.wait_for(died.pattern, start=seen)[1]) == pause
        command.wait_for("all up", start=seen)
        assert pause <= time.monotonic() - began_at < pause + 10
    assert "two ended" not in command.output


def test_the_lowest_floor_comes_back_at_once_and_the_others_live_on(supervise: Run) -> None:
    command = supervise(HOUSE, first_pause=0)
    command.wait_for("all up")
    before = command.pids()
    seen = len(command.output)
    os.kill(before["store"], signal.SIGKILL)
    command.wait_for(r"store ended unasked \(killed by SIGKILL\); starting it again at once", start=seen)
    command.wait_for("all up", start=seen)
    after = command.pids()
    assert after["store"] != before["store"]
    assert (after["one"], after["two"]) == (before["one"], before["two"])


def test_a_program_that_is_never_up_ends_it_with_1_and_its_own_words(supervise: Run) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "dies")})
    assert command.ends() == 1
    assert command.output.count("| no luck today") == 3
    assert "one ended unasked (exit code 7) and was never up: giving up" in command.output
    assert not is_running(command.pids()["store"])


def test_exit_code_2_is_not_tried_again(supervise: Run) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "usage")})
    assert command.ends() == 1
    assert command.output.count("| the setting is wrong") == 1


def test_no_orphan_when_the_supervisor_is_killed(supervise: Run) -> None:
    command = supervise({"store": (0, "deaf"), "one": (1, "deaf"), "two": (1, "plain")})
    command.wait_for("all up")
    command.process.kill()
    wait_until(lambda: not any(map(is_running, command.pids().values())), 5)


def test_what_a_child_has_started_goes_with_it(supervise: Run) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "forks")})
    grandchild = int(command.wait_for(r"grandchild (\d+)")[1])
    command.wait_for("all up")
    os.kill(command.pids()["one"], signal.SIGKILL)
    wait_until(lambda: not is_running(grandchild))


def test_a_line_without_its_end_is_shown_when_its_program_ends(supervise: Run) -> None:
    command = supervise({"store": (0, "plain"), "one": (1, "mumbles")})
    command.wait_for("all up")
    assert "half a line" not in command.output
    os.kill(command.pids()["one"], signal.SIGKILL)
    command.wait_for(r"one +\| half a line\n")


def test_names_are_coloured_on_a_terminal_alone(supervise: Run) -> None:
    command = supervise(HOUSE, terminal=True)
    command.wait_for("\x1b\\[36mpostroom \\|\x1b\\[0m .*all up")
    command.process.terminate()
    assert command.process.wait(15) == 0
