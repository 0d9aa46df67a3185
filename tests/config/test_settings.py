"""Settings come from the environment, and a wrong one is named without showing a secret."""

from collections.abc import Callable
from pathlib import Path

import pytest

from postroom.config import settings
from postroom.producer.errors import SettingsInvalid


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_lie_in_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_DATA_DIR", str(tmp_path))
    found = settings.load()
    assert found.database == f"sqlite:///{tmp_path}/postroom.db"
    assert found.broker.startswith("redis+socket:///")
    assert found.ring_file == tmp_path / "keys" / "private.ring"


def test_a_dotenv_file_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("POSTROOM_LEASE_SECONDS=7\nOTHER=1\n")
    assert settings.load().lease_seconds == 7


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("POSTROOM_FLOWER_BIND", "5555", "host:port"),
        ("POSTROOM_FLOWER_BIND", "localhost:99999", "host:port"),
        ("POSTROOM_FLOWER_AUTH", "nopassword", "user:password"),
        ("POSTROOM_LEASE_SECONDS", "-1", "greater than 0"),
        ("POSTROOM_DRAIN_THREADS", "many", "valid integer"),
        ("POSTROOM_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        settings.load()
    assert name in str(refused.value)
    assert words in str(refused.value)


def test_a_secret_is_not_shown_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_FLOWER_AUTH", "s3cret-without-user")
    with pytest.raises(SettingsInvalid) as refused:
        settings.load()
    assert "s3cret" not in str(refused.value)


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    monkeypatch.setenv("POSTROOM_SECRETS_DIR", str(folder))
    return folder


def test_secrets_may_be_files(secrets: Path) -> None:
    (secrets / "postroom_flower_auth").write_text("me:s3cret\n")
    (secrets / "postroom_database_url").write_text("")
    found = settings.load()
    assert found.flower_auth is not None
    assert found.flower_auth.get_secret_value() == "me:s3cret"
    assert found.database_url is None


def test_the_environment_goes_before_dotenv_and_that_before_secrets(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (secrets / "postroom_lease_seconds").write_text("1")
    assert settings.load().lease_seconds == 1
    (tmp_path / ".env").write_text("POSTROOM_LEASE_SECONDS=2\n")
    assert settings.load().lease_seconds == 2
    monkeypatch.setenv("POSTROOM_LEASE_SECONDS", "3")
    assert settings.load().lease_seconds == 3
    monkeypatch.setenv("POSTROOM_LEASE_SECONDS", "")
    assert settings.load().lease_seconds == 2


def test_systemds_credentials_are_read_unless_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "postroom_broker_url").write_text("redis://by-systemd/0")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert settings.load().broker_url == "redis://by-systemd/0"
    monkeypatch.setenv("POSTROOM_SECRETS_DIR", "/dev/null")
    assert settings.load().broker_url is None


def test_a_named_folder_of_secrets_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_SECRETS_DIR", str(tmp_path / "none"))
    with pytest.raises(SettingsInvalid, match=r"POSTROOM_SECRETS_DIR: .*none is no folder that this user can read"):
        settings.load()


def _folder(file: Path) -> None:
    file.mkdir()


def _not_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")


def _outside(file: Path) -> None:
    file.symlink_to("/etc/hostname")


@pytest.mark.parametrize("spoil", [_folder, _not_text, _outside])
def test_a_secret_that_cannot_be_read_is_named(spoil: Callable[[Path], None], secrets: Path) -> None:
    spoil(secrets / "postroom_flower_auth")
    with pytest.raises(SettingsInvalid, match="POSTROOM_FLOWER_AUTH: "):
        settings.load()
