"""What the doctor looks at on this machine's disk: settings, data folder and keys.

A check gives findings and changes nothing: no file is made, and the private ring is not opened.
"""

import os
import shutil
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from postroom.config import settings_sources
from postroom.config.settings import Settings
from postroom.config.vault import FrontKey, check_secret_mode, public_key
from postroom.producer.errors import KeyUnusable

_LEAST_FREE_BYTES: Final = 500 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether something is as it must be, what was found, and what to do about it."""

    ok: bool
    message: str
    action: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked at once.

    Attributes:
        names: of the checks that the answer is about, one finding each.
        action: what to do if there is no answer at all.
    """

    names: tuple[str, ...]
    ask: Callable[[Settings], tuple[Finding, ...]]
    action: str


def one(name: str, ask: Callable[[Settings], Finding], action: str) -> Question:
    """A question about one check."""
    return Question((name,), lambda settings: (ask(settings),), action)


def settings_known(settings: Settings) -> Finding:  # noqa: ARG001 - it asks for what is not among them
    """Whether every POSTROOM_* name is a setting. A wrong name only warns: it may be meant for another release."""
    unknown = settings_sources.unknown()
    if unknown:
        return Finding(True, "; ".join(unknown), "Correct or remove it")
    return Finding(True, "every POSTROOM_* name is a setting")


def ca_file(settings: Settings) -> Finding:
    """Whether the extra CA certificates can be read."""
    if settings.smtp_ca_file is None:
        return Finding(True, "the system's CA certificates alone")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.smtp_ca_file)
    except OSError as error:
        action = "Set POSTROOM_SMTP_CA_FILE to a file of PEM certificates that the workers may read"
        return Finding(False, f"{settings.smtp_ca_file}: {error.strerror or error}", action)
    return Finding(True, f"the system's CA certificates and {settings.smtp_ca_file}")


def data_folder(settings: Settings) -> Finding:
    """Whether the data folder is there and may be written."""
    folder = settings.data_dir.resolve()
    if not folder.exists():
        return Finding(
            False, f"{folder}: is not there", "Start `postroom up`, which makes it, or set POSTROOM_DATA_DIR"
        )
    if not folder.is_dir() or not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        action = "Let this user write there, or set POSTROOM_DATA_DIR to another folder"
        return Finding(False, f"{folder}: is no folder that this user may write", action)
    return Finding(True, str(folder))


def disk_space(settings: Settings) -> Finding:
    """Whether the disk of the data folder has room: a full one stops the inbox and the ledger."""
    folder = settings.data_dir.resolve()
    there = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(there).free
    message = f"{free / 1024**2:,.0f} MiB free at {there}"
    if free < _LEAST_FREE_BYTES:
        return Finding(False, message, f"Make room: at least {_LEAST_FREE_BYTES // 1024**2} MiB")
    return Finding(True, message)


def private_ring(settings: Settings) -> Finding:
    """Whether the private ring is there and closed to others, by its name and mode alone."""
    path = settings.ring_file.resolve()
    try:
        path.stat()
    except PermissionError:
        return Finding(True, f"{path}: not for this user to see, as it should be where workers run as another one")
    except OSError:
        action = "Restore it from its backup; if this is a new installation, run `postroom keygen`"
        return Finding(False, f"{path}: is not there", action)
    try:
        check_secret_mode(path)
    except KeyUnusable as error:
        return Finding(False, str(error), f"Run: chmod 600 {path}")
    return Finding(True, f"{path}, {_mode(path)}; not opened")


def the_public_key(settings: Settings) -> Finding:
    """Whether producers and front have the key that they seal with."""
    where = "POSTROOM_PUBLIC_KEY" if settings.public_key else str(settings.public_file.resolve())
    try:
        key = public_key(settings)
    except KeyUnusable as error:
        return Finding(
            False, str(error), "Run `postroom keygen` where the private ring is, and give its public key here"
        )
    return Finding(True, f"{where}, key {key.key_id.hex()}")


def front_key(settings: Settings) -> Finding:
    """Whether the front's key is there, whole and closed to others."""
    path = settings.front_file.resolve()
    try:
        FrontKey.load(path)
    except KeyUnusable as error:
        mend = f"chmod 600 {path}" if path.exists() else "postroom keygen"
        return Finding(False, str(error), f"Run: {mend}")
    return Finding(True, f"{path}, {_mode(path)}")


def _mode(path: Path) -> str:
    return f"mode {stat.S_IMODE(path.stat().st_mode):04o}"
