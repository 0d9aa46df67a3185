"""Whether the heavy tests run in their long form: POSTROOM_LONG=1."""

import os

LONG = os.environ.get("POSTROOM_LONG") == "1"
