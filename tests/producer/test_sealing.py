"""Sealed boxes open for their own key and identity, unchanged, and in no other case."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from postroom.producer import sealing
from postroom.producer.errors import CannotOpen, KeyUnusable, NewerBox
from postroom.producer.sealing import PrivateKey, PublicKey, Sealer, box_key_id, open_box

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PublicKey.of(PRIVATE)
Seal = Callable[[bytes, bytes], bytes]
VERSIONS: dict[str, Seal] = {"1": PUBLIC.seal, "2": Sealer(PUBLIC).seal}

of_every_version = pytest.mark.parametrize("seal", VERSIONS.values(), ids=VERSIONS)
SALT = slice(43, 75)

FORKING = """
import os
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from postroom.producer.sealing import PublicKey, Sealer

sealer = Sealer(PublicKey.of(X25519PrivateKey.generate()))

def tell():
    print(sealer.seal(b"x", b"me")[11:43].hex(), flush=True)

tell()
if (pid := os.fork()) == 0:
    tell()
    os._exit(0)
os.waitpid(pid, 0)
tell()
"""


def agreement(box: bytes) -> bytes:
    """The ephemeral public key of a box."""
    return box[11:43]


@of_every_version
@given(plaintext=st.binary(max_size=2000), identity=st.binary(max_size=100))
def test_what_was_sealed_opens(seal: Seal, plaintext: bytes, identity: bytes) -> None:
    box = seal(plaintext, identity)
    assert open_box(PRIVATE, box, identity) == plaintext
    assert box_key_id(box) == PUBLIC.key_id


SEALED_ONCE = {
    "1": (
        "505231eedd883da0a9451560ec9ca99941f396e0bbd109e1150fbe280114c48527f8b7454f8d07408a9524"
        "e30b48249866678c966c15f0369d12a8c75c5a49614a"
    ),
    "2": (
        "505232eedd883da0a94515f906dc7b6cd83d7a7ba1e26309d92060a8ca8914c8db804663c686918fa3c32f"
        "f19f30a50457f767920908884d659297f3978e0c92327e2e6d08e847b71fcf368d02d2278a37faa3a536d3"
        "fe63ade703879068335cb6"
    ),
}


@pytest.mark.parametrize("version", SEALED_ONCE)
def test_a_box_that_was_sealed_once_opens_for_ever(version: str) -> None:
    # Written down here: letters and passwords lie in databases, and must open after an upgrade.
    private = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    assert open_box(private, bytes.fromhex(SEALED_ONCE[version]), b"me") == b"secret"
    assert PublicKey.of(private).to_text() == "postroom-public-key-1 j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="


@of_every_version
@pytest.mark.parametrize("bit", [0x01, 0x80])
def test_every_changed_byte_keeps_it_shut(seal: Seal, bit: int) -> None:
    box = seal(b"secret", b"me")
    private = PrivateKey(PRIVATE)
    for place in range(len(box)):
        changed = bytes([*box[:place], box[place] ^ bit, *box[place + 1 :]])
        with pytest.raises(CannotOpen):
            private.open(changed, b"me")
    assert private.open(box, b"me") == b"secret", "what was tried before does not matter"


@of_every_version
def test_every_shorter_or_longer_box_stays_shut(seal: Seal) -> None:
    box = seal(b"secret", b"me")
    for changed in [*(box[:length] for length in range(len(box))), box + b"\0"]:
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, changed, b"me")


@of_every_version
@pytest.mark.parametrize("identity", [b"", b"you", b"m", b"mee", b"me\0"])
def test_another_identity_does_not_open_it(seal: Seal, identity: bytes) -> None:
    private = PrivateKey(PRIVATE)
    box = seal(b"secret", b"me")
    assert private.open(box, b"me") == b"secret"  # its agreement is known from here on
    with pytest.raises(CannotOpen, match="sealed for something else, or changed"):
        private.open(box, identity)


@of_every_version
def test_another_key_does_not_open_it(seal: Seal) -> None:
    box = seal(b"secret", b"me")
    other = X25519PrivateKey.generate()
    with pytest.raises(CannotOpen):
        open_box(other, box, b"me")
    # Nor does a box that says it was sealed with the other one.
    with pytest.raises(CannotOpen):
        open_box(other, box[:3] + PublicKey.of(other).key_id + box[11:], b"me")


def test_a_box_opens_in_its_own_version_alone() -> None:
    for seal, magic in ((VERSIONS["1"], b"PR2"), (VERSIONS["2"], b"PR1")):
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, magic + seal(b"x" * 100, b"me")[3:], b"me")


@pytest.mark.parametrize("box", [b"", b"PR1", b"PR2", b"PR0" + bytes(80), b"a letter in the clear" * 9])
def test_what_is_no_box_is_told(box: bytes) -> None:
    with pytest.raises(CannotOpen, match="is no sealed box") as told:
        box_key_id(box)
    assert not isinstance(told.value, NewerBox)


@pytest.mark.parametrize("box", [b"PR3", b"PR9" + bytes(80)])
def test_a_box_of_a_newer_release_is_told(box: bytes) -> None:
    with pytest.raises(NewerBox, match="newer release"):
        open_box(PRIVATE, box, b"me")


def test_two_boxes_of_the_same_differ_in_all_but_the_head() -> None:
    first, second = PUBLIC.seal(b"x" * 100, b""), PUBLIC.seal(b"x" * 100, b"")
    assert first[:11] == second[:11]
    assert agreement(first) != agreement(second)
    assert first[43:] != second[43:]


def test_two_boxes_of_one_agreement_have_nothing_secret_in_common() -> None:
    sealer = Sealer(PUBLIC)
    boxes = [sealer.seal(bytes(100), b"") for _ in range(200)]
    assert len({box[:43] for box in boxes}) == 1
    assert len({box[SALT] for box in boxes}) == len({box[75:] for box in boxes}) == 200
    # The same bytes sealed with the same stream of a key would show.
    assert len({box[75:91] for box in boxes}) == 200
    first, second = boxes[:2]
    for moved in (first[:75] + second[75:], first[:43] + second[SALT] + first[75:]):
        with pytest.raises(CannotOpen):
            open_box(PRIVATE, moved, b"")


def test_an_agreement_serves_a_bounded_number_of_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_AGREEMENT_BOXES", 3)
    sealer = Sealer(PUBLIC)
    agreements = [agreement(sealer.seal(b"", b"")) for _ in range(7)]
    assert [agreements.count(each) for each in dict.fromkeys(agreements)] == [3, 3, 1]


def test_an_agreement_serves_a_bounded_time() -> None:
    sealer = Sealer(PUBLIC)
    first = agreement(sealer.seal(b"", b""))
    for seconds, is_the_same in ((50, True), (20, False)):  # 70 s in all
        assert sealer._agreement is not None
        sealer._agreement = replace(sealer._agreement, until=sealer._agreement.until - seconds)
        assert (agreement(sealer.seal(b"", b"")) == first) is is_the_same


def test_a_forked_child_agrees_anew() -> None:
    said = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == said[2] != said[1]


def test_threads_share_a_sealer_and_a_private_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_AGREEMENT_BOXES", 7)
    sealer, private = Sealer(PUBLIC), PrivateKey(PRIVATE)

    def work(number: int) -> tuple[bytes, bytes]:
        box = sealer.seal(b"%d" % number, b"me %d" % number)
        assert private.open(box, b"me %d" % number) == b"%d" % number
        return agreement(box), box[SALT]

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(work, range(1000)))
    assert len({salt for _, salt in made}) == 1000
    agreements = [each for each, _ in made]
    assert max(map(agreements.count, agreements)) <= 7


def test_what_the_private_key_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_MOST_AGREED", 5)
    agreed: list[bytes] = []

    def agree(_exchanged: bytes, ephemeral_public: bytes, _public: bytes) -> bytes:
        agreed.append(ephemeral_public)
        return bytes(32)

    monkeypatch.setattr(sealing, "_agreed", agree)
    private = PrivateKey(PRIVATE)
    boxes = [Sealer(PUBLIC).seal(b"x", b"me") for _ in range(20)]
    agreed.clear()
    for box in [*boxes, *boxes[-5:]]:
        assert private.open(box, b"me") == b"x"
    assert agreed == [agreement(box) for box in boxes], "once each, and the last ones are remembered"
    private.open(boxes[0], b"me")
    assert len(agreed) == 21, "the first were forgotten"


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
