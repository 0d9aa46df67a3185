"""Every setting of Postroom, typed, with its default; prefix `POSTROOM_`.

Nothing outside this class reads them, save the producer, which must not need pydantic-settings.
"""

import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from postroom.producer import names, surroundings
from postroom.producer.errors import SettingsInvalid

PREFIX: Final = "POSTROOM_"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]

_HELLO_NAME: Final = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[A-Za-z0-9.:]{1,253}\]")
_DATABASES: Final = ("sqlite", "postgres", "postgresql", "postgresql+psycopg")


def _host_and_port(value: str) -> tuple[str, int]:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004 - TCP's port range
        raise ValueError(f"must be host:port, such as 127.0.0.1:5555, not {value!r}")
    return host.strip("[]"), int(port)


def _check_database_url(value: str) -> None:
    """Refuse what no database can be opened by. No message shows the URL: there may be a password in it."""
    scheme, separator, _ = value.partition("://")
    if not separator or scheme not in _DATABASES:
        raise ValueError(
            "must begin with sqlite:/// or postgresql://, such as postgresql+psycopg://user:password@host/name"
        )
    from sqlalchemy import make_url  # noqa: PLC0415 - what is not set is not waited for
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    told = "cannot be read as a URL; in a password @ : / ? # are written %40 %3A %2F %3F %23"
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError(told) from None
    if "@" in (url.host or ""):
        raise ValueError(told)
    if scheme == "sqlite" and url.database in {None, "", ":memory:"}:
        raise ValueError("SQLite needs a file, since several processes share it")


