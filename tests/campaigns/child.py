"""One process of a campaign: `postroom worker KIND` or `scheduler`, with faults planted in it.

python child.py accept|drain|care|scheduler NAME [FAULT…]
"""

import ctypes
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(kind: str, name: str, *faults: str) -> None:
    # A campaign that is killed leaves no process behind, not even a stopped one.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from campaigns.faults import plant  # noqa: PLC0415 - before the app copies what the faults change

    for fault in faults:
        plant(fault)

    from postroom.config.settings import load  # noqa: PLC0415
    from postroom.worker.app import run_scheduler, run_worker  # noqa: PLC0415

    if kind == "scheduler":
        run_scheduler(load())
    else:
        run_worker(kind, load(), name=name)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
