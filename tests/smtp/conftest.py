"""What every test of the SMTP client starts from: certificates, clients, and servers and sessions that get closed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from postroom.worker.smtp.server import Client, tls_context
from postroom.worker.smtp.session import Session
from servers.certificates import Certificates
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import Listens, account, client_with


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def patient(certificates: Certificates) -> Client:
    """A client for servers that answer."""
    return client_with(tls_context(certificates.ca_file), 5)


@pytest.fixture(scope="session")
def hasty(patient: Client) -> Client:
    """A client for servers that hang."""
    return client_with(patient.tls, 0.4)


@pytest.fixture
def scripted() -> Iterator[Callable[..., ScriptedSMTP]]:
    """Starts scripted servers, and stops them after the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(ScriptedSMTP(**settings))


@pytest.fixture
def opened(patient: Client) -> Iterator[Callable[..., Session]]:
    """Opens sessions, by default plain and without sign-in, and closes them after the test."""
    with ExitStack() as stack:

        def open_session(server: Listens, client: Client = patient, **settings: Any) -> Session:
            session = Session.open(account(server, **settings), client)
            stack.callback(session.close)
            return session

        yield open_session
