"""Where to connect and how to sign in (`Server`), and who we are while we do it (`Client`)."""

import socket
import ssl
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path

from postroom.config.states import Auth, Security


@dataclass(frozen=True, slots=True)
class Server:
    """An account's server.

    Attributes:
        password: the password or, for XOAUTH2, the access token. Never shown in a repr.
        allow_cleartext: the password may go over an unencrypted connection.
        pipelining: commands may go without waiting for replies where the server offers it (RFC 2920).
    """

    host: str
    port: int
    security: Security
    auth: Auth
    login: str = ""
    password: str = field(default="", repr=False)
    allow_cleartext: bool = False
    pipelining: bool = True


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long each step may take, in seconds; the defaults are RFC 5321's least values (§4.5.3.2).

    Attributes:
        connect_seconds: for all addresses of a host together.
        tls_seconds: for the TLS handshake.
        greeting_seconds: §4.5.3.2.1, the 220.
        command_seconds: EHLO, STARTTLS, AUTH and RSET, each reply as a whole; the RFC names none, so MAIL's is taken.
        mail_seconds: §4.5.3.2.2, the reply to MAIL.
        rcpt_seconds: §4.5.3.2.3, the reply to each RCPT.
        data_seconds: §4.5.3.2.4, DATA's 354.
        block_seconds: §4.5.3.2.5, for the server to take in one block of content.
        dot_seconds: §4.5.3.2.6, the reply to the final dot.
        quit_seconds: the reply to QUIT; nothing depends on it.
    """

    connect_seconds: float = 30
    tls_seconds: float = 30
    greeting_seconds: float = 300
    command_seconds: float = 300
    mail_seconds: float = 300
    rcpt_seconds: float = 300
    data_seconds: float = 120
    block_seconds: float = 180
    dot_seconds: float = 600
    quit_seconds: float = 1

    def at_most(self, seconds: float, *, dot_seconds: float) -> "Timeouts":
        """These, none longer than `seconds`, and the one for the final dot's reply none longer than `dot_seconds`."""
        limits = {field.name: min(getattr(self, field.name), seconds) for field in fields(self)}
        return Timeouts(**limits | {"dot_seconds": min(self.dot_seconds, dot_seconds)})


@dataclass(frozen=True, slots=True)
class Client:
    """Ourselves, as servers see us; one a process, because building a TLS context costs 22-31 ms of CPU."""

    hello_name: str
    timeouts: Timeouts
    tls: ssl.SSLContext


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """Context that trusts the system's CAs and those in `ca_file` (PEM): TLS 1.2 at least, names verified.

    Raises:
        OSError: the file cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context


@cache
def default_hello_name() -> str:
    """This machine's full name or, if it has none, an address literal (RFC 5321 §4.1.1.1, §4.1.4)."""
    name = socket.getfqdn()
    full = "." in name and name.isascii() and not name.endswith((".arpa", ".localdomain"))
    return name if full else "[127.0.0.1]"
