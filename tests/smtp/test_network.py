"""A host with several addresses, and hosts that are IPv6 addresses: all are tried, and each is told."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from postroom.config.states import Security
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import OpenFailed, Session, Step
from servers.certificates import Certificates
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import At, account, failure

HOST = "mail.many.example"
REFUSED, GUARDED, SILENT, GOOD = "::1", "127.0.0.3", "127.0.0.4", "127.0.0.1"


@pytest.fixture
def resolves(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says to which addresses, in which order, DNS resolves `HOST`."""
    real = socket.getaddrinfo

    def resolve(*ips: str) -> None:
        def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
            return [found for ip in (ips if host == HOST else [host]) for found in real(ip, *arguments, **named)]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return resolve


@pytest.fixture
def server() -> Iterator[ScriptedSMTP]:
    with ScriptedSMTP(host=GOOD) as server:
        yield server


@pytest.fixture
def silent(server: ScriptedSMTP) -> Iterator[None]:
    """The same port of another address, where a connect gets no answer: nobody accepts, and the backlog is full."""
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind((SILENT, server.port))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((SILENT, server.port))
        yield


def guard(ip: str) -> None:
    if ip == GUARDED:
        raise PermissionError("this network is not allowed")


@pytest.mark.usefixtures("silent")
def test_the_good_one_of_many_addresses_is_found(
    server: ScriptedSMTP, patient: Client, resolves: Callable[..., None]
) -> None:
    resolves(REFUSED, GUARDED, SILENT, SILENT, GOOD)
    steps: list[Step] = []
    with socket.create_server((GUARDED, server.port)) as not_to_be_reached:
        not_to_be_reached.setblocking(False)
        began = time.monotonic()
        with_guard = Session.open(account(At(HOST, server.port)), patient, on_step=steps.append, guard=guard)
        with_guard.close()
        assert time.monotonic() - began < patient.timeouts.connect_seconds
        with pytest.raises(BlockingIOError):
            not_to_be_reached.accept()
    assert [(step.name, step.detail) for step in steps[:2]] == [
        ("resolve", f"{REFUSED}, {GUARDED}, {SILENT}, {GOOD}"),
        ("connect", f"{GOOD} port {server.port}"),
    ]


@pytest.mark.usefixtures("silent")
def test_where_none_is_good_each_is_told(server: ScriptedSMTP, hasty: Client, resolves: Callable[..., None]) -> None:
    resolves(REFUSED, GUARDED, SILENT)
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(At(HOST, server.port)), hasty, guard=guard)
    assert caught.value.step == "connect"
    assert not isinstance(caught.value.__cause__, TimeoutError)
    assert caught.value.what == (
        f"cannot connect to port {server.port} (::1: connection refused; 127.0.0.3: this network is not allowed; "
        "127.0.0.4: no answer in time)"
    )


@pytest.mark.parametrize("first", [GOOD, "::1"])
def test_a_server_on_ipv6_alone_is_found_by_its_name(
    first: str, opened: Callable[..., Session], scripted: Callable[..., ScriptedSMTP], resolves: Callable[..., None]
) -> None:
    server = scripted(host="::1")
    resolves(first, "::1")
    assert opened(At(HOST, server.port)).alive()


@pytest.mark.parametrize("spelling", ["::1", "0:0:0:0:0:0:0:1"])
@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_the_certificate_of_an_ipv6_address_names_it_however_it_is_spelt(
    opened: Callable[..., Session],
    scripted: Callable[..., ScriptedSMTP],
    certificates: Certificates,
    security: Security,
    spelling: str,
) -> None:
    server = scripted(host="::1", certificate=certificates.good, implicit_tls=security is Security.TLS)
    assert opened(At(spelling, server.port), security=security).alive()


@pytest.mark.parametrize("which", ["of_ip", "other_name"])
def test_a_certificate_that_does_not_name_the_ipv6_address_is_refused(
    scripted: Callable[..., ScriptedSMTP], patient: Client, certificates: Certificates, which: str
) -> None:
    server = scripted(host="::1", certificate=getattr(certificates, which), implicit_tls=True)
    error = failure(server, patient, security=Security.TLS)
    assert error.step == "tls"
    assert "does not name this IP" in error.hint


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "temporary"), f"the resolver did not answer for {HOST}"),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), f"{HOST} has no address"),
    ],
)
def test_what_the_resolver_says_is_told(
    patient: Client, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(At(HOST, 25)), patient)
    assert (caught.value.step, caught.value.what) == ("resolve", said)
