"""`make compose-keys`: all that ./secrets must hold, once, each file with its reader."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.config.vault import FrontKey, Ring
from postroom.producer.sealing import PublicKey
from servers.compose import CLIENT, ROOT, resolved

SCRIPT = ROOT / "deploy" / "compose_keys.py"

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")


def make(folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False, **options
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@only_root
def test_everything_is_made_once_and_each_file_is_its_readers_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = make(folder)
    assert made.returncode == 0, made.stderr
    assert "Back up" in made.stdout
    before = contents(folder)
    for name, data in before.items():
        assert f"made {folder / name}" in made.stdout
        found = (folder / name).stat()
        assert found.st_uid != 0
        assert stat.S_IMODE(found.st_mode) in ({0o644} if name.endswith("public.key") else {0o400, 0o600})
        assert data.decode().strip() not in made.stdout
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    owners = {path.name: path.stat().st_uid for path in folder.iterdir()}
    assert owners["worker"] != owners["front"]

    ring = Ring.load(folder / "worker" / "private.ring")
    assert PublicKey.load(folder / "front" / "public.key").key_id in ring.keys
    assert FrontKey.load(folder / "front" / "front.key") == FrontKey.load(folder / "worker" / "front.key")
    password = before["postgres/password"].decode()
    assert len(password) >= 40
    assert f":{password}@postgres:5432/" in before["worker/postroom_database_url"].decode()
    redis = re.fullmatch(r"requirepass (\S{40,})\n", before["redis/redis.conf"].decode())
    assert redis
    assert f":{redis[1]}@redis:6379/" in before["front/postroom_broker_url"].decode()

    again = make(folder)
    assert again.returncode == 0
    assert "nothing was changed" in again.stdout
    assert contents(folder) == before


@only_root
def test_what_is_lost_is_not_made_anew_beside_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make(folder)
    (folder / "worker" / "private.ring").unlink()
    before = contents(folder)
    refused = make(folder)
    assert refused.returncode == 1
    assert "worker/private.ring" in refused.stderr
    assert "Restore what is lost from its backup" in refused.stderr
    assert contents(folder) == before


def test_another_user_than_root_is_told_what_to_do(tmp_path: Path) -> None:
    code = f"import os, runpy, sys; os.geteuid = lambda: 1000; sys.argv[1] = {str(tmp_path)!r};"
    run = f"{code} runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    refused = subprocess.run([sys.executable, "-c", run, "x"], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "docker compose run --rm keys" in refused.stderr
    assert not list(tmp_path.iterdir())


@only_root
@pytest.mark.skipif(not CLIENT.exists(), reason="the Compose client is not installed (make install)")
def test_every_secret_of_the_compose_file_is_made_for_the_user_of_its_service(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make(folder)
    file = resolved()
    mounted = set()
    for name, service in file["services"].items():
        for each in service.get("secrets", ()):
            inside = Path(file["secrets"][each["source"]]["file"]).relative_to(ROOT / "secrets")
            owner = (folder / inside).stat()
            assert f"{owner.st_uid}:{owner.st_gid}" == service["user"], (name, inside)
            mounted.add(str(inside))
    assert mounted == contents(folder).keys()


def test_neither_git_nor_an_image_gets_them() -> None:
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
    first, *allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] not in {"", "#"}]
    assert first == "*"
    assert not any("secrets" in line for line in allowed)
