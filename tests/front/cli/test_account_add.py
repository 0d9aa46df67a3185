"""`postroom account add`: proved by a worker and then stored, or not stored at all."""

import functools
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from postroom.config.accounts import Account
from postroom.config.states import Auth, Security
from postroom.config.vault import Ring
from postroom.front.access import Access
from postroom.front.proof import NotProved, prove
from postroom.producer import names
from postroom.producer.broker import redis_client
from postroom.producer.identifiers import uuid7
from postroom.worker import verify
from servers.aiosmtpd_server import AiosmtpdServer
from servers.redis_server import RedisServer
from servers.scripted_smtp import ScriptedSMTP

LOGIN = "shop@shop.example"
PASSWORD = "right horse"
SHAPE = {
    *("id", "address", "name", "owner", "host", "port", "security", "auth", "login", "active", "priority", "health"),
    *("limits", "verified_at", "allow_cleartext", "pipelining", "health_detail", "created_at", "paused_at"),
    "paused_why",
}
UNLIMITED = {"mails_per_minute": None, "recipients_per_day": None}


def _add(house: Any, server: Any, *more: str, password: str = PASSWORD, address: str = LOGIN) -> Any:
    where = ["--address", address, "--host", server.host, "--port", str(server.port)]
    return house.run("account", "add", *where, *more, "--password-stdin", "--json", stdin=f"{password}\n")


@pytest.mark.usefixtures("worker")
def test_an_account_is_proved_and_stored(house: Any, mailbox: AiosmtpdServer) -> None:
    result = _add(house, mailbox, "--name", "Магазин", "--priority", "3", "--connections", "2")
    assert result.code == 0, result.err
    added = result.json
    assert added.keys() == SHAPE
    assert added["address"] == added["login"] == LOGIN
    assert (added["name"], added["priority"], added["limits"]) == ("Магазин", 3, {"connections": 2, **UNLIMITED})
    assert (added["security"], added["auth"], added["health"]) == ("starttls", "auto", "ok")
    assert added["active"] is True
    assert added["verified_at"].endswith("Z")
    [proof] = mailbox.received
    assert (proof.recipients, proof.login, proof.encrypted) == ((LOGIN,), LOGIN, True)
    told = [line.split()[:2] for line in result.err.splitlines() if line[:1] in "✓✗"]
    assert ["✓", "auth"] in told
    assert ["✓", "message"] in told
    assert house.run("account", "show", LOGIN, "--json").json == added
    assert house.run("account", "list", "--json").json == [added]


@pytest.mark.usefixtures("worker")
def test_the_password_is_stored_sealed_for_its_destination(house: Any, mailbox: AiosmtpdServer) -> None:
    assert _add(house, mailbox).code == 0
    [account] = house.accounts()
    assert account.password is not None
    assert PASSWORD.encode() not in account.password
    ring = Ring.load(house.settings.ring_file)
    assert ring.open(account.password, account.password_identity) == PASSWORD.encode()
    for file in house.folder.glob("postroom.db*"):  # SQLite's
        assert PASSWORD.encode() not in file.read_bytes()


@pytest.mark.usefixtures("worker")
def test_a_wrong_password_is_refused_with_the_step_and_nothing_is_stored(house: Any, mailbox: AiosmtpdServer) -> None:
    result = _add(house, mailbox, password="wrong donkey")
    assert (result.code, result.out) == (1, "")
    last = result.err.splitlines()[-1]
    assert "auth: " in last
    assert "535" in last
    assert "wrong donkey" not in result.err
    assert house.accounts() == []
    assert mailbox.received == []


