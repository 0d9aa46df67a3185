"""The key files: made once, refused when others may read them, and what they open."""

import os
import stat
from pathlib import Path

import pytest

from postroom.config.settings import Settings
from postroom.config.vault import FrontKey, Ring, keygen, public_key
from postroom.producer.errors import CannotOpen, KeyUnusable
from postroom.producer.sealing import PublicKey, Sealer, box_key_id


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(_env_file=None, data_dir=tmp_path / "data")


def test_keygen_makes_what_is_missing_and_never_overwrites(settings: Settings) -> None:
    assert keygen(settings) == [settings.ring_file, settings.public_file, settings.front_file]
    before = {path: path.read_bytes() for path in (settings.ring_file, settings.public_file, settings.front_file)}
    assert keygen(settings) == []
    assert before == {path: path.read_bytes() for path in before}
    settings.public_file.unlink()
    assert keygen(settings) == [settings.public_file]
    assert settings.public_file.read_bytes() == before[settings.public_file]


def test_the_modes_of_the_files(settings: Settings) -> None:
    keygen(settings)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (settings.ring_file, settings.front_file)]
    assert modes == [0o600, 0o600]
    assert stat.S_IMODE(settings.ring_file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_secret_that_others_may_read_is_refused_with_the_mending_command(settings: Settings, mode: int) -> None:
    keygen(settings)
    for path, load in ((settings.ring_file, Ring.load), (settings.front_file, FrontKey.load)):
        path.chmod(mode)
        with pytest.raises(KeyUnusable, match=f"chmod 600 {path}"):
            load(path)


@pytest.mark.parametrize("text", ["", "nonsense", "postroom-private-key-1 AAAA", "postroom-front-key-1 x"])
def test_a_malformed_secret_is_refused_with_its_file(settings: Settings, text: str) -> None:
    keygen(settings)
    for path, load in ((settings.ring_file, Ring.load), (settings.front_file, FrontKey.load)):
        path.write_text(text)
        with pytest.raises(KeyUnusable, match=str(path)):
            load(path)


def test_a_missing_secret_says_what_makes_it(settings: Settings) -> None:
    with pytest.raises(KeyUnusable, match="postroom keygen"):
        Ring.load(settings.ring_file)


def test_a_public_key_of_another_ring_is_refused(settings: Settings, tmp_path: Path) -> None:
    keygen(settings)
    other = Settings(_env_file=None, data_dir=tmp_path / "other")
    keygen(other)
    settings.public_file.write_bytes(other.public_file.read_bytes())
    with pytest.raises(KeyUnusable, match="does not belong to the ring"):
        keygen(settings)


def test_all_keys_of_a_ring_open_and_the_newest_seals(settings: Settings, tmp_path: Path) -> None:
    keygen(settings)
    old = public_key(settings)
    newer = Settings(_env_file=None, data_dir=tmp_path / "newer")
    keygen(newer)
    with settings.ring_file.open("a") as file:
        file.write(newer.ring_file.read_text())
    ring = Ring.load(settings.ring_file)
    assert ring.public == PublicKey.load(newer.public_file)
    assert ring.open(old.seal(b"x", b"me"), b"me") == ring.open(ring.public.seal(b"x", b"me"), b"me") == b"x"
    letter = ring.seal(b"x", b"letter")
    assert box_key_id(letter) == ring.public.key_id
    assert ring.open(letter, b"letter") == ring.open(Sealer(old).seal(b"x", b"letter"), b"letter") == b"x"
    with pytest.raises(CannotOpen, match="sealed for something else"):
        ring.open(letter, b"another letter")
    with pytest.raises(CannotOpen, match="not in the private ring"):
        Ring.load(newer.ring_file).open(Sealer(old).seal(b"x", b"letter"), b"letter")


def test_a_key_that_is_not_in_the_ring_is_named(settings: Settings, tmp_path: Path) -> None:
    keygen(settings)
    other = Settings(_env_file=None, data_dir=tmp_path / "other")
    keygen(other)
    sealed = public_key(other).seal(b"x", b"me")
    with pytest.raises(CannotOpen, match=public_key(other).key_id.hex()):
        Ring.load(settings.ring_file).open(sealed, b"me")


def test_nothing_secret_shows_in_a_repr(settings: Settings) -> None:
    keygen(settings)
    ring, front = Ring.load(settings.ring_file), FrontKey.load(settings.front_file)
    ring.seal(b"x", b"me")
    shown = repr(ring) + repr(front) + str(ring) + repr(ring.keys)
    for path in (settings.ring_file, settings.front_file):
        assert path.read_text().split()[1][:20] not in shown
    assert repr(front.secret) not in shown


def test_keyed_hashes_differ_by_purpose_and_key(settings: Settings, tmp_path: Path) -> None:
    keygen(settings)
    other = Settings(_env_file=None, data_dir=tmp_path / "other")
    keygen(other)
    front = FrontKey.load(settings.front_file)
    hashes = {front.hash("body", b"x"), front.hash("code", b"x"), FrontKey.load(other.front_file).hash("body", b"x")}
    assert len(hashes) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(settings: Settings) -> None:
    settings.data_dir.mkdir(mode=0o500)
    with pytest.raises(KeyUnusable, match="cannot be written"):
        keygen(settings)


def test_a_lost_ring_is_not_replaced(settings: Settings) -> None:
    keygen(settings)
    settings.ring_file.unlink()
    with pytest.raises(KeyUnusable, match="Restore the ring from its backup"):
        keygen(settings)
    assert not settings.ring_file.exists()


def test_a_folder_that_takes_no_file_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyUnusable, match="cannot be written"):
        keygen(Settings(_env_file=None, data_dir=tmp_path / "file" / "data"))
