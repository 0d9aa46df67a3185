"""What a person can do when a connection, TLS or a proof fails: a hint for each way it can."""

import ssl
from typing import Final

from postroom.config.states import Auth, Security
from postroom.worker.smtp.replies import Reply, Verdict

_OWN_CA: Final = "If it is signed by a CA of your own, name that CA's file in POSTROOM_SMTP_CA_FILE."
_CERTIFICATE_HINTS: Final = {
    9: "It is not valid yet: check this machine's clock.",
    10: "It has expired: the server's administrator must renew it, or this machine's clock is wrong.",
    18: f"It is self-signed. {_OWN_CA}",
    19: f"Its chain ends in a CA that is not trusted here. {_OWN_CA}",
    20: f"Its issuer is not trusted here. {_OWN_CA}",
    21: f"It does not prove who issued it: the server sends an incomplete chain. {_OWN_CA}",
    62: "It is made out to another name: set host to the name that the certificate carries.",
    64: "It does not name this IP address: set host to the name that the certificate carries.",
}
"""OpenSSL's X509_V_ERR_* codes."""
_PLAIN_TEXT: Final = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"}
_OLD_TLS: Final = {"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION", "VERSION_TOO_LOW"}

SILENT_TLS: Final = "This port expects TLS from the start: set security tls (its usual port is 465)."
NO_STARTTLS: Final = "Postroom never goes on unencrypted: set security tls (port 465), or none if that is really meant."
SILENT: Final = {
    Security.TLS: "Check host and port.",
    Security.STARTTLS: "Check host and port; a port that expects TLS from the start (465) needs security tls.",
    Security.NONE: "Check host and port; a port that expects TLS from the start (465) needs security tls.",
}
CLEARTEXT: Final = (
    "Set security starttls or tls. If the password may really go over this network in clear, set allow_cleartext."
)
UNREACHABLE: Final = "Check host and port, and whether a firewall here lets this port out."
UNKNOWN_HOST: Final = "Check the spelling of host, and this machine's DNS."
_NO_SIGN_IN: Final = "This account has auth none; if the server wants a sign-in, set auth auto, login and password."


def of_tls(error: OSError, security: Security) -> tuple[str, str]:
    """What went wrong in a handshake, and the hint."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = _CERTIFICATE_HINTS.get(error.verify_code, _OWN_CA)
        return f"the server's certificate does not hold ({error.verify_message.rstrip('.')})", hint
    if isinstance(error, TimeoutError):
        return "the TLS handshake got no answer in time", "Check security and port."
    if isinstance(error, ssl.SSLError):
        if error.reason in _PLAIN_TEXT and security is Security.TLS:
            hint = "Set security starttls (its usual port is 587), or the port that speaks TLS (465)."
            return "the server speaks plain text on this port", hint
        if error.reason in _OLD_TLS:
            return "the server speaks only old TLS", "TLS 1.2 is the least that Postroom accepts."
        return f"the TLS handshake failed ({error.reason or 'the server hung up'})", "Check security and port."
    return "the connection broke in the TLS handshake", "Check security and port."


def of_refusal(reply: Reply, verdict: Verdict, auth: Auth) -> str:
    """The hint for a refused proof: that of the reply's rule and, where nobody signed in, that the server may want it.

    Postfix says no more to strangers than ``554 5.7.1 Recipient address rejected: Access denied``, which to others
    means the recipient. So no rule can tell, but the account can: X.7.x is a refusal by policy (RFC 3463 §3.8), and
    code 530 asks for a sign-in (RFC 4954 §6).
    """
    by_policy = reply.code == 530 or (reply.enhanced_status_code or "").startswith(("4.7.", "5.7."))  # noqa: PLR2004
    return " ".join(filter(None, (verdict.hint, _NO_SIGN_IN if auth is Auth.NONE and by_policy else "")))
