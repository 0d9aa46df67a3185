"""Lists on terminals of any width: a table where it can be read, else each row as names and values."""

import os
import re
import sys
from typing import Any

import pytest

from servers.command import Command
from servers.scripted_smtp import ScriptedSMTP


@pytest.mark.parametrize(("columns", "is_table"), [(50, False), (80, False), (160, True)])
def test_nothing_is_cut_to_pieces(house: Any, smtp: ScriptedSMTP, columns: int, is_table: bool) -> None:
    house.add_account(smtp)
    mails = [str(house.take(subject=f"Заказ {number}")) for number in (1, 2)]
    words = [sys.executable, "-P", "-m", "postroom.front.cli", "mail", "list"]
    told = Command(words, terminal=True, env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"})
    assert told.ends() == 0
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", told.output).splitlines()]
    assert max(map(len, lines)) <= columns
    if is_table:
        assert lines[0].split() == ["id", "taken", "in", "state", "from", "to", "subject"]
        assert [line.split()[0] for line in lines[1:]] == mails[::-1]
    else:
        assert [line.split()[1] for line in lines if line.startswith("id ")] == mails[::-1]
        assert [line.split()[1:] for line in lines if line.startswith("subject ")] == [["Заказ", "2"], ["Заказ", "1"]]
        assert lines.count("") == 1
