"""The vault: what opens sealed boxes, and the key of keyed hashes (design §9).

Three files: the private ring (workers, `keygen` and `vault rotate` alone), the public key (everybody who seals) and
the front's key (front and workers; keyed hashes). Secret files are refused when other users may read them.
"""

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from postroom.config.settings import Settings
from postroom.producer.errors import CannotOpen, KeyUnusable
from postroom.producer.sealing import PrivateKey, PublicKey, Sealer, box_key_id

_PRIVATE_PREFIX = "postroom-private-key-1"
_FRONT_PREFIX = "postroom-front-key-1"


@dataclass(frozen=True)
class Ring:
    """The private keys by id. All open; the last of the file seals."""

    keys: dict[bytes, PrivateKey] = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "Ring":
        """Read the ring.

        Raises:
            KeyUnusable: the file is missing, malformed, or open to other users.
        """
        keys: dict[bytes, PrivateKey] = {}
        for line in _read_secret(path).splitlines():
            private = PrivateKey(X25519PrivateKey.from_private_bytes(_decode(path, line, _PRIVATE_PREFIX)))
            keys[private.public.key_id] = private
        if not keys:
            raise KeyUnusable(f"{path}: holds no key; restore it from its backup")
        return cls(keys)

    @property
    def public(self) -> PublicKey:
        """The public key of the newest private key."""
        return next(reversed(self.keys.values())).public

    def seal(self, plaintext: bytes, identity: bytes) -> bytes:
        """Seal a letter for one identity with the newest key."""
        return self._sealer.seal(plaintext, identity)

    @cached_property
    def _sealer(self) -> Sealer:
        return Sealer(self.public)

    def open(self, box: bytes, identity: bytes) -> bytes:
        """Open a sealed box that was made for exactly this identity.

        Raises:
            NewerBox: a newer release sealed it.
            CannotOpen: sealed with a key not in this ring, for another identity, or changed on the way.
        """
        key_id = box_key_id(box)
        private = self.keys.get(key_id)
        if private is None:
            raise CannotOpen(f"sealed with key {key_id.hex()}, which is not in the private ring (POSTROOM_KEYS_FILE)")
        return private.open(box, identity)


@dataclass(frozen=True, slots=True)
class FrontKey:
    """Key of the keyed hashes of bodies, codes and API keys."""

    secret: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "FrontKey":
        """Read the front's key.

        Raises:
            KeyUnusable: the file is missing, malformed, or open to other users.
        """
        return cls(_decode(path, _read_secret(path).strip(), _FRONT_PREFIX))

    def hash(self, purpose: str, value: bytes) -> bytes:
        """32 bytes that only a holder of the key can compute; each purpose has hashes of its own."""
        return hmac.digest(self.secret, purpose.encode() + b"\0" + value, hashlib.sha256)


def keygen(settings: Settings) -> list[Path]:
    """Make the key files that are missing and leave the others alone.

    Returns:
        The files made, in the order ring, public key, front's key.

    Raises:
        KeyUnusable: an existing key cannot be read, the public key does not belong to the ring, or a file cannot be
            written.
    """
    made = []
    if not settings.ring_file.exists():
        if settings.public_file.exists():
            raise KeyUnusable(
                f"{settings.ring_file}: is missing, and the public key {settings.public_file} belongs to it; what that "
                "sealed could not be opened. Restore the ring from its backup"
            )
        private = X25519PrivateKey.generate()
        write_new(settings.ring_file, _encode(_PRIVATE_PREFIX, private.private_bytes_raw()), 0o600)
        made.append(settings.ring_file)
    ring = Ring.load(settings.ring_file)
    if not settings.public_file.exists():
        write_new(settings.public_file, ring.public.to_text() + "\n", 0o644)
        made.append(settings.public_file)
    elif PublicKey.load(settings.public_file).key_id not in ring.keys:
        raise KeyUnusable(
            f"{settings.public_file}: does not belong to the ring {settings.ring_file}; what it seals could not be "
            "opened. Restore the ring that it belongs to; or, if this ring is the right one, remove the public key, "
            "and `postroom keygen` makes it anew from the ring"
        )
    if not settings.front_file.exists():
        write_new(settings.front_file, _encode(_FRONT_PREFIX, secrets.token_bytes(32)), 0o600)
        made.append(settings.front_file)
    FrontKey.load(settings.front_file)
    return made


def public_key(settings: Settings) -> PublicKey:
    """The public key in force: the setting itself, else its file.

    Raises:
        KeyUnusable: it is missing or malformed.
    """
    return PublicKey.from_text(settings.public_key) if settings.public_key else PublicKey.load(settings.public_file)


def check_secret_mode(path: Path) -> None:
    """Refuse a secret file that is missing or that others than its owner may read.

    Raises:
        KeyUnusable: with the command that mends it.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise KeyUnusable(f"{path}: no such key file; `postroom keygen` makes the keys that are missing") from None
    except OSError as error:
        raise KeyUnusable(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise KeyUnusable(f"{path}: mode {mode:04o} lets other users read it; run: chmod 600 {path}")


def _read_secret(path: Path) -> str:
    check_secret_mode(path)
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnusable(f"{path}: cannot be read: {error}") from None


def _encode(prefix: str, secret: bytes) -> str:
    return f"{prefix} {base64.b64encode(secret).decode()}\n"


def _decode(path: Path, line: str, prefix: str) -> bytes:
    found, _, encoded = line.partition(" ")
    try:
        secret = base64.b64decode(encoded, validate=True)
    except ValueError:
        secret = b""
    if found != prefix or len(secret) != 32:  # noqa: PLR2004 - both kinds are 32 bytes
        raise KeyUnusable(f"{path}: is no {prefix} file; restore it from its backup")
    return secret


def write_new(path: Path, text: str, mode: int) -> None:
    """Write a whole new file or none: a full disk leaves no half of a key behind.

    Raises:
        KeyUnusable: it cannot be written, or is there already.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.link(scratch, path)  # unlike rename, never over a file that appeared meanwhile
    except OSError as error:
        raise KeyUnusable(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
