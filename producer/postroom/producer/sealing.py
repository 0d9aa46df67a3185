"""Sealed boxes: anybody with the public key seals, only a holder of the private key opens.

An ephemeral X25519 key (RFC 7748) agrees on a secret with the public key; HKDF-SHA256 (RFC 5869) makes an AES-256-GCM
key and nonce of it, which are used once. The *identity* is associated data: it says what the box is and to which row or
destination it belongs, and a box that was moved does not open.

    box = "PR1" | key id (8) | ephemeral public key (32) | ciphertext and tag
"""

import base64
import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from postroom.producer.errors import CannotOpen, KeyUnusable

_MAGIC: Final = b"PR1"
_KEY_ID_BYTES: Final = 8
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_BYTES: Final = len(_MAGIC) + _KEY_ID_BYTES + _KEY_BYTES
_INFO: Final = b"postroom sealed box 1"
_PREFIX: Final = "postroom-public-key-1"


@dataclass(frozen=True)
class PublicKey:
    """The key that seals."""

    raw: bytes = field(repr=False)

    @classmethod
    def of(cls, private: X25519PrivateKey) -> Self:
        """The public key that belongs to a private one."""
        return cls(private.public_key().public_bytes_raw())

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Read its text form.

        Raises:
            KeyUnusable: it is no public key.
        """
        prefix, _, encoded = text.strip().partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(raw))
        except ValueError:  # also a point of small order, with which no secret can be agreed (RFC 7748 §6.1)
            raw = b""
        if prefix != _PREFIX or len(raw) != _KEY_BYTES:
            raise KeyUnusable(f"is no public key of Postroom (one line: {_PREFIX} …); `postroom keygen` makes one")
        return cls(raw)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it from its file.

        Raises:
            KeyUnusable: the file is missing or holds no public key.
        """
        try:
            return cls.from_text(path.read_text("ascii"))
        except FileNotFoundError:
            raise KeyUnusable(
                f"{path}: no such public key file; `postroom up` or `postroom keygen` makes it, and "
                "POSTROOM_PUBLIC_KEY_FILE or POSTROOM_DATA_DIR says where it is"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no text"
            raise KeyUnusable(f"{path}: cannot be read: {why}; producers need to read it (mode 0644)") from None
        except KeyUnusable as error:
            raise KeyUnusable(f"{path}: {error}") from None

    @cached_property
    def key_id(self) -> bytes:
        """8 bytes that tell this key from others."""
        return hashlib.sha256(self.raw).digest()[:_KEY_ID_BYTES]

    def to_text(self) -> str:
        """Its text form, one line."""
        return f"{_PREFIX} {base64.b64encode(self.raw).decode()}"

    def seal(self, plaintext: bytes, identity: bytes) -> bytes:
        """Seal for one identity. Each call makes another box."""
        ephemeral = X25519PrivateKey.generate()
        ephemeral_public = ephemeral.public_key().public_bytes_raw()
        key, nonce = _key_and_nonce(ephemeral.exchange(self._key), ephemeral_public, self.raw)
        header = _MAGIC + self.key_id + ephemeral_public
        return header + AESGCM(key).encrypt(nonce, plaintext, header + identity)

    @cached_property
    def _key(self) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.raw)


def box_key_id(box: bytes) -> bytes:
    """Id of the key that a box was sealed with.

    Raises:
        CannotOpen: it is no sealed box.
    """
    if not box.startswith(_MAGIC) or len(box) < _HEADER_BYTES + _TAG_BYTES:
        raise CannotOpen("is no sealed box")
    return box[len(_MAGIC) : len(_MAGIC) + _KEY_ID_BYTES]


def open_box(private: X25519PrivateKey, box: bytes, identity: bytes) -> bytes:
    """Open a box that was sealed for this identity with the public key of `private`.

    Raises:
        CannotOpen: another key, another identity, or changed on the way.
    """
    box_key_id(box)
    header, ciphertext = box[:_HEADER_BYTES], box[_HEADER_BYTES:]
    ephemeral_public = header[-_KEY_BYTES:]
    try:
        secret = private.exchange(X25519PublicKey.from_public_bytes(ephemeral_public))
        key, nonce = _key_and_nonce(secret, ephemeral_public, PublicKey.of(private).raw)
        return AESGCM(key).decrypt(nonce, ciphertext, header + identity)
    except (InvalidTag, ValueError):
        raise CannotOpen("does not open: sealed for something else, or changed since") from None


def _key_and_nonce(secret: bytes, ephemeral_public: bytes, public: bytes) -> tuple[bytes, bytes]:
    derived = HKDF(SHA256(), _KEY_BYTES + _NONCE_BYTES, ephemeral_public + public, _INFO).derive(secret)
    return derived[:_KEY_BYTES], derived[_KEY_BYTES:]
