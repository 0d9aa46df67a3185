"""The way out of a mail: accept, choose, claim, compose, send, record."""

import postroom.config  # noqa: F401 - on a bare install it says what is missing
