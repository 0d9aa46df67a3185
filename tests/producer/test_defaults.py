"""What a producer is not told it takes from the environment, and then from the data folder."""

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from postroom.producer import BrokerUnavailable, InvalidMail, KeyUnusable, Mail, MailTooLarge, Producer, SettingsInvalid
from postroom.producer.names import INBOX, QUEUE_ACCEPT, inbox_identity, local_broker_url, local_redis_socket
from postroom.producer.sealing import PublicKey, open_box
from servers.redis_server import RedisServer

Make = Callable[..., Mail]


@pytest.fixture
def data_dir(public_key: PublicKey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder as `postroom up` leaves it, known by its setting. Its path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="postroom-data-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "keys").mkdir()
        (folder / "keys" / "public.key").write_text(public_key.to_text() + "\n")
        monkeypatch.setenv("POSTROOM_DATA_DIR", name)
        yield folder


def key_that_sealed(server: RedisServer, mail: Mail, *known: X25519PrivateKey) -> X25519PrivateKey:
    with server.client() as client:
        box = client.hget(INBOX, str(mail.id))
    assert isinstance(box, bytes)
    (key,) = (each for each in known if PublicKey.of(each).key_id == box[3:11])
    assert open_box(key, box, inbox_identity(mail.id)) == mail.to_job()
    return key


def test_a_producer_needs_no_word_where_up_runs(
    redis_server: RedisServer, data_dir: Path, private_key: X25519PrivateKey, make: Make
) -> None:
    local_redis_socket(data_dir).parent.mkdir(parents=True)
    local_redis_socket(data_dir).symlink_to(redis_server.socket)
    mail = make()
    with Producer() as producer:
        producer.enqueue(mail)
    assert key_that_sealed(redis_server, mail, private_key)
    with redis_server.client() as client:
        assert client.llen(QUEUE_ACCEPT) == 1


def test_the_data_folder_is_beside_us_unless_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyUnusable, match=r"postroom-data/keys/public\.key: no such"):
        Producer()
    key = PublicKey.of(X25519PrivateKey.generate()).to_text()
    with (
        Producer(public_key=key) as producer,
        pytest.raises(BrokerUnavailable, match=f"{local_redis_socket(Path('postroom-data'))}"),
    ):
        producer.enqueue(make())


