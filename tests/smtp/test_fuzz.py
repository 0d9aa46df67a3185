"""Servers that say anything at any time: only `OpenFailed` and a `Delivery` ever come out, and no false success."""

import random

import pytest

from postroom.config.states import Auth, Outcome, Security
from postroom.worker.smtp.server import Client, Server
from postroom.worker.smtp.session import Envelope, OpenFailed, Session
from servers.anything_smtp import anything
from servers.smtp_client import account, client_with


@pytest.mark.parametrize("seed", range(200))
def test_a_server_that_says_anything(patient: Client, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a test that can be repeated
    client = client_with(patient.tls, 0.1)
    asked: list[bool] = []
    marker = b"the letter's words"

    def permit() -> bool:
        asked.append(True)
        return True

    envelope = Envelope("a@shop.example", ("b@x", "c@x", "ящик@x")[: dice.randrange(1, 4)])
    content = b"Subject: x\r\n\r\n" + marker + b"\r\n"
    signed_in = dice.random() < 0.3
    settings = (
        {"auth": Auth.AUTO, "login": "u", "password": "s3cret-pass", "allow_cleartext": True} if signed_in else {}
    )
    with anything(dice) as (server, heard):
        session = _opened(account(server, security=Security.NONE, **settings), client)
        if session is None:
            return
        for _ in range(4):
            if session.promised is None and not session.alive():
                break
            asked.clear()
            del heard[:]
            following = (envelope, content) if dice.random() < 0.6 else None
            delivery = session.deliver(envelope, content, permit, following=following)
            assert session.promised in {None, following and envelope}
            assert len(delivery.recipients) == len(envelope.recipients)
            assert delivery.permitted == (delivery.permitted and bool(asked))
            if delivery.outcome in {Outcome.ACCEPTED, Outcome.UNCERTAIN}:
                assert delivery.permitted
            if delivery.outcome is Outcome.ACCEPTED:
                assert delivery.reply is not None
                assert delivery.reply.command == "."
                assert 200 <= delivery.reply.code < 300
            if not asked:
                assert b"\r\n.\r\n" not in b"".join(heard) or marker not in b"".join(heard)
            assert (delivery.trouble or "").isprintable()
            assert str(delivery.reply).isprintable()
            if not session.reusable:
                break
        session.close()


def _opened(server: Server, client: Client) -> Session | None:
    try:
        return Session.open(server, client)
    except OpenFailed as error:
        failure = error
    assert failure.step in {"connect", "greeting", "ehlo", "auth"}
    assert str(failure).isprintable()
    assert "s3cret-pass" not in str(failure)
    return None
