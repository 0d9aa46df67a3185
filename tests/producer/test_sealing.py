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


def test_a_box_that_was_sealed_once_opens_for_ever() -> None:
    # Written down here: letters and passwords lie in databases, and must open after an upgrade.
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    box = bytes.fromhex(
        "505231eedd883da0a9451560ec9ca99941f396e0bbd109e1150fbe280114c48527f8b7454f8d07408a9524"
        "e30b48249866678c966c15f0369d12a8c75c5a49614a"
    )
    assert open_box(private, box, b"me") == b"secret"
    assert PublicKey.of(private).to_text() == "postroom-public-key-1 j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="


@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_every_changed_byte_keeps_it_shut(bit: int) -> None:
    box = PUBLIC.seal(b"secret", b"me")
    for place in range(len(box)):
        changed = bytes([*box[:place], box[place] ^ bit, *box[place + 1 :]])
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, changed, b"me")


def test_every_shorter_or_longer_box_stays_shut() -> None:
    box = PUBLIC.seal(b"secret", b"me")
    for changed in [*(box[:length] for length in range(len(box))), box + b"\0"]:
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, changed, b"me")


@pytest.mark.parametrize("identity", [b"", b"you", b"m", b"mee", b"me\0"])
def test_another_identity_does_not_open_it(identity: bytes) -> None:
    with pytest.raises(CannotOpen, match="sealed for something else, or changed"):
        open_box(PRIVATE, PUBLIC.seal(b"secret", b"me"), identity)


def test_another_key_does_not_open_it() -> None:
    box = PUBLIC.seal(b"secret", b"me")
    other = X25519PrivateKey.generate()
    with pytest.raises(CannotOpen):
        open_box(other, box, b"me")
    # Nor does a box that says it was sealed with the other one.
    with pytest.raises(CannotOpen):
        open_box(other, box[:3] + PublicKey.of(other).key_id + box[11:], b"me")


@pytest.mark.parametrize("box", [b"", b"PR1", b"PR2" + bytes(80), b"a letter in the clear" * 9])
def test_what_is_no_box_is_told(box: bytes) -> None:
    with pytest.raises(CannotOpen, match="is no sealed box"):
        box_key_id(box)


def test_two_boxes_of_the_same_differ_in_all_but_the_head() -> None:
    first, second = PUBLIC.seal(b"x" * 100, b""), PUBLIC.seal(b"x" * 100, b"")
    assert first[:11] == second[:11]
    assert first[11:43] != second[11:43]
    assert first[43:] != second[43:]


def test_the_text_form_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "public.key"
    path.write_text(PUBLIC.to_text() + "\n")
    assert PublicKey.load(path) == PUBLIC == PublicKey.from_text(PUBLIC.to_text())


def test_the_key_itself_is_not_shown() -> None:
    assert repr(PUBLIC) == "PublicKey()"


NO_KEYS = {
    "empty": b"",
    "a word": b"x",
    "no key after the name": b"postroom-public-key-1",
    "too short": b"postroom-public-key-1 AAAA",
    "another program's": b"ssh-rsa " + b"A" * 43 + b"=",
    "two": f"{PUBLIC.to_text()}\n{PUBLIC.to_text()}".encode(),
    "not as text": PUBLIC.raw,
    "not ASCII": "ключ".encode(),
}


@pytest.mark.parametrize("content", NO_KEYS)
def test_what_is_no_key_is_refused_with_its_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "public.key"
    path.write_bytes(NO_KEYS[content])
    with pytest.raises(KeyUnusable, match=r"/public\.key: (is no public key of Postroom|cannot be read: is no text)"):
        PublicKey.load(path)


def test_a_missing_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"/none\.key: .*postroom keygen.*POSTROOM_PUBLIC_KEY_FILE"):
        PublicKey.load(tmp_path / "none.key")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match=f"{tmp_path}: cannot be read: Is a directory"):
        PublicKey.load(tmp_path)


@pytest.mark.parametrize("raw", [bytes(32), b"\1" + bytes(31)])
def test_a_point_of_small_order_is_no_key(raw: bytes) -> None:
    with pytest.raises(KeyUnusable):
        PublicKey.from_text(PublicKey(raw).to_text())
