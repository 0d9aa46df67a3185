"""The console command as a user starts it: a process of its own, with a real care worker beside it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.producer import names
from postroom.worker.app import CHORES
from postroom.worker.celery_app import CHORE_PERIODS_SECONDS, chore_task
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.command import Command

POSTROOM = str(Path(sys.executable).with_name("postroom"))


def _postroom(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([POSTROOM, *words], input=stdin, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def care(house: Any, certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """`postroom worker care`."""
    monkeypatch.setenv("POSTROOM_SMTP_CA_FILE", str(certificates.ca_file))
    command = Command([POSTROOM, "worker", "care"])
    try:
        command.wait_for("ready")
        yield command
    finally:
        command.close()


@pytest.mark.usefixtures("care")
def test_an_account_is_added_by_a_real_worker_and_listed(mailbox: AiosmtpdServer) -> None:
    where = ("--address", "shop@shop.example", "--host", mailbox.host, "--port", str(mailbox.port))
    wrong = _postroom("account", "add", *where, "--password-stdin", "--json", stdin="wrong\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "535" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    right = _postroom("account", "add", *where, "--password-stdin", "--json", stdin="right horse\n")
    assert right.returncode == 0, right.stderr
    assert json.loads(_postroom("account", "list", "--json").stdout) == [json.loads(right.stdout)]


def test_the_nudge_for_held_mail_names_the_chore() -> None:
    assert chore_task("release") == names.TASK_RELEASE


def test_each_chore_has_its_time() -> None:
    assert CHORES.keys() == CHORE_PERIODS_SECONDS.keys()
