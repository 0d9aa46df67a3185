"""The last part of a letter's way: over our own session into a real Postfix, and out of its Maildir."""

import email
from email import policy

from postroom.config.states import Auth, Outcome, Security
from postroom.worker.letter.compose import compose, needs_smtputf8
from postroom.worker.letter.content import Letter
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Envelope, Session
from servers.postfix import PostfixServer
from servers.smtp_client import account, permitted


class Delivering:
    """Sends over one session and finds each letter again by whom it was delivered to."""

    def __init__(self, server: PostfixServer, client: Client) -> None:
        self._server = server
        self._sent = 0
        signed_in = account(
            server, security=Security.STARTTLS, auth=Auth.AUTO, login=server.login, password=server.password
        )
        self._session = Session.open(signed_in, client)

    def send(self, recipient: str, letter: Letter, *, eight_bit: bool) -> None:
        """Sends a letter to one address that no other letter goes to."""
        assert self._session.extensions.eight_bit_mime
        envelope = Envelope(self._server.login, (recipient,), needs_smtputf8(letter))
        delivery = self._session.deliver(envelope, compose(letter, eight_bit=eight_bit), permitted)
        assert delivery.outcome is Outcome.ACCEPTED, delivery
        self._sent += 1

    def delivered(self) -> dict[str, bytes]:
        """Waits for all that was sent, and returns each letter by its recipient."""
        letters = self._server.wait_delivered(self._sent)
        assert len(letters) == self._sent
        found = {email.message_from_bytes(each, policy=policy.compat32)["Delivered-To"]: each for each in letters}
        assert len(found) == self._sent
        return found

    def close(self) -> None:
        self._session.close()
