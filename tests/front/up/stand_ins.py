"""Small programs that stand in for the house's parts, and a supervisor over them: `python stand_ins.py PLAN.json`.

PLAN is a list of [name, floor, behaviour, first_pause_seconds]. Everything a test needs to know is printed.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from postroom.front.child import follow_supervisor, say_ready
from postroom.front.display import Display
from postroom.front.process import Program
from postroom.front.supervisor import OWN_NAME, Supervisor


def stand_in(behaviour: str) -> None:
    follow_supervisor()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    match behaviour:
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "usage":
            print("the setting is wrong")
            sys.exit(2)
        case "dies":
            print("no luck today")
            sys.exit(7)
        case "forks":
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                threading.Event().wait()
            print(f"grandchild {child}")
        case "chatters":
            threading.Thread(target=chatter, daemon=True).start()
        case "mumbles":
            sys.stdout.write("half a line")
            sys.stdout.flush()
    say_ready()
    stop.wait() if behaviour != "deaf" else threading.Event().wait()
    if behaviour == "slow":
        time.sleep(1)
    print(f"stopped at {time.monotonic()}")


def chatter() -> None:
    """5 MB, several times what any buffer on the way holds."""
    for number in range(5_000):
        print("x" * 1000, number)
    Path(os.environ["STAND_IN_SAID_ALL"]).touch()


def supervise(plan: Path) -> int:
    programs = [
        Program(name, [sys.executable, __file__, "--as", behaviour], floor, None, pause)
        for name, floor, behaviour, pause in json.loads(plan.read_text())
    ]
    display = Display(1, [OWN_NAME, *(program.name for program in programs)])

    def tell(pids: Mapping[str, int]) -> None:
        display.show(OWN_NAME, f"all up {json.dumps(dict(pids))}")

    return Supervisor(programs, display, tell).run()


if __name__ == "__main__":
    if sys.argv[1] == "--as":
        stand_in(sys.argv[2])
    else:
        sys.exit(supervise(Path(sys.argv[1])))
