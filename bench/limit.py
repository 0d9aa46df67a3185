"""The limit: Postfix's `smtp-source`, a program in C that keeps nothing, straight into the sink. It speaks no TLS."""

import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import cost, sink
from bench.contestants import CONNECTIONS

_LETTER_BYTES: Final = 4000


@dataclass(frozen=True, slots=True)
class Limit:
    """What it reached.

    Attributes:
        sink_ms: processor time of the sink a mail.
    """

    mails_a_second: float
    sink_ms: float


def measured(folder: Path, count: int) -> Limit:
    """Send so many letters over kept sessions.

    Raises:
        FileNotFoundError: it is not installed.
    """
    program = shutil.which("smtp-source") or shutil.which("smtp-source", path="/usr/sbin")
    if program is None:
        raise FileNotFoundError("the bench needs smtp-source (apt install postfix)")
    with sink.started(folder, secure=False) as to:
        before = cost.processor_ms({"sink": to.process.pid})["sink"]
        began_at = time.monotonic()
        sizes = ("-d", "-l", str(_LETTER_BYTES), "-m", str(count), "-s", str(CONNECTIONS))
        subprocess.run([program, *sizes, "-t", "anna@client.example", f"{sink.HOST}:{to.port}"], check=True)
        to.wait_taken(count, 10)
        seconds = to.taken[-1].at - began_at
        return Limit(count / seconds, (cost.processor_ms({"sink": to.process.pid})["sink"] - before) / count)
