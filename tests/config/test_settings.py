"""Settings come from the environment, and a wrong one is named without showing a secret."""

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
