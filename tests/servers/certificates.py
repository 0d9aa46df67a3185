"""Certificates made on the spot: a CA of our own, and right, expired, misnamed or untrusted."""

import datetime as dt
import functools
import ssl
import warnings
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
    def not_yet_valid(self) -> ssl.SSLContext:
        """Begins tomorrow."""
        begins = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        names = ("localhost", "127.0.0.1", "::1")
        return _context(self._ca.issue_cert(*names, not_before=begins, not_after=begins + dt.timedelta(days=30)))

    @functools.cached_property
    def other_name(self) -> ssl.SSLContext:
        """Made out to mail.other.example."""
        return _context(self._ca.issue_cert("mail.other.example"))

    @functools.cached_property
    def untrusted(self) -> ssl.SSLContext:
        """Signed by a CA that nobody trusts."""
        return _context(self._stranger.issue_cert("localhost", "127.0.0.1", "::1"))

    @functools.cached_property
    def self_signed(self) -> ssl.SSLContext:
        """Signed by itself."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with self._stranger.private_key_pem.tempfile() as key, self._stranger.cert_pem.tempfile() as certificate:
            context.load_cert_chain(certificate, key)
        return context

    @functools.cached_property
    def of_ip(self) -> ssl.SSLContext:
        """Made out to 127.0.0.1 alone, which is no name."""
        return _context(self._ca.issue_cert("127.0.0.1"))

    @functools.cached_property
    def old_tls(self) -> ssl.SSLContext:
        """Right in all, but the server speaks TLS 1.1 at most."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL 3 does not speak it at any higher level
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        self._good.configure_cert(context)
        return context

    @functools.cached_property
    def tls_1_2(self) -> ssl.SSLContext:
        """Right in all, and the server speaks TLS 1.2 at most."""
        context = _context(self._good)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        return context


def _context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
