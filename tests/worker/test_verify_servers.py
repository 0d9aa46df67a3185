"""The proof of an account against Postfix, npm's smtp-server and aiosmtpd, as `postroom account add` asks for it: what
is right proves, and each of the usual mistakes is named by its step and told how to mend.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.settings import Settings
from postroom.config.states import Auth, Security
from postroom.config.vault import keygen
from postroom.front.access import Access
from postroom.front.account_changes import add_account
from postroom.front.proof import NotProved
from postroom.producer import names
from postroom.producer.identifiers import uuid7
from postroom.worker.process import Process
from postroom.worker.smtp import opening
from postroom.worker.verify import Progress, verify
from servers import peers
from servers.aiosmtpd_server import AiosmtpdServer
from servers.certificates import Certificates
from servers.databases import Databases
from servers.peers import Peer
from servers.redis_server import RedisServer
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import SMTP_TIMEOUTS
from worker.conftest import NotedNudges

STARTTLS, TLS, NONE = Security.STARTTLS, Security.TLS, Security.NONE
OTHER = {STARTTLS: TLS, TLS: STARTTLS}
NAMED_OTHERWISE = "smtp.shop.example"
"""Resolves to the servers, and no certificate of theirs names it."""
RESOLVING = ["resolve", "connect"]
GREETED = {STARTTLS: ["greeting", "ehlo", "starttls", "tls", "ehlo"], TLS: ["tls", "greeting", "ehlo"]}
SENDING = ["mail_from", "rcpt_to", "data", "message"]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def running(certificates: Certificates) -> Iterator[Callable[..., Peer]]:
    """Starts each kind of server once."""
    with ExitStack() as stack:
        started: dict[Any, Peer] = {}

        def start(kind: Any) -> Peer:
            if kind not in started:
                started[kind] = stack.enter_context(kind(certificates))
            return started[kind]

        yield start


@pytest.fixture(params=[peers.postfix, peers.npm, peers.aiosmtpd], ids=lambda kind: kind.__name__)
def peer(request: pytest.FixtureRequest, running: Callable[..., Peer]) -> Peer:
    return running(request.param)


@pytest.fixture(params=[STARTTLS, TLS])
def security(request: pytest.FixtureRequest) -> Security:
    return Security(request.param)


@dataclass
class Front:
    """Where an account is added. A worker of its own takes each proof."""

    access: Access
    process: Process
    told: list[Progress] = field(default_factory=list)

    def add(self, candidate: Account, password: str | None) -> Account:
        return add_account(self.access, candidate, password, self.told.append)

    def refusal(self, candidate: Account, password: str | None) -> NotProved:
        """How adding it fails. Nothing is stored then, and nobody was told the password."""
        self.told.clear()
        with pytest.raises(NotProved) as caught:
            self.add(candidate, password)
        assert self.stored() == []
        assert self.access.redis.keys("postroom:verify:*") == []
        assert [each.step for each in self.told if not each.ok] == [caught.value.step, "done"]
        shown = str(caught.value) + "".join(each.to_json() for each in self.told)
        assert password is None or password not in shown
        return caught.value

    def stored(self) -> list[Account]:
        with self.access.read() as connection:
            return kept.newest(connection, limit=10)

    @property
    def steps(self) -> list[str]:
        """The steps that went well, without the first and the last."""
        return [each.step for each in self.told if each.ok and each.step not in {"worker", "done"}]


@pytest.fixture
def front(
    data_dir: Path,
    redis_server: RedisServer,
    databases: Databases,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Front]:
    with databases.migrated("sqlite", data_dir) as url:
        settings = Settings(
            _env_file=None,
            data_dir=data_dir,
            database_url=url,
            broker_url=redis_server.url,
            smtp_ca_file=certificates.ca_file,
            **SMTP_TIMEOUTS,
        )
        keygen(settings)
        process = Process(settings, NotedNudges())
        process.redis.flushall()
        workers: list[threading.Thread] = []

        def ask(task: str, _queue: str, arguments: list[str], **_: object) -> None:
            if task != names.TASK_VERIFY:
                return
            workers.append(threading.Thread(target=verify, args=(process, UUID(arguments[0]))))
            workers[-1].start()

        with Access(settings) as access:
            monkeypatch.setattr(access.nudges, "ask", ask)
            yield Front(access, process)
        for worker in workers:
            worker.join(10)
        process.close()


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS knows one more name of the servers."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        return real("127.0.0.1" if host == NAMED_OTHERWISE else host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def candidate(peer: Peer, security: Security, **changes: Any) -> Account:
    """The account of the server's mailbox, right unless said otherwise."""
    server = peer.account(security, changes.pop("auth", Auth.AUTO))
    right = Account(uuid7(), peer.login, server.host, server.port, server.security, server.auth, login=server.login)
    return replace(right, **changes)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_right_account_is_proved_by_a_letter_that_arrives(front: Front, peer: Peer, security: Security) -> None:
    before = len(peer.letters_to(peer.login, 0))
    added = front.add(candidate(peer, security, name="Магазин"), peer.password)
    assert front.steps == [*RESOLVING, *GREETED[security], "auth", *SENDING]
    assert all(each.ok for each in front.told)
    assert front.told[-1].step == "done"
    assert front.stored() == [added]
    letter = message_from_bytes(peer.letters_to(peer.login, before + 1)[-1], policy=policy.default)
    assert "this mailbox can send" in letter["Subject"]
    assert (letter["From"].addresses[0].display_name, letter["From"].addresses[0].addr_spec) == ("Магазин", peer.login)
    assert letter["Auto-Submitted"] == "auto-generated"


