"""Settings come from the environment, and a wrong one is named without showing a secret."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from postroom.config import settings, settings_page, settings_sources
from postroom.producer.errors import SettingsInvalid
from postroom.producer.sealing import PublicKey


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
        ("POSTROOM_LEASE_SECONDS", "nan", "finite number"),
        ("POSTROOM_LEASE_SECONDS", "60000000", "less than or equal to 86400"),
        ("POSTROOM_LIFETIME_HOURS", "inf", "finite number"),
        ("POSTROOM_JOB_LIMIT_BYTES", "10MiB", "valid integer"),
        ("POSTROOM_ERASE_AFTER_DAYS", "-1", "greater than or equal to 0"),
        ("POSTROOM_ERASE_AFTER_DAYS", "never", "valid integer"),
        ("POSTROOM_KEEP_ERASED_DAYS", "0", "greater than or equal to 1"),
        ("POSTROOM_DATABASE_URL", "mysql://root:s3cret@h/x", "must begin with sqlite:/// or postgresql://"),
        ("POSTROOM_DATABASE_URL", "postgresql+asyncpg://u:s3cret@h/x", "must begin with"),
        ("POSTROOM_DATABASE_URL", "postgresql://u:s3cret@h:port/x", "cannot be read as a URL"),
        ("POSTROOM_DATABASE_URL", "postgresql://u:half@s3cret@h/x", "cannot be read as a URL; in a password"),
        ("POSTROOM_DATABASE_URL", "sqlite://", "SQLite needs a file"),
        ("POSTROOM_BROKER_URL", "amqp://u:s3cret@h", "must begin with redis://"),
        ("POSTROOM_BROKER_URL", "redis://u:s3/cret@h", "host or port cannot be read; in a password"),
        ("POSTROOM_PUBLIC_KEY", "s3cret", "is no public key of Postroom"),
        ("POSTROOM_SYSTEM_FROM", "nobody", "is no e-mail address"),
        ("POSTROOM_SMTP_HELLO_NAME", "mail.shop.example\r\nRSET", "must be a host name"),
    ],
)
def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsInvalid) as refused:
        settings.load()
    assert str(refused.value).startswith(f"{name}: ")
    assert str(refused.value).count(name) == 1
    assert words in str(refused.value)
    assert "s3cret" not in str(refused.value)


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


def test_the_page_of_all_settings_is_true() -> None:
    """If it is not, run: python -m postroom.config.settings_page docs/settings.md."""
    assert settings_page.page() == Path(__file__, "../../../docs/settings.md").resolve().read_text("utf-8")
    assert "Further settings" not in settings_page.page(), "name its section, its readers and an example"


def test_each_example_of_the_page_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = PublicKey.of(X25519PrivateKey.generate()).to_text()
    for fields in settings_page.SECTIONS.values():
        for name, about in fields.items():
            with monkeypatch.context() as one:
                one.setenv(f"POSTROOM_{name.upper()}", key if name == "public_key" else about.example)
                settings.load()


def test_what_is_no_setting_is_told_with_the_one_that_was_meant(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_sources.unknown() == []
    monkeypatch.setenv("POSTROOM_BROKR_URL", "redis://:s3cret@h/0")
    monkeypatch.setenv("POSTROOM_TEST_SOMETHING", "1")
    (tmp_path / ".env").write_text("POSTROOM_SECRETS_DIR=/x\nPOSTROOM_LOG_LEVEL=INFO\nOTHER=1\nPOSTROOM_QWXYZ=1\n")
    (secrets / "postroom_flower_aut").write_text("a:b")
    (secrets / "another").write_text("a:b")
    assert settings_sources.unknown() == [
        "POSTROOM_BROKR_URL (environment) is no setting and has no effect; did you mean POSTROOM_BROKER_URL?",
        f"postroom_flower_aut ({secrets}) is no setting and has no effect; did you mean POSTROOM_FLOWER_AUTH?",
        "POSTROOM_QWXYZ (.env) is no setting and has no effect",
        "POSTROOM_SECRETS_DIR (.env) is read from the environment alone",
    ]


def test_the_doctor_can_say_where_a_value_was_said(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LEASE_SECONDS", "70")
    monkeypatch.setenv("POSTROOM_LOG_LEVEL", "")
    (tmp_path / ".env").write_text("POSTROOM_LEASE_SECONDS=71\nPOSTROOM_DRAIN_THREADS=3\n")
    for name in ("postroom_lease_seconds", "postroom_lifetime_hours"):
        (secrets / name).write_text("72")
    assert settings_sources.origins() == {
        "lease_seconds": "environment",
        "drain_threads": ".env",
        "lifetime_hours": str(secrets),
    }


def test_paths_know_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_KEYS_FILE", "~/private.ring")
    assert settings.load().ring_file == Path.home() / "private.ring"


def test_settings_that_disagree_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_SESSION_IDLE_SECONDS", "301")
    with pytest.raises(SettingsInvalid, match=r"^POSTROOM_SESSION_IDLE_SECONDS: 301 is more than .*=300, .* lower it$"):
        settings.load()
    monkeypatch.delenv("POSTROOM_SESSION_IDLE_SECONDS")
    monkeypatch.setenv("POSTROOM_PUBLIC_KEY", PublicKey.of(X25519PrivateKey.generate()).to_text())
    monkeypatch.setenv("POSTROOM_PUBLIC_KEY_FILE", "public.key")
    with pytest.raises(SettingsInvalid, match=r"^POSTROOM_PUBLIC_KEY: POSTROOM_PUBLIC_KEY_FILE is set as well"):
        settings.load()
