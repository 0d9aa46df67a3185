"""The way out of a mail: accept, choose, claim, compose, send, record."""
