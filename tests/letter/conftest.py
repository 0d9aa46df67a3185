"""A letter to start from, and the standard library's parser as the reader that did not write it."""

import email
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from typing import Any

import pytest

from letter.delivering import Delivering
from letter.reading import hold_rules
from postroom.worker.letter.compose import compose
from postroom.worker.letter.content import Letter, Mailbox
from postroom.worker.smtp.server import tls_context
from servers.certificates import Certificates
from servers.postfix import PostfixServer
from servers.smtp_client import client_with

START: dict[str, Any] = {
    "message_id": "<0193e1c2@shop.example>",
    "date": datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
    "from_": Mailbox("shop@shop.example"),
    "to": (Mailbox("ivan@mail.example"),),
}


@pytest.fixture(scope="session")
def letter() -> Callable[..., Letter]:
    def make(**parts: Any) -> Letter:
        return Letter(**(START | parts))

    return make


@pytest.fixture(scope="session")
def read() -> Callable[..., EmailMessage]:
    """Compose, hold every rule that the whole letter must keep, and parse."""

    def read_back(letter: Letter, *, eight_bit: bool = False) -> EmailMessage:
        octets = compose(letter, eight_bit=eight_bit)
        assert octets == compose(letter, eight_bit=eight_bit)
        hold_rules(octets, eight_bit=eight_bit)
        parsed = email.message_from_bytes(octets, policy=policy.default)
        assert "bcc" not in parsed
        return parsed

    return read_back


@pytest.fixture(scope="session")
def delivering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delivering]:
    """One Postfix and one session for all that goes over it."""
    certificates = Certificates(tmp_path_factory.mktemp("ca"))
    with PostfixServer(certificates) as server:
        delivering = Delivering(server, client_with(tls_context(certificates.ca_file), 20))
        yield delivering
        delivering.close()
