"""The way out of a mail: accept, choose, claim, compose, send, record."""

import sys

import postroom.config  # noqa: F401 - on a bare install it says what is missing

# structlog imports rich where it finds it, for tracebacks that are never drawn here: a fifteenth of a worker's start
_rich = sys.modules.get("rich")
if _rich is None:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402, F401

if _rich is None:
    del sys.modules["rich"]
