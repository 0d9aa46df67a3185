"""Signing in: which mechanism to take, and what to answer to its challenges (RFC 4954). Pure; nothing is sent here."""

import base64
import binascii
import hmac
from collections.abc import Sequence
from typing import Final

from postroom.config.states import Auth
from postroom.worker.smtp import hints

MECHANISMS: Final = {
    Auth.PLAIN: "PLAIN",
    Auth.LOGIN: "LOGIN",
    Auth.CRAM_MD5: "CRAM-MD5",
    Auth.XOAUTH2: "XOAUTH2",
}
"""Our names → SASL's."""

# Inside TLS the channel protects the password, and PLAIN is what every server can check, whatever form it keeps
# passwords in; CRAM-MD5 needs them in clear on the server, and some offer it that cannot check it.
_BEST_FIRST_ENCRYPTED: Final = (Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5)
# Without TLS a digest is better than the password itself.
_BEST_FIRST_CLEARTEXT: Final = (Auth.CRAM_MD5, Auth.PLAIN, Auth.LOGIN)


_SHORTEST_SECRET: Final = 4


class CannotSignIn(ValueError):
    """There is no way to sign in with what the server offers or the account says; nothing was sent.

    Attributes:
        hint: what a person can do.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def choose(auth: Auth, offered: frozenset[str], *, encrypted: bool) -> Auth:
    """The mechanism to use: the account's own, or for `auto` the best of those offered. XOAUTH2 is never automatic.

    Args:
        auth: what the account says.
        offered: SASL names as EHLO gave them, upper case.
        encrypted: whether the connection is.

    Raises:
        CannotSignIn: the server does not offer it, or nothing that we speak.
    """
    if not offered:
        raise CannotSignIn(
            "the server offers no sign-in",
            "Set auth none if it needs none; some servers offer it only over security starttls or tls.",
        )
    if auth is not Auth.AUTO:
        if MECHANISMS[auth] not in offered:
            raise CannotSignIn(f"the server does not offer {MECHANISMS[auth]}", f"It offers {_list(offered)}.")
        return auth
    for mechanism in _BEST_FIRST_ENCRYPTED if encrypted else _BEST_FIRST_CLEARTEXT:
        if MECHANISMS[mechanism] in offered:
            return mechanism
    if "XOAUTH2" in offered:
        raise CannotSignIn("the server wants OAuth", "Set auth xoauth2 with an access token.")
    raise CannotSignIn(f"the server offers only {_list(offered)}", "Postroom speaks PLAIN, LOGIN, CRAM-MD5, XOAUTH2.")


def check(login: str, password: str, *, cleartext_ok: bool) -> None:
    """Refuses what no mechanism can carry, and any sign-in over a connection that is not fit for it.

    That goes for CRAM-MD5 too: who hears its digest can try passwords against it at leisure.

    Args:
        login: whose mailbox; not empty.
        password: password or token; not empty.
        cleartext_ok: the connection is encrypted, or the account allows it not to be.

    Raises:
        CannotSignIn: login or password is missing or holds a NUL (RFC 4616 §2), or the connection is not encrypted.
    """
    if not cleartext_ok:
        raise CannotSignIn("the connection is not encrypted, so no password was sent", hints.CLEARTEXT)
    if not login or not password:
        raise CannotSignIn("login or password is missing", "Set both, or auth none.")
    if "\0" in login or "\0" in password:
        raise CannotSignIn("login or password holds a NUL character", "Type them anew.")


def first_response(mechanism: Auth, login: str, password: str) -> bytes | None:
    """What goes with the AUTH command itself (RFC 4954 §4); None: the server speaks first."""
    if mechanism is Auth.PLAIN:
        return b"\0" + login.encode() + b"\0" + password.encode()
    if mechanism is Auth.XOAUTH2:
        return b"user=" + login.encode() + b"\1auth=Bearer " + password.encode() + b"\1\1"
    return None


def response(mechanism: Auth, login: str, password: str, challenge: bytes, turn: int) -> bytes:
    """The answer to the challenge number `turn`, from 0.

    Raises:
        CannotSignIn: the server goes on asking after the mechanism has ended.
    """
    match mechanism, turn:
        case Auth.PLAIN, 0:  # it did not take the initial response and asks for it
            return b"\0" + login.encode() + b"\0" + password.encode()
        case Auth.LOGIN, 0:  # draft-murchison-sasl-login: the prompts' texts are not to be relied on
            return login.encode()
        case Auth.LOGIN, 1:
            return password.encode()
        case Auth.CRAM_MD5, 0:  # RFC 2195 §2
            digest = hmac.new(password.encode(), challenge, "md5").hexdigest()
            return login.encode() + b" " + digest.encode()
        case Auth.XOAUTH2, 0:  # the challenge is the error as JSON; an empty answer brings the refusal itself
            return b""
        case _:
            raise CannotSignIn("the server asks for more than the mechanism has", "Try another auth.")


def encode(data: bytes) -> str:
    """A response as it goes over the wire."""
    return base64.b64encode(data).decode()


def decode(text: str) -> bytes:
    """A challenge as it came over the wire; empty if it is no base64, as with servers that prompt in clear text."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _list(offered: frozenset[str]) -> str:
    return ", ".join(sorted(offered))


def repeats(text: str, secrets: Sequence[str]) -> bool:
    """Whether a server's words repeat a secret, as some do with a line that they did not understand.

    Case and white space do not matter: a reply may be folded. Secrets so short that any text holds them are let pass.
    """
    squeezed = "".join(text.split()).casefold()
    return any(len(secret) >= _SHORTEST_SECRET and "".join(secret.split()).casefold() in squeezed for secret in secrets)