@pytest.mark.usefixtures("worker")
def test_a_closed_port_is_refused_at_connect(house: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = house.run(
        *("account", "add", "--address", LOGIN, "--host", "127.0.0.1", "--port", str(port), "--auth", "none")
    )
    assert result.code == 1
    assert "✗ connect" in result.err
    assert house.accounts() == []


@pytest.mark.usefixtures("worker")
def test_tls_on_a_port_that_speaks_plain_is_refused_with_a_hint(house: Any, mailbox: AiosmtpdServer) -> None:
    result = _add(house, mailbox, "--security", "tls")
    assert result.code == 1
    assert "✗ tls" in result.err
    assert "587" in result.err
    assert house.accounts() == []


@pytest.mark.usefixtures("worker")
def test_a_password_does_not_go_in_clear_unless_that_is_allowed(
    house: Any, scripted: Callable[..., ScriptedSMTP]
) -> None:
    server = scripted(login=LOGIN, password=PASSWORD, mechanisms=("PLAIN",))
    refused = _add(house, server, "--security", "none")
    assert refused.code == 1
    assert "✗ auth" in refused.err
    assert house.accounts() == []
    assert _add(house, server, "--security", "none", "--allow-cleartext").code == 0


@pytest.mark.usefixtures("worker")
def test_a_mailbox_that_refuses_its_own_address_is_not_stored(house: Any, smtp: ScriptedSMTP) -> None:
    where = ("--host", smtp.host, "--port", str(smtp.port), "--security", "none", "--auth", "none")
    result = house.run("account", "add", "--address", "rcpt-550-5.1.1@shop.example", *where)
    assert result.code == 1
    assert "✗ rcpt_to" in result.err
    assert "550 5.1.1" in result.err.splitlines()[-1]
    assert house.accounts() == []


@pytest.mark.usefixtures("worker")
def test_the_same_account_is_refused_before_it_is_proved_again(house: Any, mailbox: AiosmtpdServer) -> None:
    assert _add(house, mailbox).code == 0
    again = _add(house, mailbox)
    assert again.code == 1
    assert "edit that one" in again.err
    assert len(mailbox.received) == 1


@pytest.mark.usefixtures("worker")
def test_mail_that_was_held_for_want_of_the_account_leaves(house: Any, mailbox: AiosmtpdServer) -> None:
    mail_id = house.take()
    assert house.mail(mail_id)["reason"] == "no_account"
    assert _add(house, mailbox).code == 0
    received = mailbox.wait_received(2)
    assert received[1].recipients == ("anna@client.example",)


def _candidate(server: ScriptedSMTP) -> Account:
    return Account(uuid7(), LOGIN, server.host, server.port, Security.NONE, Auth.NONE)


def test_without_a_worker_it_is_said_in_time_and_a_late_worker_proves_nothing(house: Any, smtp: ScriptedSMTP) -> None:
    with Access(house.settings) as access:
        began = time.monotonic()
        with pytest.raises(NotProved, match=r"postroom worker care.*"):
            prove(access, _candidate(smtp), lambda _: None, worker_seconds=0.3)
        assert time.monotonic() - began < 10
    [(task, [proof_id])] = house.nudged(names.QUEUE_CARE)
    assert task == names.TASK_VERIFY
    assert house.redis.keys("postroom:verify:*") == []
    verify.verify(house.process, proof_id)
    assert smtp.accepted == []


def _instead_of_asking(access: Access, monkeypatch: pytest.MonkeyPatch, do: Callable[[UUID], None]) -> None:
    """What happens when a worker is asked for a proof."""
    monkeypatch.setattr(access.nudges, "ask", lambda _task, _queue, arguments, **_: do(UUID(arguments[0])))


def test_a_worker_that_takes_the_proof_at_the_last_moment_is_waited_for(
    house: Any, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_and_tell_late(proof_id: UUID) -> None:
        def tell() -> None:
            for step in ("worker", "done"):
                house.redis.xadd(verify.steps_key(proof_id), {"progress": verify.Progress(step, True).to_json()})

        house.redis.delete(verify.candidate_key(proof_id))
        late.append(threading.Timer(0.5, tell))
        late[0].start()

    late: list[threading.Timer] = []
    told: list[verify.Progress] = []
    with Access(house.settings) as access:
        _instead_of_asking(access, monkeypatch, take_and_tell_late)
        prove(access, _candidate(smtp), told.append, worker_seconds=0.1)
    late[0].join(10)  # before its Redis goes
    assert [each.step for each in told] == ["worker", "done"]


def test_a_worker_that_falls_silent_is_said(house: Any, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch) -> None:
    with Access(house.settings) as access:
        _instead_of_asking(access, monkeypatch, lambda proof_id: house.redis.delete(verify.candidate_key(proof_id)))
        with pytest.raises(NotProved, match="may have died"):
            prove(access, _candidate(smtp), lambda _: None, worker_seconds=0.1, step_seconds=0.2)


def test_a_proof_that_is_broken_off_leaves_nothing_to_prove(
    house: Any, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with Access(house.settings) as access:
        _instead_of_asking(access, monkeypatch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            prove(access, _candidate(smtp), lambda _: None)
    assert house.redis.keys("postroom:verify:*") == []


def test_the_candidate_lies_sealed_in_redis(house: Any, smtp: ScriptedSMTP, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    with Access(house.settings) as access:
        _instead_of_asking(
            access, monkeypatch, lambda proof_id: seen.append(house.redis.get(verify.candidate_key(proof_id)))
        )
        with pytest.raises(NotProved):
            prove(access, _candidate(smtp), lambda _: None, worker_seconds=0.05)
    [candidate] = seen
    assert LOGIN.encode() not in candidate


def test_with_redis_away_it_is_said_and_nothing_is_stored(house: Any, smtp: ScriptedSMTP, monkeypatch: Any) -> None:
    monkeypatch.setenv("POSTROOM_BROKER_URL", "redis+socket:///tmp/postroom-no-such.sock")
    began = time.monotonic()
    result = _add(house, smtp)
    assert time.monotonic() - began < 10
    assert result.code == 1
    assert "POSTROOM_BROKER_URL" in result.err
    assert house.accounts() == []


def test_redis_that_does_not_answer_is_waited_for_a_bounded_time(
    house: Any, smtp: ScriptedSMTP, monkeypatch: Any
) -> None:
    hasty = functools.partial(redis_client, timeout_seconds=0.2)
    monkeypatch.setattr("postroom.producer.broker.redis_client", hasty)
    with RedisServer() as frozen:
        monkeypatch.setenv("POSTROOM_BROKER_URL", frozen.url)
        frozen.pause()
        result = _add(house, smtp)
        frozen.resume()
    assert result.code == 1
    assert "POSTROOM_BROKER_URL" in result.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--address", "no address", "--host", "h"], "--address"),
        (["--address", LOGIN], "--host"),
        (["--address", LOGIN, "--host", "a host"], "--host"),
        (["--address", LOGIN, "--host", "h", "--port", "70000"], "--port"),
        (["--address", LOGIN, "--host", "h", "--security", "ssl"], "--security"),
        (["--address", LOGIN, "--host", "h", "--auth", "kerberos"], "--auth"),
        (["--address", LOGIN, "--host", "h", "--owner", "a b"], "--owner"),
        (["--address", LOGIN, "--host", "h", "--name", "a\nb"], "--name"),
        (["--address", LOGIN, "--host", "h", "--connections", "0"], "--connections"),
        (["--address", LOGIN, "--host", "h", "--auth", "none"], "--password-stdin"),
        (["--address", LOGIN, "--host", "h", "--password-file", "nowhere"], "--password-file"),
    ],
)
def test_what_is_wrong_is_named_by_its_option(house: Any, words: list[str], named: str) -> None:
    result = house.run("account", "add", *words, "--password-stdin", stdin="secret\n")
    assert result.code == 2
    assert named in " ".join(result.err.split())
    assert house.nudged(names.QUEUE_CARE) == []


def test_without_a_terminal_the_password_has_to_come_from_somewhere(house: Any) -> None:
    result = house.run("account", "add", "--address", LOGIN, "--host", "h", stdin="secret\n")
    assert result.code == 2
    assert "--password-stdin" in result.err
    assert "--password-file" in result.err


def test_a_password_is_no_argument(house: Any) -> None:
    result = house.run("account", "add", "--address", LOGIN, "--host", "h", "--password", "secret")
    assert result.code == 2


@pytest.mark.parametrize("stdin", ["", "\n", "two\nlines\n"])
def test_what_is_no_password_is_refused(house: Any, stdin: str) -> None:
    result = house.run("account", "add", "--address", LOGIN, "--host", "h", "--password-stdin", stdin=stdin)
    assert result.code == 2


@pytest.mark.usefixtures("worker")
def test_the_password_may_lie_in_a_file(house: Any, mailbox: AiosmtpdServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{PASSWORD}\r\n")
    where = ("--address", LOGIN, "--host", mailbox.host, "--port", str(mailbox.port))
    assert house.run("account", "add", *where, "--password-file", str(secret)).code == 0


@pytest.mark.parametrize(
    ("given", "security", "port"),
    [
        ([], "starttls", 587),
        (["--port", "465"], "tls", 465),
        (["--port", "587"], "starttls", 587),
        (["--port", "2525"], "starttls", 2525),
        (["--port", "25"], "starttls", 25),
        (["--security", "tls"], "tls", 465),
        (["--security", "none"], "none", 25),
    ],
)
def test_what_is_not_given_is_as_usual_and_said(
    house: Any, monkeypatch: pytest.MonkeyPatch, given: list[str], security: str, port: int
) -> None:
    asked: list[Account] = []

    def refuse(_: object, candidate: Account, *__: object) -> None:
        asked.append(candidate)
        raise NotProved("worker", "not here")

    monkeypatch.setattr("postroom.front.account_changes.prove", refuse)
    result = house.run("account", "add", "--address", LOGIN, "--host", "h", *given, "--auth", "none")
    assert (asked[0].security, asked[0].port) == (security, port)
    assert "usual" in result.err
