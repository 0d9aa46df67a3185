"""Fifty kept mails, and how each is read: as composed, and as Postfix delivered it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from letter.delivering import Delivering
from letter.examples import NAMES, as_kept, kept, letter_of_example, mail_of
from letter.reading import hold_rules, read
from postroom.worker.letter.compose import compose, needs_smtputf8

EIGHT_BIT = pytest.mark.parametrize("eight_bit", [True, False], ids=["8bit", "7bit"])
EACH = pytest.mark.parametrize("name", NAMES)


def test_there_are_fifty() -> None:
    assert len(NAMES) == 50


@EIGHT_BIT
@EACH
def test_a_letter_is_read_as_kept(name: str, eight_bit: bool) -> None:
    letter = letter_of_example(name)
    octets = compose(letter, eight_bit=eight_bit)
    wanted = kept(name)
    if letter.raw is None:
        hold_rules(octets, eight_bit=eight_bit or needs_smtputf8(letter))
    assert as_kept(read(octets, set(wanted["headers"]))) == wanted


@EACH
def test_nobody_sees_a_blind_copy(name: str) -> None:
    mail = mail_of(name)
    octets = compose(letter_of_example(name), eight_bit=True)
    assert not [each.address for each in mail.bcc if each.address.encode() in octets]


@pytest.fixture(scope="module")
def delivered(delivering: Delivering) -> dict[str, bytes]:
    """All of them, each in both ways, out of Postfix's Maildir."""
    for name in NAMES:
        for eight_bit in (True, False):
            delivering.send(recipient(name, eight_bit=eight_bit), letter_of_example(name), eight_bit=eight_bit)
    return delivering.delivered()


def recipient(name: str, *, eight_bit: bool) -> str:
    return f"{name}@{'8bit' if eight_bit else '7bit'}.example"


@EIGHT_BIT
@EACH
def test_a_delivered_letter_is_read_as_kept(delivered: dict[str, bytes], name: str, eight_bit: bool) -> None:
    wanted = kept(name)
    octets = delivered[recipient(name, eight_bit=eight_bit)]
    assert as_kept(read(octets, set(wanted["headers"]))) == wanted


@EIGHT_BIT
def test_munpack_unpacks_the_showcase(delivered: dict[str, bytes], tmp_path: Path, eight_bit: bool) -> None:
    munpack = shutil.which("munpack")
    if munpack is None:
        assert os.environ.get("CI") != "true", "munpack is missing (Debian's package mpack)"
        pytest.skip("munpack is missing (Debian's package mpack)")
    letter = tmp_path / "showcase.eml"
    letter.write_bytes(delivered[recipient("showcase", eight_bit=eight_bit)])
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    subprocess.run([munpack, "-q", "-C", unpacked, letter], check=True, capture_output=True)
    assert not [path for path in unpacked.iterdir() if path.is_dir()]
    files = sorted(path.read_bytes() for path in unpacked.iterdir() if path.suffix != ".desc")
    assert files == sorted(file.content for file in mail_of("showcase").attachments)