class Settings(BaseSettings):
    """What is in force. `postroom doctor` shows it; secrets are masked there."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = Field(Path("postroom-data"), description="Folder of the embedded Redis, SQLite and the keys.")
    database_url: str | None = Field(None, description="URL of the ledger's database.")
    broker_url: str | None = Field(
        None, description="URL of the Redis of inbox and nudges; TLS: rediss://, with ?ssl_ca_certs=FILE for an own CA."
    )
    redis_fsync: Literal["everysec", "always"] = Field(
        "everysec", description="When the Redis of `up` has a mail on disk: within 2 s, or before `enqueue` returns."
    )
    keys_file: Path | None = Field(None, description="The private ring; workers alone may read it (mode 0600).")
    public_key_file: Path | None = Field(None, description="The public key that producers and the front seal with.")
    public_key: str | None = Field(None, description="The public key itself, instead of its file.")
    front_key_file: Path | None = Field(None, description="The key of keyed hashes; front and workers (mode 0600).")
    system_from: str | None = Field(None, description="Address of the account that mails codes and alerts.")
    flower_bind: str = Field("127.0.0.1:5555", description="Where Flower listens (host:port).")
    flower_auth: SecretStr | None = Field(None, description="user:password for Flower; required off loopback.")
    job_limit_bytes: int = Field(
        10 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="Largest job handed over, in bytes of its JSON."
    )
    smtp_ca_file: Path | None = Field(None, description="Extra CA certificates (PEM) to trust SMTP servers by.")
    smtp_connect_timeout_seconds: Seconds = Field(30, description="For a connection, all addresses of a host together.")
    smtp_tls_timeout_seconds: Seconds = Field(30, description="For the TLS handshake.")
    smtp_greeting_timeout_seconds: Seconds = Field(300, description="For the greeting (RFC 5321 4.5.3.2.1).")
    smtp_command_timeout_seconds: Seconds = Field(300, description="For the reply to EHLO, STARTTLS, AUTH or RSET.")
    smtp_mail_timeout_seconds: Seconds = Field(300, description="For the reply to MAIL (4.5.3.2.2).")
    smtp_rcpt_timeout_seconds: Seconds = Field(300, description="For the reply to each RCPT (4.5.3.2.3).")
    smtp_data_timeout_seconds: Seconds = Field(120, description="For the reply to DATA (4.5.3.2.4).")
    smtp_block_timeout_seconds: Seconds = Field(180, description="For each block of the letter to go out (4.5.3.2.5).")
    smtp_dot_timeout_seconds: Seconds = Field(600, description="For the reply to the final dot (4.5.3.2.6).")
    smtp_quit_timeout_seconds: Seconds = Field(1, description="For the reply to QUIT, on which nothing depends.")
    smtp_hello_name: str | None = Field(None, description="Name said in EHLO.")
    session_idle_seconds: Seconds = Field(20, description="A pooled session unused for so long is closed.")
    session_age_seconds: Seconds = Field(300, description="A pooled session older than this is not used again.")
    lease_seconds: Seconds = Field(60, description="How long a claim lives without a heartbeat.")
    drain_threads: int = Field(256, ge=1, le=1024, description="Lanes that one drain process can serve at once.")
    lifetime_hours: float = Field(
        48, gt=0, le=8760, allow_inf_nan=False, description="How long a mail may try to leave; held time not counted."
    )
    erase_after_days: int = Field(
        90, ge=0, le=3650, description="When a mail's content is erased, in days after its end; 0: within a minute."
    )
    keep_erased_days: int = Field(
        30, ge=1, le=3650, description="How long an erased mail's key, outcome and times are kept; then it is deleted."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="How much the parts tell.")

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_set(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if value != ""}

    @field_validator("data_dir", "keys_file", "public_key_file", "front_key_file", "smtp_ca_file")
    @classmethod
    def _home_is_known(cls, value: Path | None) -> Path | None:
        return None if value is None else value.expanduser()

    @field_validator("database_url")
    @classmethod
    def _database_is_one_of_ours(cls, value: str | None) -> str | None:
        if value is not None:
            _check_database_url(value)
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker_is_redis(cls, value: str | None) -> str | None:
        if value is not None:
            from postroom.producer.broker import celery_url  # noqa: PLC0415

            celery_url(value)
        return value

    @field_validator("public_key")
    @classmethod
    def _public_key_is_one(cls, value: str | None) -> str | None:
        if value is not None:
            from postroom.producer.sealing import PublicKey  # noqa: PLC0415

            PublicKey.from_text(value)
        return value

    @field_validator("system_from")
    @classmethod
    def _system_from_is_an_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from postroom.producer.mail import Address  # noqa: PLC0415

        return Address(address=value).address

    @field_validator("smtp_hello_name")
    @classmethod
    def _hello_name_is_a_name(cls, value: str | None) -> str | None:
        if value is not None and not _HELLO_NAME.fullmatch(value):
            raise ValueError("must be a host name, such as mail.shop.example, or an address in brackets")
        return value

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

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.session_idle_seconds > self.session_age_seconds:
            raise ValueError(
                f"POSTROOM_SESSION_IDLE_SECONDS: {self.session_idle_seconds:g} is more than "
                f"POSTROOM_SESSION_AGE_SECONDS={self.session_age_seconds:g}, at which a session ends anyway; lower it"
            )
        if self.public_key and self.public_key_file:
            raise ValueError("POSTROOM_PUBLIC_KEY: POSTROOM_PUBLIC_KEY_FILE is set as well; unset one of them")
        return self

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite:///{self.sqlite_file}"

    @property
    def sqlite_file(self) -> Path:
        """Where the ledger lies unless a URL says otherwise."""
        return self.data_dir.resolve() / "postroom.db"

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
        problems = [_problem(each) for each in error.errors(include_input=False, include_url=False)]
        raise SettingsInvalid("; ".join(problems)) from None


def _problem(found: Any) -> str:
    """One finding of pydantic in Postroom's words; those about several settings name them themselves."""
    why = str(found["msg"]).removeprefix("Value error, ")
    name = f"{PREFIX}{'_'.join(str(part) for part in found['loc']).upper()}: "
    return why if why.startswith(name) or not found["loc"] else name + why


def _unreadable(error: Exception) -> str:
    cause = error.__cause__ or error
    told = re.search(r"field \"(\w+)\"", str(error))
    name = f"{PREFIX}{told[1].upper()}: " if told else ""
    if isinstance(cause, OSError):
        return f"{name}{cause.filename}: cannot be read: {cause.strerror}"
    if isinstance(cause, UnicodeDecodeError):
        return f"{name or '.env: '}is not UTF-8 text"
    return f"{name}{cause}"
