"""The producer's side of every system written in Python: it does what lines of JSON on stdin ask for, and answers so.

Asked for are `first` and `count` of the letters to hand over; `singly`, one call each, or as fast as the system has a
way to; their `priority`; and `senders`, the numbers of the From addresses that are to take turns, the first and the
last. It answers when all are handed over: `began_at` and `ended_at`, by the monotonic clock, and if singly `calls_ms`,
how long each call took, rendering not counted.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator

from bench.letter.rendering import Letter, rendered
from bench.system import Priority, Request


def serve(single: Callable[[Letter, Priority], object], many: Callable[[Iterator[Letter], Priority], object]) -> None:
    """Serve until stdin is closed.

    Args:
        single: hands one letter over.
        many: hands letters over, which are rendered as they are read.
    """
    print("ready", flush=True)
    for line in sys.stdin:
        asked = Request(**json.loads(line))
        letters = (rendered(number, asked.senders) for number in range(asked.first, asked.first + asked.count))
        began_at = time.monotonic()
        calls_ms = []
        if asked.singly:
            for letter in letters:
                called_at = time.monotonic()
                single(letter, asked.priority)
                calls_ms.append((time.monotonic() - called_at) * 1000)
        else:
            many(letters, asked.priority)
        print(json.dumps({"began_at": began_at, "ended_at": time.monotonic(), "calls_ms": calls_ms}), flush=True)
