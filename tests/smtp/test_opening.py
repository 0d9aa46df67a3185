"""Opening a session, step by step, and every way in which a step can fail."""

import socket
import threading
import time
from collections.abc import Callable

import pytest

from postroom.config.states import Effect, Scope, Security
from postroom.worker.smtp import network, opening
from postroom.worker.smtp.server import Client, default_hello_name
from postroom.worker.smtp.session import OpenFailed, Session, Step
from servers.certificates import Certificates
from servers.scripted_smtp import Drop, Extra, Fault, Fragments, Hang, Reply, ScriptedSMTP
from servers.smtp_client import At, account, failure

Scripted = Callable[..., ScriptedSMTP]
Opened = Callable[..., Session]


def test_plain_session_knows_what_the_server_offers(scripted: Scripted, opened: Opened) -> None:
    session = opened(scripted(size_bytes=1000))
    assert session.reusable
    assert session.extensions.size_bytes == 1000
    assert session.extensions.pipelining
    assert session.extensions.eight_bit_mime
    assert session.extensions.enhanced_status_codes
    assert not session.extensions.smtputf8
    assert session.extensions.auth == frozenset()


def test_the_hello_name_is_the_clients(scripted: Scripted, opened: Opened) -> None:
    server = scripted()
    opened(server)
    assert server.commands == ["EHLO client.example"]


def test_starttls_forgets_what_was_said_before_it(
    scripted: Scripted, opened: Opened, certificates: Certificates
) -> None:
    server = scripted(certificate=certificates.good, login="u", password="p")
    session = opened(server, security=Security.STARTTLS)
    assert server.commands == ["EHLO client.example", "STARTTLS", "EHLO client.example"]
    assert "PLAIN" in session.extensions.auth
    assert not session.extensions.starttls


def test_tls_from_the_start(scripted: Scripted, opened: Opened, certificates: Certificates) -> None:
    server = scripted(certificate=certificates.good, implicit_tls=True)
    opened(server, security=Security.TLS)
    assert server.commands == ["EHLO client.example"]


def test_steps_are_told_as_they_end(scripted: Scripted, patient: Client, certificates: Certificates) -> None:
    steps: list[Step] = []
    server = scripted(certificate=certificates.good)
    Session.open(account(server, security=Security.STARTTLS, host="localhost"), patient, on_step=steps.append).close()
    assert [step.name for step in steps] == [
        "resolve",
        "connect",
        "greeting",
        "ehlo",
        "starttls",
        "tls",
        "ehlo",
    ]
    assert all(step.ok and step.duration_seconds >= 0 for step in steps)
    assert "127.0.0.1" in steps[0].detail
    assert steps[5].detail.startswith("TLSv1.3, certificate of localhost")


def test_the_failed_step_is_told_too(scripted: Scripted, patient: Client) -> None:
    steps: list[Step] = []
    with pytest.raises(OpenFailed):
        Session.open(account(scripted(), security=Security.STARTTLS), patient, on_step=steps.append)
    assert (steps[-1].name, steps[-1].ok, steps[-1].detail) == (
        "starttls",
        False,
        "the server does not offer STARTTLS",
    )


def test_starttls_is_required(scripted: Scripted, patient: Client) -> None:
    server = scripted()
    error = failure(server, patient, security=Security.STARTTLS)
    assert error.step == "starttls"
    assert "set security tls" in error.hint
    assert error.verdict is None
    assert "STARTTLS" not in server.commands


def test_a_refused_starttls_is_no_permission_to_go_on(
    scripted: Scripted, patient: Client, certificates: Certificates
) -> None:
    server = scripted(certificate=certificates.good, on={"STARTTLS": Reply("454 4.7.0 TLS not available")})
    error = failure(server, patient, security=Security.STARTTLS)
    assert error.step == "starttls"
    assert str(error.reply) == "454 4.7.0 TLS not available"
    assert error.verdict is not None
    assert error.verdict.effect is Effect.SLOW


