"""The same client against a server that others wrote: aiosmtpd."""

from collections.abc import Callable

import pytest

from postroom.config.states import Auth, Effect, Outcome, Security
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Envelope, OpenFailed, Session
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.smtp_client import LETTER, account, permitted

Opened = Callable[..., Session]


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
@pytest.mark.parametrize("mechanism", [Auth.AUTO, Auth.PLAIN, Auth.LOGIN])
def test_mails_arrive_as_they_were_written(
    opened: Opened, certificates: Certificates, security: Security, mechanism: Auth
) -> None:
    letter = "Subject: x\r\n\r\n.Привет\r\n..\r\n".encode()
    implicit = security is Security.TLS
    with AiosmtpdServer(certificate=certificates.good, implicit_tls=implicit, login="u", password="п p") as server:
        session = opened(server, security=security, auth=mechanism, login="u", password="п p")
        for _ in range(3):
            delivery = session.deliver(Envelope("a@x.example", ("b@x.example", "c@x.example")), letter, permitted)
            assert delivery.outcome is Outcome.ACCEPTED
        assert session.reusable
        assert len(server.received) == 3
        assert server.received[0].content == letter
        assert server.received[0].recipients == ("b@x.example", "c@x.example")
        assert server.received[0].encrypted
        assert server.received[0].login == "u"
        session.close()


def test_a_wrong_password(patient: Client, certificates: Certificates) -> None:
    with AiosmtpdServer(certificate=certificates.good, login="u", password="right") as server:
        with pytest.raises(OpenFailed) as caught:
            Session.open(
                account(server, security=Security.STARTTLS, auth=Auth.PLAIN, login="u", password="wrong"), patient
            )
        assert caught.value.step == "auth"
        assert caught.value.verdict is not None
        assert caught.value.verdict.effect is Effect.SUSPEND


def test_no_sign_in_where_one_is_needed(opened: Opened, certificates: Certificates) -> None:
    with AiosmtpdServer(certificate=certificates.good, login="u", password="p") as server:
        session = opened(server, security=Security.STARTTLS)
        delivery = session.deliver(Envelope("a@x.example", ("b@x.example",)), LETTER, permitted)
        assert delivery.verdict is not None
        assert delivery.verdict.effect is Effect.SUSPEND
        session.close()


def test_one_recipient_refused_and_the_next_mail_goes(opened: Opened) -> None:
    with AiosmtpdServer(refuse={"no@x.example": "550 5.1.1 no such user"}) as server:
        session = opened(server)
        delivery = session.deliver(Envelope("a@x.example", ("no@x.example", "b@x.example")), LETTER, permitted)
        assert [recipient.outcome for recipient in delivery.recipients] == [Outcome.FAILED, Outcome.ACCEPTED]
        assert session.deliver(Envelope("a@x.example", ("no@x.example",)), LETTER, permitted).outcome is Outcome.FAILED
        assert session.deliver(Envelope("a@x.example", ("b@x.example",)), LETTER, permitted).outcome is Outcome.ACCEPTED
        assert [received.recipients for received in server.received] == [("b@x.example",)] * 2
        session.close()
