"""Writes docs/settings.md from the settings themselves: `python -m postroom.config.settings_page docs/settings.md`."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from postroom.config.settings import PREFIX, Settings


@dataclass(frozen=True, slots=True)
class About:
    """What the class does not say of a setting.

    Attributes:
        read_by: the programs that act by it.
        example: a value as it is written in the environment.
        default: in words, where it is made of other settings or found out.
    """

    read_by: str
    example: str
    default: str = ""


_EVERY: Final = "all"
_WORKERS: Final = "workers"
_DRAIN: Final = "`worker drain`"
_SMTP: Final = "`worker drain`, `worker care`"

SECTIONS: Final[Mapping[str, Mapping[str, About]]] = {
    "Places": {
        "data_dir": About("all, `Producer`", "/var/lib/postroom"),
        "database_url": About(
            "all but Flower and the scheduler",
            "postgresql+psycopg://postroom:secret@db.shop.example/postroom",
            "SQLite: `postroom.db` in the data folder",
        ),
        "broker_url": About(
            "all, `Producer`",
            "rediss://:secret@redis.shop.example:6379/0",
            "the Redis of `postroom up`, a socket in the data folder",
        ),
        "redis_fsync": About("`up`", "always"),
    },
    "Keys": {
        "keys_file": About(
            "workers, `keygen`, `up`", "/etc/postroom/private.ring", "`keys/private.ring` in the data folder"
        ),
        "public_key_file": About(
            "the front, `Producer`", "/etc/postroom/public.key", "`keys/public.key` in the data folder"
        ),
        "public_key": About("the front, `Producer`", "postroom-public-key-1 dGhlIGtleSBpdHNlbGY="),
        "front_key_file": About("workers, the front", "/etc/postroom/front.key", "`keys/front.key` in the data folder"),
    },
    "Mail": {
        "system_from": About("workers, the front", "postroom@shop.example"),
        "job_limit_bytes": About("`Producer`, `send`", "20971520"),
        "lifetime_hours": About("`worker accept`", "24"),
        "erase_after_days": About("`worker care`", "30"),
        "keep_erased_days": About("`worker care`", "7"),
    },
    "Watching": {
        "flower_bind": About("`flower`, `up`, `doctor`", "127.0.0.1:5556"),
        "flower_auth": About(
            "`flower`, `up`", "admin:secret", "user `postroom`; its password is made once, in `keys/flower.auth`"
        ),
        "log_level": About("workers, `scheduler`", "WARNING"),
    },
    "SMTP": {
        "smtp_ca_file": About(_SMTP, "/etc/postroom/house-ca.pem", "the system's certificates alone"),
        "smtp_hello_name": About(_SMTP, "mail.shop.example", "this machine's full name"),
        "smtp_connect_timeout_seconds": About(_SMTP, "10"),
        "smtp_tls_timeout_seconds": About(_SMTP, "10"),
        "smtp_greeting_timeout_seconds": About(_SMTP, "120"),
        "smtp_command_timeout_seconds": About(_SMTP, "120"),
        "smtp_mail_timeout_seconds": About(_SMTP, "120"),
        "smtp_rcpt_timeout_seconds": About(_SMTP, "120"),
        "smtp_data_timeout_seconds": About(_SMTP, "60"),
        "smtp_block_timeout_seconds": About(_SMTP, "90"),
        "smtp_dot_timeout_seconds": About(_SMTP, "300"),
        "smtp_quit_timeout_seconds": About(_SMTP, "5"),
        "session_idle_seconds": About(_DRAIN, "10"),
        "session_age_seconds": About(_DRAIN, "120"),
    },
    "Workers": {
        "drain_threads": About(_DRAIN, "64"),
        "lease_seconds": About(_DRAIN, "120"),
    },
}
_FURTHER: Final = "Further settings"
"""Those that no section names yet; a test wants them named."""

_HEAD: Final = """\
# Settings

<!-- Made by `python -m postroom.config.settings_page docs/settings.md`; a test holds it to the code. -->

A setting is said in one of these places; the first that says it counts:

1. a variable of the environment, such as `POSTROOM_BROKER_URL`;
2. `.env` in the current folder, with the same names. A site's `Producer` does not read it: it is the site's own;
3. a file in a folder of secrets, named as the variable in lower case: `postroom_broker_url`. White space around the
   value is cut off. The folder is the one that `POSTROOM_SECRETS_DIR` names (environment alone; `/dev/null`: none);
   else systemd's `CREDENTIALS_DIRECTORY`, then `/run/secrets`, where they are.

An empty value counts as not said. A value that cannot be used is refused with the name of its setting; a `POSTROOM_*`
name that is no setting is told on stderr and has no effect. Paths are relative to the current folder, and `~` is the
user's home: name the data folder by its whole path where programs are started from different folders. In a URL, the
characters `@ : / ? #` of a password are written `%40 %3A %2F %3F %23`. `postroom doctor` shows what is in force and
where it was said. A running program does not see a change: start it anew.
"""


def page() -> str:
    """The whole page, Markdown."""
    named = {field for fields in SECTIONS.values() for field in fields}
    rest = {name: About("", "") for name in Settings.model_fields if name not in named}
    sections = {**SECTIONS, **({_FURTHER: rest} if rest else {})}
    return "\n".join([_HEAD, *(line for title, fields in sections.items() for line in _section(title, fields))])


def _section(title: str, fields: Mapping[str, About]) -> Iterator[str]:
    yield f"## {title}\n"
    for name, about in fields.items():
        field = Settings.model_fields[name]
        yield f"### `{PREFIX}{name.upper()}`\n"
        yield f"{field.description}\n"
        yield f"- type: {_type(field)}"
        yield f"- default: {about.default or _default(field)}"
        if about.read_by:
            yield f"- read by: {about.read_by}"
        if about.example:
            yield f"- example: `{about.example}`"
        yield ""


def _type(field: FieldInfo) -> str:
    kinds = [kind for kind in _kinds(field.annotation) if kind is not NoneType]
    words = [f"`{kind}`" if isinstance(kind, str) else _WORDS.get(kind, kind.__name__) for kind in kinds]
    limits = [
        f"{words} {value:,}"
        for each in field.metadata
        for name, words in _LIMITS.items()
        if (value := getattr(each, name, None)) is not None
    ]
    return ", ".join([" or ".join(words), *limits])


def _kinds(annotation: Any) -> tuple[Any, ...]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    return get_args(annotation) if origin in {UnionType, Literal} else (annotation,)


def _default(field: FieldInfo) -> str:
    return "not set" if field.default is None else f"`{field.default}`"


_WORDS: Final = {Path: "path", str: "text", SecretStr: "text, a secret", int: "whole number", float: "number"}
_LIMITS: Final = {"gt": "more than", "ge": "at least", "le": "at most"}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