def test_plain_text_after_starttls_is_an_attack(
    scripted: Scripted, patient: Client, certificates: Certificates
) -> None:
    server = scripted(certificate=certificates.good, on={"STARTTLS": Extra("250-evil.example\n250 AUTH PLAIN")})
    error = failure(server, patient, security=Security.STARTTLS)
    assert error.step == "starttls"
    assert "plain text" in str(error)


def test_a_slow_greeting_is_waited_for(
    scripted: Scripted, opened: Opened, monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    monkeypatch.setattr(opening, "_SUSPICIOUS_SILENCE_SECONDS", 0.1)
    release = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            first, _ = listener.accept()
            second, _ = listener.accept()  # the look whether the port speaks TLS
            second.recv(1000)
            second.close()
            first.sendall(b"220 at last\r\n")
            first.recv(1000)
            first.sendall(b"250 hello\r\n")
            release.wait(5)
            first.close()

        thread = threading.Thread(target=serve)
        thread.start()
        session = opened(At("127.0.0.1", listener.getsockname()[1]))
        assert session.alive()
        release.set()
        thread.join(5)


@pytest.mark.parametrize(
    ("verb", "step"),
    [("connect", "greeting"), ("EHLO", "ehlo"), ("STARTTLS", "starttls"), ("handshake", "tls"), ("AUTH", "auth")],
)
@pytest.mark.parametrize("fault", [Hang(), Drop(), Drop(reset=True)])
def test_silence_and_drops_end_the_step(  # noqa: PLR0917 - fixtures and parameters
    scripted: Scripted, hasty: Client, certificates: Certificates, verb: str, step: str, fault: Fault
) -> None:
    server = scripted(certificate=certificates.good, login="u", password="p", on={verb: fault})
    began = time.monotonic()
    error = failure(server, hasty, security=Security.STARTTLS, auth="plain", login="u", password="p")
    assert time.monotonic() - began < 20, "not the minutes that are usual"
    # A reset right after the connection was made can overtake the news that it was made.
    assert error.step == step or (step == "greeting" and fault == Drop(reset=True) and error.step == "connect")
    assert error.verdict is None
    assert error.reply is None


@pytest.mark.parametrize(
    "garbage",
    [b"HTTP/1.1 400 Bad Request\r\n", b"\xff\xfe\x00rubbish\r\n", b"22 short\r\n", b"999 no such class\r\n", b"\r\n"],
)
def test_garbage_for_a_greeting(scripted: Scripted, patient: Client, garbage: bytes) -> None:
    error = failure(scripted(on={"connect": Reply(garbage)}), patient)
    assert error.step == "greeting"
    assert "does not speak SMTP" in str(error)
    assert "\\x" not in str(error)


@pytest.mark.parametrize(
    "banner", [b"220-" + b"x" * 10_000_000, b"220-again\r\n" * 900_000], ids=["one line", "many lines"]
)
def test_ten_megabytes_of_banner(scripted: Scripted, patient: Client, banner: bytes) -> None:
    error = failure(scripted(on={"connect": Reply(banner)}), patient)
    assert error.step == "greeting"
    assert "no end" in str(error)


def test_a_long_line_is_cut_and_a_long_banner_is_taken(scripted: Scripted, opened: Opened) -> None:
    banner = b"220-" + b"x" * 6000 + b"\r\n" + b"220-more\r\n" * 500 + b"220 ready\r\n"
    assert opened(scripted(on={"connect": Reply(banner)})).alive()


def test_a_reply_in_single_bytes(scripted: Scripted, opened: Opened) -> None:
    session = opened(scripted(on={"connect": Fragments(), "EHLO": Fragments()}))
    assert session.extensions.pipelining


def test_a_reply_that_drips_for_ever_ends_at_the_time_out(hasty: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not stop.wait(0.02):
                    try:
                        connection.sendall(b"220-drip\r\n")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        server = At("127.0.0.1", listener.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(OpenFailed, match="no reply within"):
            Session.open(account(server), hasty)
        stop.set()
        assert time.monotonic() - began < 20
        thread.join(5)


def test_a_greeting_that_refuses(scripted: Scripted, patient: Client) -> None:
    error = failure(scripted(on={"connect": Reply("554 5.7.1 no SMTP service here")}), patient)
    assert error.step == "greeting"
    assert error.reply is not None
    assert error.reply.command == "greeting"
    assert error.verdict is not None
    assert error.verdict.scope is Scope.ACCOUNT
    assert "554 5.7.1 no SMTP service here" in str(error)


def test_a_greeting_of_421_slows_the_account_down(scripted: Scripted, patient: Client) -> None:
    error = failure(scripted(on={"connect": Reply("421 4.7.0 try again in 120 seconds")}), patient)
    assert error.verdict is not None
    assert error.verdict.effect is Effect.SLOW
    assert error.verdict.wait_seconds == 120


def test_helo_where_ehlo_is_unknown(scripted: Scripted, opened: Opened) -> None:
    server = scripted(on={"EHLO": Reply("502 5.5.2 what?")})
    session = opened(server)
    assert server.commands == ["EHLO client.example", "HELO client.example"]
    assert not session.extensions.pipelining


def test_a_hello_that_nobody_takes(scripted: Scripted, patient: Client) -> None:
    server = scripted(on={"EHLO": Reply("502 what?"), "HELO": Reply("550 go away")})
    error = failure(server, patient)
    assert error.step == "ehlo"
    assert error.reply is not None
    assert (error.reply.command, error.reply.code) == ("HELO", 550)


def test_an_unknown_host(patient: Client) -> None:
    nowhere = At("no-such-host.invalid", 25)
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(nowhere), patient)
    assert caught.value.step == "resolve"
    assert "spelling" in caught.value.hint


@pytest.mark.parametrize("host", ["", "a" * 64 + ".example", "nul\0.example"])
def test_a_host_that_is_no_name(patient: Client, host: str) -> None:
    nowhere = At(host, 1)
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(nowhere), patient)
    assert caught.value.step in {"resolve", "connect"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_closed_port(patient: Client) -> None:
    closed = At("127.0.0.1", free_port())
    with pytest.raises(OpenFailed) as caught:
        Session.open(account(closed), patient)
    assert caught.value.step == "connect"
    assert "127.0.0.1: connection refused" in str(caught.value)


def test_ipv6(scripted: Scripted, opened: Opened) -> None:
    assert opened(scripted(host="::1")).alive()


def test_addresses_are_tried_in_turn(scripted: Scripted, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    server = scripted()
    addresses = [*network.resolve("::1", server.port), *network.resolve("127.0.0.1", server.port)]
    monkeypatch.setattr(network, "resolve", lambda _host, _port: addresses)
    assert opened(server).alive()


def test_a_silent_address_leaves_time_for_the_next(scripted: Scripted) -> None:
    server = scripted()
    with socket.socket() as full:  # nobody accepts, and the backlog is full: further connects get no answer
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        addresses = [*network.resolve("127.0.0.1", port), *network.resolve("127.0.0.1", server.port)]
        began = time.monotonic()
        connection, address = network.connect(addresses, timeout_seconds=6)
        connection.close()
        assert 2.9 < time.monotonic() - began < 5.9
        assert address == addresses[1]
        with pytest.raises(TimeoutError, match=r"127\.0\.0\.1: no answer in time"):
            network.connect(addresses[:1], timeout_seconds=0.2)
        for filler in fillers:
            filler.close()


def test_the_guard_is_asked_before_each_connect(scripted: Scripted, patient: Client) -> None:
    server = scripted()
    asked: list[str] = []

    def guard(ip: str) -> None:
        asked.append(ip)
        raise PermissionError("loopback addresses are not allowed here")

    with pytest.raises(OpenFailed, match="loopback addresses are not allowed here") as caught:
        Session.open(account(server), patient, guard=guard)
    assert caught.value.step == "connect"
    assert asked == ["127.0.0.1"]
    assert server.connections == 0


def test_default_hello_name_is_a_full_name_or_a_literal() -> None:
    name = default_hello_name()
    assert name == "[127.0.0.1]" or "." in name
