"""Sealed boxes: anybody with the public key seals, only a holder of the private key opens.

An ephemeral X25519 key (RFC 7748) agrees on a secret with the public key; HKDF-SHA256 (RFC 5869) makes an AES-256-GCM
key of it, which is used once. The *identity* is associated data: it says what the box is and to which row or
destination it belongs, and a box that was moved does not open.

    version 1 = "PR1" | key id (8) | ephemeral public key (32) | ciphertext and tag
    version 2 = "PR2" | key id (8) | ephemeral public key (32) | salt (32) | ciphertext and tag

`PublicKey.seal` makes version 1: an ephemeral key for the one box, forgotten at once. That is for passwords: nothing
that is read from the memory of the process afterwards opens one. `Sealer` makes version 2, for letters by the thousand:
one agreement for many boxes, since X25519 is nine tenths of what a box costs (docs/decisions/0005-boxes-of-letters.md).

Why version 2 is as hard to open: HKDF makes one key of an agreement, and HKDF-Expand each box's own key of that, with
the box's random salt in its `info`, which is there to keep keys of one secret apart (RFC 5869 §3.2). So a box's key is
used for that box alone, and its nonce can be a constant. NIST SP 800-38D §8 wants a key and a nonce to meet twice with
a probability of at most 2**-32; with 32 random bytes for each of 2**48 boxes it is less than 2**-160. The bounds of an
agreement, then, are none of the cipher's: they say how much a secret read from a sealing process's memory opens.
"""

import base64
import hashlib
import itertools
import os
import re
import time
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from postroom.producer.errors import CannotOpen, KeyUnusable, NewerBox

_MAGIC_1: Final = b"PR1"
_MAGIC_2: Final = b"PR2"
_NEWER: Final = re.compile(rb"PR[3-9]")
_MAGIC_BYTES: Final = 3
_KEY_ID_BYTES: Final = 8
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_HEADER_1_BYTES: Final = _MAGIC_BYTES + _KEY_ID_BYTES + _KEY_BYTES
_HEADER_2_BYTES: Final = _HEADER_1_BYTES + _SALT_BYTES
_HEADER_BYTES: Final = {_MAGIC_1: _HEADER_1_BYTES, _MAGIC_2: _HEADER_2_BYTES}
_INFO_1: Final = b"postroom sealed box 1"
_INFO_AGREED: Final = b"postroom sealed boxes 2"
_INFO_2: Final = b"postroom sealed box 2"
_NONCE_2: Final = bytes(_NONCE_BYTES)
_AGREEMENT_SECONDS: Final = 60.0
_AGREEMENT_BOXES: Final = 10_000
_MOST_AGREED: Final = 1024
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
        """Seal for one identity, with an ephemeral key for this box alone: version 1."""
        ephemeral = X25519PrivateKey.generate()
        ephemeral_public = ephemeral.public_key().public_bytes_raw()
        key, nonce = _key_and_nonce(ephemeral.exchange(self._key), ephemeral_public, self.raw)
        header = _MAGIC_1 + self.key_id + ephemeral_public
        return header + AESGCM(key).encrypt(nonce, plaintext, header + identity)

    def agree(self) -> tuple[bytes, bytes]:
        """Agree on a secret for many boxes: a new ephemeral public key, and the secret."""
        ephemeral = X25519PrivateKey.generate()
        ephemeral_public = ephemeral.public_key().public_bytes_raw()
        return ephemeral_public, _agreed(ephemeral.exchange(self._key), ephemeral_public, self.raw)

    @cached_property
    def _key(self) -> X25519PublicKey:
        return X25519PublicKey.from_public_bytes(self.raw)


@dataclass(frozen=True, slots=True)
class _Agreement:
    """A secret that many boxes are sealed with, and for how long."""

    header: bytes
    secret: bytes = field(repr=False)
    pid: int
    until: float
    numbers: "itertools.count[int]"

    def is_over(self) -> bool:
        """Whether the next box needs a new one; else it counts as taken."""
        return next(self.numbers) >= _AGREEMENT_BOXES or time.monotonic() >= self.until or os.getpid() != self.pid


