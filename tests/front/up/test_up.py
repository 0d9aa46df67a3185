"""The whole of `postroom up`, for real."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import redis

from long_form import LONG
from postroom.config.settings import Settings
from postroom.front import house
from postroom.front.local_redis import find_server
from postroom.producer.errors import Refused
from postroom.producer.names import local_redis_socket
from servers.command import Command, is_running, wait_until

PARTS = {"redis", "accept", "drain", "care", "scheduler", "flower"}
UP = [sys.executable, "-P", "-m", "postroom.front.cli", "up"]
Run = Callable[..., Command]


def redis_of(data_dir: Path) -> "redis.Redis":
    return redis.Redis(unix_socket_path=str(local_redis_socket(data_dir)), decode_responses=True)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_everything_from_an_empty_folder_by_its_env_file(run: Run, tmp_path: Path, free_port: int) -> None:
    (tmp_path / ".env").write_text(f"POSTROOM_DATA_DIR=data\nPOSTROOM_FLOWER_BIND=127.0.0.1:{free_port}\n")
    data = tmp_path / "data"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSTROOM_")}
    command = run(UP, cwd=tmp_path, env={**clean, "FLOWER_UNAUTHENTICATED_API": "true"})
    command.wait_for("Everything is up")

    ready = json.loads((data / "up.ready").read_text())
    assert ready["pid"] == command.process.pid
    assert ready["programs"].keys() == PARTS
    assert all(map(is_running, ready["programs"].values()))

    assert f"back up {data}/keys/private.ring" in command.output or "back up data/keys/private.ring" in command.output
    assert mode(data) == mode(data / "keys") == mode(data / "redis") == 0o700
    assert mode(data / "postroom.db") == mode(data / "keys" / "flower.auth") == 0o600

    with redis_of(data) as client:
        in_force = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "port")
    assert in_force == {
        "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": "", "port": "0",
    }  # fmt: skip

    user, _, password = (data / "keys" / "flower.auth").read_text().strip().partition(":")
    assert ready["flower_url"] == f"http://127.0.0.1:{free_port}/"
    for path in ("", "api/workers", "api/tasks"):
        address = ready["flower_url"] + path
        assert httpx.get(address).status_code == 401
        assert httpx.get(address, auth=(user, "wrong")).status_code == 401
        assert httpx.get(address, auth=(user, password)).status_code == 200
    assert password not in command.output
    for pid in ready["programs"].values():
        assert password not in Path(f"/proc/{pid}/cmdline").read_text()

    second = run(UP, cwd=tmp_path, env=clean)
    assert second.ends() == 1
    assert f"pid {command.process.pid}" in second.output
    assert (data / "up.ready").exists()

    began_at = time.monotonic()
    command.process.send_signal(signal.SIGINT)
    assert command.ends() == 0
    assert time.monotonic() - began_at < (15 if LONG else 30)
    assert "killed" not in command.output
    assert not any(map(is_running, ready["programs"].values()))
    assert not (data / "up.ready").exists()
    assert not local_redis_socket(data).exists()


@pytest.fixture
def settings(tmp_path: Path, free_port: int) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data", flower_bind=f"127.0.0.1:{free_port}")


def test_redis_killed_in_the_middle_comes_back_with_what_it_held(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"redis_fsync": "always"})
    ready_file = settings.data_dir / "up.ready"
    with house.started(settings, log=tmp_path / "up.log") as running:
        with redis_of(settings.data_dir) as client:
            client.set("held", "fast")
            assert client.config_get("appendfsync") == {"appendfsync": "always"}
        os.kill(running.programs["redis"], signal.SIGKILL)
        wait_until(lambda: json.loads(ready_file.read_text())["programs"]["redis"] != running.programs["redis"])
        with redis_of(settings.data_dir) as client:
            assert client.get("held") == "fast"
            wait_until(lambda: [each["cmd"] for each in client.client_list()].count("brpop") >= 3)  # all consume again
        after = json.loads(ready_file.read_text())["programs"]
        assert {name for name in PARTS if after[name] != running.programs[name]} == {"redis"}
    assert running.process.returncode == 0
    assert not any(map(is_running, after.values()))


def test_a_killed_up_leaves_no_orphan_and_no_lock(settings: Settings, tmp_path: Path) -> None:
    with house.started(settings, log=tmp_path / "first.log") as first:
        first.process.kill()
        wait_until(lambda: not any(map(is_running, first.programs.values())), 5)
    assert (settings.data_dir / "up.lock").read_text().strip() == str(first.process.pid)
    with house.started(settings, log=tmp_path / "second.log") as second:
        assert second.process.pid != first.process.pid
    assert second.process.returncode == 0


def test_the_settings_are_not_handed_to_redis(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "environment-of-redis"
    server = tmp_path / "bin" / "valkey-server"
    server.parent.mkdir()
    server.write_text(f'#!/bin/sh\n[ "$1" = --version ] || env > {told}\nexec {find_server()} "$@"\n')
    server.chmod(0o755)
    monkeypatch.setenv("PATH", f"{server.parent}:{os.environ['PATH']}")
    with house.started(settings, log=tmp_path / "up.log"):
        assert "PATH=" in told.read_text()
        assert "POSTROOM_DATA_DIR" not in told.read_text()


def test_a_house_that_does_not_come_up_says_why(settings: Settings, tmp_path: Path, free_port: int) -> None:
    broken = settings.model_copy(update={"flower_bind": f"0.0.0.0:{free_port}"})
    with pytest.raises(Refused, match="POSTROOM_FLOWER_AUTH"), house.started(broken, log=tmp_path / "up.log"):
        raise AssertionError("it is not up")
