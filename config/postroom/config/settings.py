"""Every setting of Postroom, typed, with its default; prefix `POSTROOM_`.

Nothing outside this class reads them, save the producer, which must not need pydantic-settings.
"""

import re
import warnings
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from postroom.producer import names, surroundings
from postroom.producer.errors import SettingsInvalid


def _host_and_port(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 - TCP's port range
        raise ValueError(f"must be host:port, such as 127.0.0.1:5555, not {value!r}")
    return host.strip("[]"), int(port)


class Settings(BaseSettings):
    """What is in force. `postroom doctor` shows it; secrets are masked there."""

    model_config = SettingsConfigDict(
        env_prefix="POSTROOM_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = Field(Path("postroom-data"), description="Folder of the embedded Redis, SQLite and the keys.")
    database_url: str | None = Field(None, description="SQLAlchemy URL. Default: SQLite in the data folder.")
    broker_url: str | None = Field(None, description="Redis URL. Default: the Redis that `postroom up` keeps.")
    keys_file: Path | None = Field(None, description="The private ring; workers alone may read it (mode 0600).")
    public_key_file: Path | None = Field(None, description="The public key that producers and the front seal with.")
    public_key: str | None = Field(None, description="The public key itself, instead of its file.")
    front_key_file: Path | None = Field(None, description="The key of keyed hashes; front and workers (mode 0600).")
    system_from: str | None = Field(None, description="Address of the account that mails codes and alerts.")
    flower_bind: str = Field("127.0.0.1:5555", description="Where Flower listens (host:port).")
    flower_auth: SecretStr | None = Field(None, description="user:password for Flower; required off loopback.")
    job_limit_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="Largest job taken, in bytes of its JSON.")
    smtp_ca_file: Path | None = Field(None, description="Extra CA certificates (PEM) to trust SMTP servers by.")
    smtp_connect_timeout_seconds: float = Field(30, gt=0, description="For one TCP connection and for TLS.")
    smtp_command_timeout_seconds: float = Field(300, gt=0, description="For a reply to a command (RFC 5321 4.5.3.2).")
    smtp_dot_timeout_seconds: float = Field(600, gt=0, description="For the reply to the final dot (4.5.3.2.6).")
    smtp_hello_name: str | None = Field(None, description="Name said in EHLO. Default: this machine's full name.")
    session_idle_seconds: float = Field(20, gt=0, description="A pooled session unused for so long is closed.")
    session_age_seconds: float = Field(300, gt=0, description="A pooled session older than this is not used again.")
    lease_seconds: float = Field(60, gt=0, description="How long a claim lives without a heartbeat.")
    drain_threads: int = Field(256, ge=1, le=1024, description="Lanes that one drain process can serve at once.")
    lifetime_hours: float = Field(48, gt=0, description="How long a mail may try to leave; held time not counted.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much the parts tell.")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_set(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value != ""}

    @field_validator("flower_bind")
    @classmethod
    def _bind_is_host_and_port(cls, value: str) -> str:
        _host_and_port(value)
        return value

    @field_validator("flower_auth")
    @classmethod
    def _auth_is_user_and_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            user, _, password = value.get_secret_value().partition(":")
            if not user or not password:
                raise ValueError("must be user:password")
        return value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'postroom.db'}"

    @property
    def broker(self) -> str:
        """The Redis URL in force, in kombu's spelling."""
        return self.broker_url or names.local_broker_url(self.data_dir)

    @property
    def ring_file(self) -> Path:
        """Where the private ring lies."""
        return self.keys_file or self.data_dir / "keys" / "private.ring"

    @property
    def public_file(self) -> Path:
        """Where the public key lies."""
        return self.public_key_file or self.data_dir / names.PUBLIC_KEY_IN_DATA_DIR

    @property
    def front_file(self) -> Path:
        """Where the front's key lies."""
        return self.front_key_file or self.data_dir / "keys" / "front.key"

    @property
    def flower_address(self) -> tuple[str, int]:
        """Host and port that Flower listens on."""
        return _host_and_port(self.flower_bind)


def load() -> Settings:
    """Read the settings: environment, else `.env`, else the folder of secrets.

    Raises:
        SettingsInvalid: a value or a file cannot be used; the message names it and never shows a secret.
    """
    try:
        with warnings.catch_warnings(action="error", category=UserWarning):  # such as a secret's file that is a folder
            return Settings(_secrets_dir=surroundings.secrets_folders())
    except (SettingsError, OSError, UnicodeDecodeError) as error:
        raise SettingsInvalid(_unreadable(error)) from None
    except ValidationError as error:
        problems = "; ".join(
            f"POSTROOM_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False, include_url=False)
        )
        raise SettingsInvalid(problems) from None


def _unreadable(error: Exception) -> str:
    cause = error.__cause__ or error
    told = re.search(r"field \"(\w+)\"", str(error))
    name = f"POSTROOM_{told[1].upper()}: " if told else ""
    if isinstance(cause, OSError):
        return f"{name}{cause.filename}: cannot be read: {cause.strerror}"
    if isinstance(cause, UnicodeDecodeError):
        return f"{name or '.env: '}is not UTF-8 text"
    return f"{name}{cause}"