def test_the_broker_is_the_one_given_then_the_setting(
    redis_server: RedisServer, data_dir: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setenv("POSTROOM_BROKER_URL", redis_server.url)
    with Producer() as producer:
        producer.enqueue(make())
    monkeypatch.setenv("POSTROOM_BROKER_URL", f"redis+socket://{data_dir}/none.sock")
    with Producer(redis_server.url) as producer:
        producer.enqueue(make())
    with redis_server.client() as client:
        assert client.hlen(INBOX) == 2


def test_the_key_is_the_one_given_then_its_setting_then_its_file_then_the_folders(
    redis_server: RedisServer,
    data_dir: Path,
    private_key: X25519PrivateKey,
    monkeypatch: pytest.MonkeyPatch,
    make: Make,
) -> None:
    in_file, in_setting, given = (X25519PrivateKey.generate() for _ in range(3))
    file = data_dir / "other.key"

    def sealed_with(key: PublicKey | str | Path | None = None) -> X25519PrivateKey:
        mail = make()
        with Producer(redis_server.url, public_key=key) as producer:
            producer.enqueue(mail)
        return key_that_sealed(redis_server, mail, private_key, in_file, in_setting, given)

    assert sealed_with() is private_key
    file.write_text(PublicKey.of(in_file).to_text())
    monkeypatch.setenv("POSTROOM_PUBLIC_KEY_FILE", str(file))
    assert sealed_with() is in_file
    monkeypatch.setenv("POSTROOM_PUBLIC_KEY", PublicKey.of(in_setting).to_text())
    assert sealed_with() is in_setting
    assert sealed_with(PublicKey.of(given)) is given
    assert sealed_with(PublicKey.of(given).to_text()) is given
    file.write_text(PublicKey.of(given).to_text())
    assert sealed_with(file) is given


@pytest.mark.parametrize(
    ("setting", "value", "error", "words"),
    [
        ("PUBLIC_KEY", "postroom-public-key-1 AAAA", KeyUnusable, "POSTROOM_PUBLIC_KEY: is no public key"),
        ("PUBLIC_KEY_FILE", "/none/public.key", KeyUnusable, "/none/public.key: no such public key file"),
        ("DATA_DIR", "/none", KeyUnusable, "/none/keys/public.key: no such public key file"),
        ("BROKER_URL", "amqp://localhost", SettingsInvalid, "POSTROOM_BROKER_URL: must begin with redis://"),
        ("JOB_LIMIT_BYTES", "10MiB", SettingsInvalid, "must be a number of bytes, not '10MiB'"),
        ("JOB_LIMIT_BYTES", "-1", SettingsInvalid, "POSTROOM_JOB_LIMIT_BYTES: must be a number"),
        ("JOB_LIMIT_BYTES", "²", SettingsInvalid, "POSTROOM_JOB_LIMIT_BYTES: must be a number"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_when_the_producer_is_made(
    data_dir: Path, setting: str, value: str, error: type[ValueError], words: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"POSTROOM_{setting}", value)
        with pytest.raises(error) as refused:
            Producer()
    assert words in str(refused.value)
    assert "POSTROOM_" in str(refused.value)


def test_settings_that_are_empty_are_not_set(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER_URL", "PUBLIC_KEY", "PUBLIC_KEY_FILE", "JOB_LIMIT_BYTES"):
        monkeypatch.setenv(f"POSTROOM_{name}", "")
    Producer().close()


def test_a_key_given_as_what_it_is_not(public_key: PublicKey) -> None:
    with pytest.raises(KeyUnusable, match="public_key: is no public key"):
        Producer(public_key="keys/public.key")


@pytest.mark.parametrize("name", ["", "a b", "site\n", "x" * 65])
def test_a_name_that_cannot_be_one_is_refused(public_key: PublicKey, name: str) -> None:
    with pytest.raises(InvalidMail, match="producer: must be 1 to 64"):
        Producer(name=name, public_key=public_key)


def test_the_size_limit_is_ten_mebibytes_unless_set(
    redis_server: RedisServer, public_key: PublicKey, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    with Producer(redis_server.url, public_key=public_key) as producer:
        producer.enqueue(make(text="x" * (10 * 1024**2 - 1000)))
        with pytest.raises(MailTooLarge, match="10,485,760"):
            producer.enqueue(make(text="x" * 10 * 1024**2))
    monkeypatch.setenv("POSTROOM_JOB_LIMIT_BYTES", "1000")
    with Producer(redis_server.url, public_key=public_key) as producer, pytest.raises(MailTooLarge, match="1,000"):
        producer.enqueue(make(text="x" * 1000))
    with Producer(redis_server.url, public_key=public_key, job_limit_bytes=2000) as producer:
        producer.enqueue(make(text="x" * 1000))


def test_a_folder_too_deep_for_a_socket_has_one_elsewhere(tmp_path: Path) -> None:
    deep, deeper = tmp_path / ("d" * 100), tmp_path / ("e" * 100)
    assert local_redis_socket(Path("/srv/mail")) == Path("/srv/mail/redis/redis.sock")
    assert len(os.fsencode(local_redis_socket(deep))) <= 100
    assert local_redis_socket(deep) == local_redis_socket(tmp_path / "x" / ".." / ("d" * 100))
    assert local_redis_socket(deep) != local_redis_socket(deeper)
    assert local_broker_url(deep) == f"redis+socket://{local_redis_socket(deep)}"


def test_secrets_may_be_files(
    redis_server: RedisServer, public_key: PublicKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    (tmp_path / "postroom_broker_url").write_text(f"{redis_server.url}\n")
    (tmp_path / "postroom_public_key").write_text(f"{public_key.to_text()}\n")
    (tmp_path / "postroom_job_limit_bytes").write_text("2000\n")
    monkeypatch.setenv("POSTROOM_SECRETS_DIR", str(tmp_path))
    with Producer() as producer:
        producer.enqueue(make())
        with pytest.raises(MailTooLarge, match="2,000"):
            producer.enqueue(make(text="x" * 2000))
    monkeypatch.setenv("POSTROOM_BROKER_URL", "amqp://localhost")  # goes before the file
    with pytest.raises(SettingsInvalid, match="must begin with redis"):
        Producer()


@pytest.mark.parametrize(
    ("folder", "words"),
    [("none", "POSTROOM_SECRETS_DIR: .* is no folder"), ("", "POSTROOM_BROKER_URL: .* cannot be read: is no text")],
)
def test_a_folder_of_secrets_that_cannot_be_read_is_named(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, words: str
) -> None:
    (tmp_path / "postroom_broker_url").write_bytes(b"\xff")
    monkeypatch.setenv("POSTROOM_SECRETS_DIR", str(tmp_path / folder))
    with pytest.raises(SettingsInvalid, match=words):
        Producer()
