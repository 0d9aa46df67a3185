"""Addresses outside ASCII (RFC 6531): sent where the server can take them, refused with a reason where it cannot."""

import pytest

from servers.scripted_smtp import ScriptedSMTP
from worker.conftest import House

ANNA, YASHCHIK = "anna@client.example", "ящик@client.example"


def test_they_go_to_a_server_that_takes_them(house: House) -> None:
    with ScriptedSMTP(extensions=["PIPELINING", "8BITMIME", "SMTPUTF8"]) as server:
        account = house.add_account(server)
        mail = house.take(to=[ANNA, "Ящик <ящик@клиент.example>"])
        plain = house.take(to="Анна <anna@клиент.example>")
        house.drain(account)
        assert [house.state(each)[0] for each in (mail, plain)] == ["sent", "sent"]
        first, second = server.accepted
        assert first.recipients == (ANNA, "ящик@xn--e1affem4a.example")
        assert first.parameters.endswith(" BODY=8BITMIME SMTPUTF8")
        assert "ящик@xn--e1affem4a.example".encode() in first.content
        assert second.recipients == ("anna@xn--e1affem4a.example",)
        assert "SMTPUTF8" not in second.parameters


@pytest.mark.parametrize(
    ("recipients", "states"),
    [
        ({"to": ANNA, "bcc": YASHCHIK}, ["accepted", "refused"]),
        ({"to": [ANNA, YASHCHIK]}, ["refused", "refused"]),
        ({"to": ANNA, "reply_to": YASHCHIK}, ["refused"]),
    ],
)
def test_elsewhere_they_are_refused_and_it_is_said_why(
    house: House, smtp: ScriptedSMTP, recipients: dict[str, object], states: list[str]
) -> None:
    account = house.add_account(smtp)
    mail = house.take(**recipients)
    house.drain(account)
    shown = house.show(mail)
    assert [each["state"] for each in shown["recipients"]] == states
    assert shown["state"] == ("sent" if "accepted" in states else "failed")
    refused = [each["reply"] for each in shown["recipients"] if each["state"] == "refused"]
    assert all("does not offer SMTPUTF8" in reply for reply in refused)
    assert len(smtp.accepted) == states.count("accepted")
