"""Signing in: every mechanism, the choice between them, and no password where it does not belong."""

import base64
import hmac
from collections.abc import Callable

import pytest

from postroom.config.states import Auth, Effect, Outcome, Scope, Security
from postroom.worker.smtp import auth
from postroom.worker.smtp.server import Client, Server
from postroom.worker.smtp.session import Envelope, OpenFailed, Session
from servers.certificates import Certificates
from servers.scripted_smtp import Reply, ScriptedSMTP
from servers.smtp_client import LETTER, account, permitted

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]

LOGIN, PASSWORD = "отдел@shop.example", "пароль p@ss"


@pytest.mark.parametrize("mechanism", [Auth.AUTO, Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5, Auth.XOAUTH2])
def test_each_mechanism_signs_in(
    scripted: Scripted, opened: Opened, certificates: Certificates, mechanism: Auth
) -> None:
    server = scripted(certificate=certificates.good, login=LOGIN, password=PASSWORD)
    session = opened(server, security=Security.STARTTLS, auth=mechanism, login=LOGIN, password=PASSWORD)
    delivery = session.deliver(Envelope("a@shop.example", ("b@client.example",)), LETTER, permitted)
    assert delivery.outcome is Outcome.ACCEPTED
    assert server.accepted[0].login == LOGIN


@pytest.mark.parametrize("mechanism", [Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5, Auth.XOAUTH2])
def test_a_wrong_password_suspends_the_account(
    scripted: Scripted, patient: Client, certificates: Certificates, mechanism: Auth
) -> None:
    server = scripted(certificate=certificates.good, login="u", password="right")
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=Security.STARTTLS, auth=mechanism, login="u", password="wr0ng"), patient)
    error = caught.value
    assert error.step == "auth"
    assert error.reply is not None
    assert (error.reply.code, error.reply.command) == (535, "AUTH")
    assert error.verdict is not None
    assert (error.verdict.scope, error.verdict.effect) == (Scope.ACCOUNT, Effect.SUSPEND)
    assert "password" in error.hint
    assert "wr0ng" not in str(error)


@pytest.mark.parametrize(
    ("offered", "encrypted", "expected"),
    [
        ("PLAIN LOGIN CRAM-MD5 XOAUTH2", True, Auth.PLAIN),
        ("LOGIN CRAM-MD5", True, Auth.LOGIN),
        ("CRAM-MD5", True, Auth.CRAM_MD5),
        ("PLAIN LOGIN CRAM-MD5", False, Auth.CRAM_MD5),
        ("PLAIN LOGIN", False, Auth.PLAIN),
        ("GSSAPI LOGIN", True, Auth.LOGIN),
    ],
)
def test_auto_takes_the_best_offered(offered: str, encrypted: bool, expected: Auth) -> None:
    assert auth.choose(Auth.AUTO, frozenset(offered.split()), encrypted=encrypted) is expected


@pytest.mark.parametrize(
    ("mechanism", "offered", "what"),
    [
        (Auth.AUTO, "", "no sign-in"),
        (Auth.PLAIN, "", "no sign-in"),
        (Auth.AUTO, "XOAUTH2", "OAuth"),
        (Auth.AUTO, "GSSAPI NTLM", "GSSAPI, NTLM"),
        (Auth.CRAM_MD5, "PLAIN LOGIN", "does not offer CRAM-MD5"),
        (Auth.XOAUTH2, "PLAIN", "does not offer XOAUTH2"),
    ],
)
def test_a_mechanism_that_is_not_offered_is_not_tried(mechanism: Auth, offered: str, what: str) -> None:
    with pytest.raises(auth.CannotSignIn, match=what) as caught:
        auth.choose(mechanism, frozenset(offered.split()), encrypted=True)
    assert caught.value.hint


@pytest.mark.parametrize("mechanism", [Auth.AUTO, Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5, Auth.XOAUTH2])
def test_nothing_of_a_password_goes_over_an_unencrypted_connection(
    scripted: Scripted, patient: Client, mechanism: Auth
) -> None:
    server = scripted(login="u", password="p")
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, auth=mechanism, login="u", password="p"), patient)
    assert caught.value.step == "auth"
    assert caught.value.reply is None
    assert "allow_cleartext" in caught.value.hint
    server.wait_connections_closed()
    assert server.commands == ["EHLO client.example"]


