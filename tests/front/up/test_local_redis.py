"""Which Redis server is taken, and what its folder and its file must stand."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postroom.front import local_redis
from postroom.producer.errors import Refused
from postroom.producer.names import local_redis_socket
from servers.command import wait_until

Start = Callable[[Path], "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def run(data_dir: Path) -> subprocess.Popen[bytes]:
        data_dir.mkdir(parents=True, exist_ok=True)
        local_redis.prepare(data_dir)
        command = local_redis.command(local_redis.find_server(), data_dir)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        started.append(process)
        wait_until(lambda: local_redis.answers(data_dir))
        return process

    yield run
    for process in started:
        process.terminate()
        process.wait(10)


def ask(data_dir: Path, *commands: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(local_redis_socket(data_dir)))
        connection.sendall("".join(f"{command}\r\n" for command in (*commands, "QUIT")).encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode()


def pretend(folder: Path, name: str, version: str) -> Path:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=libc bits=64'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("version", ["7.0.15", "8.2.1", "10.0.0"])
def test_a_server_on_the_path_is_taken_from_version_7_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    found = pretend(tmp_path, "redis-server", version)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local_redis.find_server() == found


def test_an_older_one_is_passed_over_for_the_one_that_pip_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = pretend(tmp_path, "redis-server", "6.2.14")
    monkeypatch.setenv("PATH", str(tmp_path))
    taken = local_redis.find_server()
    assert taken != old
    assert (local_redis.major_version(taken) or 0) >= 7


def test_a_tail_torn_by_a_power_cut_is_cut_off(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path)
    ask(tmp_path, "SET whole 1", "SET torn 1")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    [written] = (tmp_path / "redis" / "appendonlydir").glob("*.incr.aof")
    os.truncate(written, written.stat().st_size - 3)
    start(tmp_path)
    assert "$1\r\n1\r\n$-1\r\n" in ask(tmp_path, "GET whole", "GET torn")


def test_what_it_took_survives_its_death(start: Start, tmp_path: Path) -> None:
    process = start(tmp_path)
    ask(tmp_path, "SET kept 1")
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    start(tmp_path)
    assert "$1\r\n1" in ask(tmp_path, "GET kept")


def test_a_folder_too_deep_for_a_socket_and_with_odd_names(start: Start, tmp_path: Path) -> None:
    data_dir = tmp_path / "Почта и \"кавычки\" 'так'" / ("d" * 100)
    start(data_dir)
    assert local_redis_socket(data_dir).parent == Path(f"/tmp/postroom-{os.getuid()}")  # noqa: S108 - it is looked at
    assert local_redis_socket(data_dir).parent.stat().st_mode & 0o777 == 0o700
    assert "dir\r\n" in ask(data_dir, "CONFIG GET dir")
    assert (data_dir / "redis" / "appendonlydir").is_dir()


@pytest.mark.parametrize("fault", ["open", "link"])
def test_a_socket_folder_that_others_can_enter_or_made_is_refused(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "redis"
    if fault == "open":
        folder.mkdir()
        folder.chmod(0o755)
    else:
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match=str(folder)):
        local_redis.prepare(tmp_path)
