"""Certificates made on the spot: a CA of our own, and right, expired, misnamed or untrusted."""

import datetime as dt
import functools
import ssl
from pathlib import Path

import trustme


class Certificates:
    """One throw-away CA. Its properties are server-side contexts for 127.0.0.1, ::1 and localhost.

    Attributes:
        ca_file: PEM file of the CA, for `tls_context(ca_file)` or POSTROOM_SMTP_CA_FILE.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self._stranger = trustme.CA()
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    @functools.cached_property
    def good(self) -> ssl.SSLContext:
        """Trusted by `ca_file`, right names, in date."""
        return _context(self._good)

    @functools.cached_property
    def _good(self) -> trustme.LeafCert:
        return self._ca.issue_cert("localhost", "127.0.0.1", "::1")

    def write_good(self, path: Path) -> None:
        """Writes the key and the chain of the good certificate, as one PEM file for its owner alone."""
        path.touch(0o600)
        self._good.private_key_and_cert_chain_pem.write_to_path(path)

    @functools.cached_property
    def expired(self) -> ssl.SSLContext:
        """Ran out yesterday."""
        now = dt.datetime.now(dt.UTC)
        return _context(
            self._ca.issue_cert(
                "localhost",
                "127.0.0.1",
                "::1",
                not_before=now - dt.timedelta(days=30),
                not_after=now - dt.timedelta(days=1),
            )
        )

    @functools.cached_property
    def other_name(self) -> ssl.SSLContext:
        """Made out to mail.other.example."""
        return _context(self._ca.issue_cert("mail.other.example"))

    @functools.cached_property
    def untrusted(self) -> ssl.SSLContext:
        """Signed by a CA that nobody trusts, as a self-signed one is."""
        return _context(self._stranger.issue_cert("localhost", "127.0.0.1", "::1"))


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
