"""TLS: whom we talk to is proved, nothing goes over less than TLS 1.2, and each mistake has its hint."""

import re
import time
from collections.abc import Callable

import pytest

from postroom.config.states import Security
from postroom.worker.smtp import opening
from postroom.worker.smtp.server import Client, tls_context
from postroom.worker.smtp.session import Session, Step
from servers.certificates import Certificates
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import account, failure

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
@pytest.mark.parametrize(
    ("which", "hint"),
    [
        ("expired", "has expired"),
        ("not_yet_valid", "not valid yet"),
        ("other_name", "does not name this IP"),
        ("untrusted", "issuer is not trusted here.*POSTROOM_SMTP_CA_FILE"),
        ("self_signed", "is self-signed.*POSTROOM_SMTP_CA_FILE"),
    ],
)
def test_a_bad_certificate_is_refused(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted, patient: Client, certificates: Certificates, security: Security, which: str, hint: str
) -> None:
    server = scripted(certificate=getattr(certificates, which), implicit_tls=security is Security.TLS)
    error = failure(server, patient, security=security, login="u", password="p")
    assert error.step == "tls"
    assert error.verdict is None
    assert re.search(hint, error.hint)
    assert not any(line.startswith("AUTH") for line in server.commands)


def test_a_certificate_for_another_host_name(scripted: Scripted, patient: Client, certificates: Certificates) -> None:
    server = scripted(certificate=certificates.other_name, implicit_tls=True)
    error = failure(server, patient, security=Security.TLS, host="localhost")
    assert "made out to another name" in error.hint


def test_without_our_ca_file_our_ca_is_not_trusted(
    scripted: Scripted, patient: Client, certificates: Certificates
) -> None:
    server = scripted(certificate=certificates.good, implicit_tls=True)
    stranger = Client("client.example", patient.timeouts, tls_context())
    error = failure(server, stranger, security=Security.TLS)
    assert "POSTROOM_SMTP_CA_FILE" in error.hint


def test_tls_on_a_plain_port(scripted: Scripted, patient: Client) -> None:
    error = failure(scripted(), patient, security=Security.TLS)
    assert error.step == "tls"
    assert "plain text" in error.what
    assert "starttls" in error.hint


@pytest.mark.parametrize("security", [Security.NONE, Security.STARTTLS])
@pytest.mark.parametrize("trusted", [True, False])
def test_plain_on_a_tls_port_is_found_out_long_before_the_greeting_times_out(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted,
    patient: Client,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    security: Security,
    trusted: bool,
) -> None:
    monkeypatch.setattr(opening, "_SUSPICIOUS_SILENCE_SECONDS", 0.2)
    certificate = certificates.good if trusted else certificates.untrusted
    server = scripted(certificate=certificate, implicit_tls=True)
    began = time.monotonic()
    error = failure(server, patient, security=security)
    assert time.monotonic() - began < 20, "the greeting is waited for much longer"
    assert error.step == "greeting"
    assert "set security tls" in error.hint


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
@pytest.mark.parametrize(
    ("which", "host", "holds"),
    [
        ("good", "localhost", True),
        ("good", "LOCALHOST", True),
        ("good", "127.0.0.1", True),
        ("of_ip", "127.0.0.1", True),
        ("of_ip", "localhost", False),
    ],
)
def test_the_certificate_is_for_the_host_as_it_is_set(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted,
    patient: Client,
    certificates: Certificates,
    security: Security,
    which: str,
    host: str,
    holds: bool,
) -> None:
    server = scripted(certificate=getattr(certificates, which), implicit_tls=security is Security.TLS)
    if holds:
        Session.open(account(server, security=security, host=host), patient).close()
    else:
        error = failure(server, patient, security=security, host=host)
        assert error.step == "tls"
        assert "made out to another name" in error.hint


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_a_server_that_speaks_only_old_tls_is_refused(
    scripted: Scripted, patient: Client, certificates: Certificates, security: Security
) -> None:
    server = scripted(certificate=certificates.old_tls, implicit_tls=security is Security.TLS)
    error = failure(server, patient, security=security, login="u", password="p", auth="plain")
    assert error.step == "tls"
    assert "only old TLS" in error.what
    assert "TLS 1.2 is the least" in error.hint


def test_tls_1_2_is_enough(scripted: Scripted, patient: Client, certificates: Certificates) -> None:
    steps: list[Step] = []
    server = scripted(certificate=certificates.tls_1_2, implicit_tls=True)
    Session.open(account(server, security=Security.TLS), patient, on_step=steps.append).close()
    assert next(step for step in steps if step.name == "tls").detail.startswith("TLSv1.2, certificate of localhost")