@dataclass(frozen=True)
class Mistake:
    """What somebody gets wrong, and what they are told."""

    changes: Callable[[Peer, Security], dict[str, Any]]
    step: str
    said: str
    hint: str
    password: str | None = Peer.password


MISTAKES = {
    "a wrong password": Mistake(
        lambda *_: {}, "auth", "535", "[Cc]heck login and password.*application password", "wr0ng-password"
    ),
    "a wrong login": Mistake(lambda *_: {"login": "nobody@shop.example"}, "auth", "535", "[Cc]heck login and password"),
    "an address that the login does not own": Mistake(
        lambda peer, _: {"address": peer.foreign_sender},
        "mail_from|rcpt_to",  # Postfix waits with it for RCPT (smtpd_delay_reject)
        "The server said: 553 .*not owned by user info@shop.example",
        "may not send as that From|does not take that From address from this mailbox",
    ),
    "an access token that is none": Mistake(
        lambda *_: {"auth": Auth.XOAUTH2},
        "auth",
        "535|does not offer XOAUTH2",
        "[Cc]heck login and password|It offers .*PLAIN",
        "run-out-token",
    ),
    "no sign-in": Mistake(
        lambda *_: {"auth": Auth.NONE, "login": ""},
        "mail_from|rcpt_to",
        "530 |554 5.7.1 <info@shop.example>: Recipient address rejected: Access denied",
        "This account has auth none; if the server wants a sign-in, set auth auto",
        None,
    ),
    "a name that the certificate does not carry": Mistake(
        lambda *_: {"host": NAMED_OTHERWISE},
        "tls",
        "certificate does not hold",
        "made out to another name: set host to the name",
    ),
    "no such host": Mistake(
        lambda *_: {"host": "no-such-host.invalid"}, "resolve", "no-such-host.invalid", "spelling of host"
    ),
    "a closed port": Mistake(
        lambda *_: {"port": free_port()}, "connect", "127.0.0.1: connection refused", "Check host and port"
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_by_its_step_and_nothing_is_stored(
    front: Front, peer: Peer, security: Security, mistake: Mistake
) -> None:
    before = len(peer.letters_to(peer.login, 0))
    failure = front.refusal(candidate(peer, security, **mistake.changes(peer, security)), mistake.password)
    assert re.fullmatch(mistake.step, failure.step), failure
    assert re.search(mistake.said, failure.why)
    assert re.search(mistake.hint, failure.why)
    assert front.told[-1].hint in failure.why
    assert len(peer.letters_to(peer.login, 0)) == before


def test_the_port_of_another_security_is_found_out(
    front: Front, peer: Peer, security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_SUSPICIOUS_SILENCE_SECONDS", 0.3)
    wrong = candidate(peer, OTHER[security], port=candidate(peer, security).port)
    failure = front.refusal(wrong, peer.password)
    if security is TLS:
        assert failure.step == "greeting"
        assert "This port expects TLS from the start: set security tls" in failure.why
    else:
        assert failure.step == "tls"
        assert "the server speaks plain text on this port. Set security starttls" in failure.why


def test_a_certificate_of_a_ca_of_ones_own_needs_its_file(front: Front, peer: Peer, security: Security) -> None:
    front.process.settings = front.process.settings.model_copy(update={"smtp_ca_file": None})
    failure = front.refusal(candidate(peer, security), peer.password)
    assert failure.step == "tls"
    assert "POSTROOM_SMTP_CA_FILE" in failure.why


@pytest.mark.parametrize("auth", [Auth.PLAIN, Auth.LOGIN])
def test_a_server_without_starttls_gets_no_password(front: Front, auth: Auth) -> None:
    with AiosmtpdServer(login=Peer.login, password=Peer.password) as server:
        account = Account(uuid7(), Peer.login, server.host, server.port, STARTTLS, auth, login=Peer.login)
        failure = front.refusal(account, Peer.password)
        assert failure.step == "starttls"
        assert "the server does not offer STARTTLS. Postroom never goes on unencrypted" in failure.why
        failure = front.refusal(replace(account, security=NONE), Peer.password)
        assert failure.step == "auth"
        assert "no password was sent" in failure.why
        assert "allow_cleartext" in failure.why


def test_a_mechanism_not_offered_is_told_with_those_that_are(front: Front, running: Callable[..., Peer]) -> None:
    peer = running(peers.aiosmtpd)
    failure = front.refusal(candidate(peer, TLS, auth=Auth.CRAM_MD5), peer.password)
    assert failure.step == "auth"
    assert "does not offer CRAM-MD5. It offers LOGIN, PLAIN." in failure.why


@pytest.mark.parametrize(
    ("refused", "wants_sign_in"),
    [("rcpt-550-5.7.1", True), ("mail-530", True), ("rcpt-550-5.1.1", False), ("rcpt-452-4.2.2", False)],
)
def test_a_sign_in_is_thought_of_where_the_reply_leaves_room_for_it(
    front: Front, refused: str, wants_sign_in: bool
) -> None:
    with ScriptedSMTP() as server:
        account = Account(uuid7(), f"{refused}@shop.example", server.host, server.port, NONE, Auth.NONE)
        assert ("auth none" in front.refusal(account, None).why) is wants_sign_in


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_the_host_may_be_an_ipv6_address(
    front: Front, running: Callable[..., Peer], security: Security, host: str
) -> None:
    peer = running(peers.postfix)
    assert front.add(candidate(peer, security, host=host), peer.password).host == "::1"
    assert front.told[1].detail == "::1"
