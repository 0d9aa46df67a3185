"""`postroom demo` as its user runs it."""

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servers.command import Command

HOSTILE = {
    "POSTROOM_BROKER_URL": "redis://127.0.0.1:1/0",
    "POSTROOM_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "POSTROOM_KEYS_FILE": "/nonexistent/private.ring",
    "POSTROOM_PUBLIC_KEY": "none",
    "POSTROOM_DRAIN_THREADS": "many",
    "POSTROOM_JOB_LIMIT_BYTES": "1",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
}
"""Settings of the caller's own house; the demo must neither use them nor trip over them."""

STARTING = ("are starting", "all up")


def story_begins(demo: Command) -> None:
    """Wait until everything is up; a busy machine takes its time for it."""
    for sign in STARTING:
        demo.wait_for(sign)


def test_the_story_is_told_to_its_end_whatever_the_callers_settings(scene: Any) -> None:
    (scene.home / ".env").write_text("POSTROOM_FLOWER_BIND=nonsense\nPOSTROOM_SMTP_HELLO_NAME=demo-must-not-say-this\n")
    demo = scene.start(**HOSTILE)
    story_begins(demo)
    demo.wait_for("The whole demo took")
    assert demo.ends() == 0
    told = demo.output

    for step in ("worker", "resolve", "connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail_from", "message"):
        assert re.search(rf"✓ {step} ", told), step
    assert re.search(r"✗ auth +\d+ ms  .*535", told)
    assert "Refused at the step auth" in told
    assert "Accounts before: 1. Accounts now: 1" in told
    assert "held, no_account" in told
    assert re.search(r"shop@lamp.example +✗ +sends as shop@lamp.example, not as orders@lamp.example", told)
    assert re.search(r"the mail left by itself: the server's 250 came \d+ ms after", told)
    assert len(re.findall(r"^   sent +\S+@lamp.example +ivan@mail.example .* 250 2.0.0 OK", told, re.MULTILINE)) == 3
    assert "From: Магазин «Лампа» <shop@lamp.example>" in told
    assert "Subject: Заказ № 1042 принят" in told
    assert "Вы заказали настольную лампу" in told.partition("And this is what arrived")[2]
    assert "3 mails, each arrived once and just as it was handed over" in told
    assert "demo-must-not-say-this" not in told

    assert "\x1b" not in told
    assert not re.search(r" $", told, re.MULTILINE)
    assert scene.running() == []
    assert scene.left() == []
    assert [path.name for path in scene.home.iterdir()] == [".env"]


@pytest.mark.parametrize(
    ("moments", "number", "status"),
    [
        pytest.param(STARTING[:1], signal.SIGINT, 130, id="while-it-starts"),
        pytest.param((*STARTING, "✓ worker "), signal.SIGTERM, 143, id="in-the-story"),
    ],
)
def test_cut_short_it_leaves_nothing(scene: Any, moments: tuple[str, ...], number: signal.Signals, status: int) -> None:
    demo = scene.start()
    for each in moments:
        demo.wait_for(each)
    demo.process.send_signal(number)
    assert demo.ends() == status
    assert f"Interrupted by {number.name}. Everything is stopped" in demo.output
    assert "Traceback" not in demo.output
    assert scene.running() == []
    assert scene.left() == []


def test_a_letter_that_was_changed_on_the_way_is_noticed(scene: Any) -> None:
    demo = scene.start_changed(
        "from postroom.front import mail_server\n"
        "class Arrived(mail_server.Arrived):\n"
        "    def __init__(self, reverse_path, recipients, content, login, at):\n"
        "        content = content.replace('лампу'.encode(), 'люстру'.encode())\n"
        "        super().__init__(reverse_path, recipients, content, login, at)\n"
        "mail_server.Arrived = Arrived\n"
    )
    story_begins(demo)
    demo.wait_for("postroom: this did not go as told: text: handed over .*лампу.*, arrived .*люстру")
    assert demo.ends() == 1
    assert "each arrived once" not in demo.output
    assert scene.running() == []
    assert scene.left() == []


def test_kept_it_runs_until_ctrl_c_and_what_it_prints_works(scene: Any) -> None:
    demo = scene.start("--keep", terminal=True)
    story_begins(demo)
    demo.wait_for("Ctrl-C stops everything")
    told = re.sub(r"\x1b\[[\d;]*m", "", demo.output)
    for name in ("Flower", "data folder", "log", "mail server", "free mailbox"):
        assert re.search(rf"{name}: +\S", told), name
    [data_dir] = re.findall(r"data folder: +(\S+)", told)
    assert scene.left() == [Path(data_dir).parent.name]
    assert len(scene.running()) == 8  # the demo, `up` and its six
    listed = subprocess.run(
        [sys.executable, "-P", "-m", "postroom.front.cli", "mail", "list", "--json"],
        env={"POSTROOM_DATA_DIR": data_dir, "PATH": "/usr/bin"},
        cwd=scene.home,
        capture_output=True,
        check=True,
    )
    assert listed.stdout.count(b'"state": "sent"') == 3
    demo.process.send_signal(signal.SIGINT)
    assert demo.ends() == 0
    assert scene.running() == []
    assert Path(data_dir, "postroom.db").exists()
