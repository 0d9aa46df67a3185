"""POSTROOM_SMTP_CA_FILE is followed: a new CA is trusted by new connections, without a restart."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from postroom.config.settings import Settings
from postroom.config.states import Security
from postroom.worker import following
from postroom.worker.process import Process
from postroom.worker.smtp.session import OpenFailed, Session
from servers.certificates import Certificates
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import SMTP_TIMEOUTS, account
from worker.conftest import NotedNudges

Trusts = Callable[[], bool]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The CA whose certificate the server shows."""
    return Certificates(tmp_path_factory.mktemp("after"))


@pytest.fixture
def ca_file(tmp_path: Path, before: Certificates) -> Path:
    return Path(shutil.copy(before.ca_file, tmp_path / "house-ca.pem"))


@pytest.fixture
def process(tmp_path: Path, ca_file: Path) -> Iterator[Process]:
    process = Process(Settings(_env_file=None, data_dir=tmp_path, smtp_ca_file=ca_file, **SMTP_TIMEOUTS), NotedNudges())
    yield process
    process.close()


@pytest.fixture
def trusts(process: Process, after: Certificates) -> Iterator[Trusts]:
    """Whether the worker's next connection goes on past TLS."""
    with ScriptedSMTP(certificate=after.good, implicit_tls=True) as server:

        def tries() -> bool:
            try:
                Session.open(account(server, security=Security.TLS), process.client).close()
            except OpenFailed as error:
                return error.step != "tls"
            return True

        yield tries


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker looks at the file whenever it connects."""
    monkeypatch.setattr(following, "_LOOK_SECONDS", 0)


def replace_whole(file: Path, content: bytes) -> None:
    new = file.with_suffix(".new")
    new.write_bytes(content)
    new.replace(file)


def swap_folder(file: Path, content: bytes) -> None:
    """As Kubernetes changes a secret: the file stays a link into a folder, which is a link that changes."""
    folder = file.with_name(f"folder-{uuid4().hex}")
    folder.mkdir()
    (folder / file.name).write_bytes(content)
    new, data = file.with_name("new"), file.with_name("data")
    new.symlink_to(folder)
    new.replace(data)
    if not file.is_symlink():
        file.unlink()
        file.symlink_to(data / file.name)


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize("write", [Path.write_bytes, replace_whole, swap_folder], ids=["in place", "replaced", "link"])
def test_a_changed_file_is_trusted_by_new_connections_and_its_old_ca_no_more(
    trusts: Trusts, ca_file: Path, before: Certificates, after: Certificates, write: Callable[[Path, bytes], object]
) -> None:
    assert not trusts()
    write(ca_file, after.ca_file.read_bytes())
    assert trusts()
    assert trusts()
    write(ca_file, before.ca_file.read_bytes())
    assert not trusts()


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize(
    "spoil", [Path.unlink, lambda file: file.write_bytes(b"half a certif")], ids=["gone", "broken"]
)
def test_a_file_that_cannot_be_used_leaves_what_was_there_and_is_told_once(
    trusts: Trusts, ca_file: Path, after: Certificates, spoil: Callable[[Path], object]
) -> None:
    shutil.copy(after.ca_file, ca_file)
    assert trusts()
    spoil(ca_file)
    with capture_logs() as logs:
        assert trusts()
        assert trusts()
    [told] = logs
    assert told["log_level"] == "warning"
    assert told["why"].startswith(f"POSTROOM_SMTP_CA_FILE: {ca_file}: ")
    shutil.copy(after.ca_file, ca_file)
    with capture_logs() as logs:
        assert trusts()
    assert [each["log_level"] for each in logs] == ["info"]


def test_the_file_is_looked_at_every_few_seconds_and_the_context_kept(
    process: Process, ca_file: Path, after: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(following, "time", SimpleNamespace(monotonic=lambda: now))
    first = process.client
    shutil.copy(after.ca_file, ca_file)
    assert process.client is first
    now += 3
    second = process.client
    assert second.tls is not first.tls
    now += 3
    assert process.client is second
