"""Sealed boxes open for their own key and identity, unchanged, and in no other case."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from postroom.producer.errors import CannotOpen, KeyUnusable
from postroom.producer.sealing import PublicKey, box_key_id, open_box

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PublicKey.of(PRIVATE)


@given(st.binary(max_size=2000), st.binary(max_size=100))
def test_what_was_sealed_opens(plaintext: bytes, identity: bytes) -> None:
    box = PUBLIC.seal(plaintext, identity)
    assert open_box(PRIVATE, box, identity) == plaintext
    assert box_key_id(box) == PUBLIC.key_id


def test_every_changed_byte_keeps_it_shut() -> None:
    box = PUBLIC.seal(b"secret", b"me")
    for place in range(len(box)):
        changed = bytes([*box[:place], box[place] ^ 1, *box[place + 1 :]])
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, changed, b"me")


def test_every_shorter_box_stays_shut() -> None:
    box = PUBLIC.seal(b"secret", b"me")
    for length in range(len(box)):
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, box[:length], b"me")


def test_another_identity_or_key_does_not_open_it() -> None:
    box = PUBLIC.seal(b"secret", b"me")
    with pytest.raises(CannotOpen):
        open_box(PRIVATE, box, b"you")
    with pytest.raises(CannotOpen):
        open_box(X25519PrivateKey.generate(), box, b"me")


def test_two_boxes_of_the_same_differ_in_all_but_the_head() -> None:
    first, second = PUBLIC.seal(b"x" * 100, b""), PUBLIC.seal(b"x" * 100, b"")
    assert first[:11] == second[:11]
    assert first[11:43] != second[11:43]
    assert first[43:] != second[43:]


def test_the_text_form_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "public.key"
    path.write_text(PUBLIC.to_text() + "\n")
    assert PublicKey.load(path) == PUBLIC == PublicKey.from_text(PUBLIC.to_text())


@pytest.mark.parametrize(
    "text", ["", "x", "postroom-public-key-1", "postroom-public-key-1 AAAA", "ssh-rsa " + "A" * 44]
)
def test_what_is_no_key_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "public.key"
    path.write_text(text)
    with pytest.raises(KeyUnusable, match=r"public\.key: is no public key"):
        PublicKey.load(path)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="postroom keygen"):
        PublicKey.load(tmp_path / "none.key")
