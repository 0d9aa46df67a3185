"""What Postroom costs and how fast it is, measured side by side with what else one would take.

This puts the tests' folder on the path: the bench starts PostgreSQL as they do, and makes certificates as they do.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "tests"))
