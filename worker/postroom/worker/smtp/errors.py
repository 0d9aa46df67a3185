"""What can go wrong between us and an SMTP server. Our own words never hold an address, a login or a password.

- `OpenFailed` (ConnectionError): a session could not be opened; names the step, the server's reply and a hint.
- `Broken` (ConnectionError): an open connection cannot be used any further. It has three kinds:
  `TimedOut` (also a TimeoutError), `Closed`, and `Surprise` for a server that does not keep to the protocol.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postroom.worker.smtp.replies import Reply, Verdict


class Broken(ConnectionError):
    """The connection is over; it must be closed and not used again."""


class TimedOut(Broken, TimeoutError):
    """The server did not answer, or did not read, within the step's time-out."""


class Closed(Broken):
    """The server, or something on the way, closed the connection."""


class Surprise(Broken):
    """The server said something that SMTP does not allow here."""


class OpenFailed(ConnectionError):
    """A session could not be opened. `str(error)` is one sentence with the step, the reply and the hint.

    Attributes:
        step: where it failed: resolve, connect, tls, greeting, ehlo, starttls or auth.
        what: what happened, in a few words.
        reply: the server's refusal, where it gave one.
        verdict: what that reply means for the account; None: trouble of the network or of our own settings.
        hint: what a person can do about it; may be empty.
    """

    def __init__(
        self,
        step: str,
        what: str,
        *,
        reply: "Reply | None" = None,
        verdict: "Verdict | None" = None,
        hint: str = "",
    ) -> None:
        self.step = step
        self.what = what
        self.reply = reply
        self.verdict = verdict
        self.hint = hint
        said = f" The server said: {reply}." if reply else ""
        super().__init__(f"{step}: {what}.{said}{' ' + hint if hint else ''}")
