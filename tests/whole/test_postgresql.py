"""`postroom up` on an empty PostgreSQL: everything that it does on SQLite, and no SQLite beside it."""

import json

from servers.command import wait_until
from whole.conftest import LOGIN, Whole

DATABASE = "postgresql"


def test_a_mail_goes_and_every_command_sees_it(whole: Whole) -> None:
    whole.add_account()
    sent = whole.postroom(
        *("send", "--from", LOGIN, "--to", "anna@client.example", "--subject", "x", "--text", "x", "--wait")
    )
    assert sent.returncode == 0, sent.stderr
    [mail] = json.loads(whole.postroom("mail", "list", "--to", "anna@client.example", "--json").stdout)
    assert mail["state"] == "sent"
    wait_until(lambda: whole.postroom("doctor").returncode == 0)
    assert "postgresql, revision" in whole.postroom("doctor").stdout
    assert whole.postroom("migrate").returncode == 0
    assert not list((whole.folder / "data").glob("*.db*"))
