"""Ctrl-C while a command still imports what it needs: quiet, as after any other Ctrl-C."""

import subprocess
import sys

import pytest

INTERRUPTED = """
import os, signal, sys

MODULE = sys.argv[1]
sys.argv[1:] = ["mail", "list"]
signal.signal(signal.SIGINT, signal.default_int_handler)

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == MODULE:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, CtrlC())
from postroom.front.cli import main
main()
"""


@pytest.mark.parametrize(
    "module", ["postroom.producer.errors", "pydantic", "typer", "rich.table", "postroom.front.cli.root"]
)
def test_an_interrupt_while_importing_is_quiet(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
