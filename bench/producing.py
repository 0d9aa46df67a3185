"""The producer's side of every system written in Python: it does what lines on stdin ask for and answers in JSON.

`many FIRST COUNT PRIORITY` hands over the letters FIRST … FIRST + COUNT - 1 as fast as the system has a way to, and
`single …` one call each. Both answer when all are handed over: `began_at` and `ended_at`, by the monotonic clock, and
for `single` `calls_ms`, how long each call took, rendering not counted.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import cast

from bench.letter.rendering import Letter, rendered
from bench.system import Priority


def serve(single: Callable[[Letter, Priority], object], many: Callable[[Iterator[Letter], Priority], object]) -> None:
    """Serve until stdin is closed.

    Args:
        single: hands one letter over, at a priority (`high`, `normal` or `bulk`).
        many: hands letters over, which are rendered as they are read.
    """
    print("ready", flush=True)
    for line in sys.stdin:
        how, first, count, word = line.split()
        priority = cast("Priority", word)
        letters = map(rendered, range(int(first), int(first) + int(count)))
        began_at = time.monotonic()
        calls_ms = []
        if how == "many":
            many(letters, priority)
        else:
            for letter in letters:
                called_at = time.monotonic()
                single(letter, priority)
                calls_ms.append((time.monotonic() - called_at) * 1000)
        print(json.dumps({"began_at": began_at, "ended_at": time.monotonic(), "calls_ms": calls_ms}), flush=True)