class Sealer:
    """Seals many boxes: version 2. One object serves all threads, and a forked child, which agrees anew.

    An agreement serves 10,000 boxes or 60 s. Its secret stays in memory until the next takes its place or the object
    goes: the last of a process that seals no more, as long as that lives. Who reads it there can open the boxes of that
    agreement and no others; the private key and the ephemeral one are not there.
    """

    def __init__(self, public: PublicKey) -> None:
        self._public = public
        self._agreement: _Agreement | None = None

    def seal(self, plaintext: bytes, identity: bytes) -> bytes:
        """Seal for one identity. Each call makes another box."""
        agreement = self._agreement
        if agreement is None or agreement.is_over():  # several threads may agree at once; the last one's stays
            agreement = self._agreement = self._agree()
        salt = os.urandom(_SALT_BYTES)
        header = agreement.header + salt
        return header + AESGCM(_key_of_box(agreement.secret, salt)).encrypt(_NONCE_2, plaintext, header + identity)

    def _agree(self) -> _Agreement:
        ephemeral_public, secret = self._public.agree()
        header = _MAGIC_2 + self._public.key_id + ephemeral_public
        return _Agreement(header, secret, os.getpid(), time.monotonic() + _AGREEMENT_SECONDS, itertools.count(1))


class PrivateKey:
    """The key that opens. One object serves all threads.

    It remembers the secrets of the 1,024 agreements that it opened boxes of last, 32 bytes each, as long as it lives:
    they open nothing that it does not open itself.
    """

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey.of(private)
        self._agreed = lru_cache(maxsize=_MOST_AGREED)(self._agree)

    def open(self, box: bytes, identity: bytes) -> bytes:
        """Open a box of any version so far, that was sealed for this identity with the public key of this one.

        Raises:
            CannotOpen: another key, another identity, or changed on the way.
        """
        box_key_id(box)
        is_first = box.startswith(_MAGIC_1)
        end = _HEADER_1_BYTES if is_first else _HEADER_2_BYTES
        header, ciphertext = box[:end], box[end:]
        ephemeral_public = header[_HEADER_1_BYTES - _KEY_BYTES : _HEADER_1_BYTES]
        try:
            if is_first:
                key, nonce = _key_and_nonce(self._exchange(ephemeral_public), ephemeral_public, self.public.raw)
            else:
                key, nonce = _key_of_box(self._agreed(ephemeral_public), header[_HEADER_1_BYTES:]), _NONCE_2
            return AESGCM(key).decrypt(nonce, ciphertext, header + identity)
        except (InvalidTag, ValueError):
            raise CannotOpen("does not open: sealed for something else, or changed since") from None

    def _agree(self, ephemeral_public: bytes) -> bytes:
        return _agreed(self._exchange(ephemeral_public), ephemeral_public, self.public.raw)

    def _exchange(self, ephemeral_public: bytes) -> bytes:
        return self._private.exchange(X25519PublicKey.from_public_bytes(ephemeral_public))


def box_key_id(box: bytes) -> bytes:
    """Id of the key that a box was sealed with. It stands at the same place in every version.

    Raises:
        NewerBox: it is of a version that this release does not know.
        CannotOpen: it is no sealed box.
    """
    header_bytes = _HEADER_BYTES.get(box[:_MAGIC_BYTES])
    if header_bytes is None and _NEWER.match(box):
        raise NewerBox("is a sealed box of a newer release")
    if header_bytes is None or len(box) < header_bytes + _TAG_BYTES:
        raise CannotOpen("is no sealed box")
    return box[_MAGIC_BYTES : _MAGIC_BYTES + _KEY_ID_BYTES]


def open_box(private: X25519PrivateKey, box: bytes, identity: bytes) -> bytes:
    """Open one box, as `PrivateKey.open` does.

    Raises:
        CannotOpen: another key, another identity, or changed on the way.
    """
    return PrivateKey(private).open(box, identity)


def _key_and_nonce(secret: bytes, ephemeral_public: bytes, public: bytes) -> tuple[bytes, bytes]:
    derived = HKDF(SHA256(), _KEY_BYTES + _NONCE_BYTES, ephemeral_public + public, _INFO_1).derive(secret)
    return derived[:_KEY_BYTES], derived[_KEY_BYTES:]


def _agreed(exchanged: bytes, ephemeral_public: bytes, public: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, ephemeral_public + public, _INFO_AGREED).derive(exchanged)


def _key_of_box(agreed: bytes, salt: bytes) -> bytes:
    return HKDFExpand(SHA256(), _KEY_BYTES, _INFO_2 + salt).derive(agreed)
