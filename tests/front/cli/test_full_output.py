"""Output that goes to a full device: said in one line, and of a mail that was handed over, that it was."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from postroom.producer import names

SEND = ["send", "--from", "a@shop.example", "--to", "b@client.example", "--subject", "x", "--text", "x"]
SAID = "postroom: the output cannot be written: No space left on device\n"


def _to_a_full_device(*words: str) -> tuple[int, str]:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "postroom.front.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
            check=False,
        )
    return done.returncode, done.stderr


@pytest.mark.usefixtures("house")
@pytest.mark.parametrize(
    "words", [["account", "list", "--json"], ["mail", "list", "--json"], ["broker-url"], ["--help"]], ids=" ".join
)
def test_a_full_device_is_said_in_one_line(words: list[str]) -> None:
    assert _to_a_full_device(*words) == (1, SAID)


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_mail_that_was_handed_over_is_told_all_the_same(house: Any, form: list[str]) -> None:
    code, said = _to_a_full_device(*SEND, *form)
    [mail_id] = house.redis.hkeys(names.INBOX)
    assert (code, said) == (1, f"Mail {mail_id.decode()} was handed over; it is inbox.\n{SAID}")
