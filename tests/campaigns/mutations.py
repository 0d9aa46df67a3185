"""Proves that the campaigns notice: takes one part of the protocol out at a time, and at least one must turn red.

    python tests/campaigns/mutations.py [PART…]

Prints a table for docs/reliability.md; exits 1 if a part can be missed without a campaign turning red.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

CAMPAIGNS = Path(__file__).parent
PARTS = {
    "fence": "a mark stands whoever claimed the mail meanwhile",
    "mark": "the final dot goes without asking the database",
    "inbox": "accept removes a job from the inbox when it reads it",
    "lease": "claims are taken back whether their leases have ended or not",
}
_RED = re.compile(r"^FAILED \S+?::(\S+)", re.MULTILINE)


def red(part: str) -> list[str]:
    """The campaigns that fail without one part."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", str(CAMPAIGNS), "-q", "-n", "2"],
        env={**os.environ, "POSTROOM_TEST_FAULT": f"without@{part}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return sorted(_RED.findall(run.stdout))


def main() -> int:
    missed = 0
    print("| without | which means | campaigns that turn red |\n|---|---|---|")
    for part in sys.argv[1:] or PARTS:
        meaning, failed = PARTS[part], red(part)
        missed += not failed
        print(f"| {part} | {meaning} | {', '.join(failed) or '**none**'} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