@pytest.mark.parametrize("mechanism", [Auth.AUTO, Auth.PLAIN, Auth.LOGIN, Auth.CRAM_MD5])
def test_allow_cleartext_allows_it(scripted: Scripted, opened: Opened, mechanism: Auth) -> None:
    server = scripted(login="u", password="p")
    opened(server, auth=mechanism, login="u", password="p", allow_cleartext=True)
    expected = "CRAM-MD5" if mechanism is Auth.AUTO else auth.MECHANISMS[mechanism]
    assert server.commands[-1].startswith(f"AUTH {expected}")


def test_auth_offered_only_before_tls_is_not_used(
    scripted: Scripted, patient: Client, certificates: Certificates
) -> None:
    without = "250-scripted.example\n250 SIZE 1000"
    server = scripted(
        certificate=certificates.good,
        login="u",
        password="p",
        on={"EHLO": [Reply("250-scripted.example\n250-STARTTLS\n250 AUTH PLAIN"), Reply(without)]},
    )
    with pytest.raises(OpenFailed, match="offers no sign-in"):
        Session.open(account(server, security=Security.STARTTLS, auth="plain", login="u", password="p"), patient)
    assert not any(line.startswith("AUTH") for line in server.commands)


def test_auth_none_sends_none(scripted: Scripted, opened: Opened, certificates: Certificates) -> None:
    server = scripted(certificate=certificates.good, login="u", password="p")
    opened(server, security=Security.STARTTLS, login="u", password="p")
    assert not any(line.startswith("AUTH") for line in server.commands)


@pytest.mark.parametrize(("login", "password"), [("u\0x", "p"), ("u", "p\0"), ("", "p"), ("u", "")])
def test_what_no_mechanism_can_carry_is_not_sent(
    scripted: Scripted, patient: Client, certificates: Certificates, login: str, password: str
) -> None:
    server = scripted(certificate=certificates.good, login="u", password="p")
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=Security.STARTTLS, auth="plain", login=login, password=password), patient)
    assert caught.value.step == "auth"
    assert not any(line.startswith("AUTH") for line in server.commands)


def test_a_server_that_repeats_the_password_does_not_get_it_into_the_error(
    scripted: Scripted, patient: Client, certificates: Certificates
) -> None:
    secret = base64.b64encode(b"\0u\0hunter2").decode()
    server = scripted(
        certificate=certificates.good,
        login="u",
        on={"AUTH": Reply(f'500 5.5.1 unknown: "AUTH PLAIN {secret}"')},
    )
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=Security.STARTTLS, auth="plain", login="u", password="hunter2"), patient)
    assert secret not in str(caught.value)


def test_a_server_that_never_stops_asking(scripted: Scripted, patient: Client, certificates: Certificates) -> None:
    server = scripted(certificate=certificates.good, login="u", on={"AUTH": Reply(b"334 \r\n334 \r\n334 \r\n")})
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=Security.STARTTLS, auth="plain", login="u", password="p"), patient)
    assert caught.value.step == "auth"


def test_a_temporary_failure_only_slows_down(scripted: Scripted, patient: Client, certificates: Certificates) -> None:
    server = scripted(certificate=certificates.good, login="u", on={"AUTH": Reply("454 4.7.0 Temporary failure")})
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=Security.STARTTLS, auth="plain", login="u", password="p"), patient)
    assert caught.value.verdict is not None
    assert caught.value.verdict.effect is Effect.SLOW


def test_oauth_needed_is_said(scripted: Scripted, patient: Client, certificates: Certificates) -> None:
    refusal = "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant."
    server = scripted(certificate=certificates.good, login="u", on={"AUTH": Reply(refusal)})
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(server, security=Security.STARTTLS, auth="plain", login="u", password="p"), patient)
    assert "OAuth" in caught.value.hint
    assert refusal in str(caught.value)


def test_the_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(Server("h", 1, Security.TLS, Auth.PLAIN, login="u", password="hunter2"))


def test_cram_md5_example_of_rfc_2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    answer = auth.response(Auth.CRAM_MD5, "tim", "tanstaaftanstaaf", challenge, 0)
    assert answer == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert hmac.new(b"tanstaaftanstaaf", challenge, "md5").hexdigest().encode() in answer


def test_xoauth2_example_of_the_protocol() -> None:
    first = auth.first_response(Auth.XOAUTH2, "someuser@example.com", "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg")
    assert first is not None
    assert auth.encode(first) == (
        "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhkSFJoZG1semRHRXVZMjl0"
        "Q2cBAQ=="
    )
