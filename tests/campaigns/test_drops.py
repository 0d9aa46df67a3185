"""A server that drops the connection at each verb, in each way, while it takes mail: no copy is unannounced."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from campaigns.announced import announced_exactly, ended_uncertain
from campaigns.house import House
from long_form import LONG
from postroom.config.states import Auth, Security
from servers.certificates import Certificates
from servers.databases import KINDS, Databases
from servers.redis_server import RedisServer
from servers.scripted_smtp import Drop, Fault, Lost, ScriptedSMTP

pytestmark = pytest.mark.timeout(900 if LONG else 120)

MAILS = 500 if LONG else 40
TIMES = 5 if LONG else 1
SETTLES_IN_SECONDS = 300 if LONG else 80

CONNECTIONS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "plain": ({"allow_cleartext": True}, ("connect", "EHLO", "AUTH")),
    "starttls": ({"security": Security.STARTTLS}, ("connect", "EHLO", "STARTTLS", "handshake", "AUTH")),
}
"""Fields of an account, and what its connections open with."""
OF_A_MAIL = ("MAIL", "RCPT", "DATA", "content", ".")
AFTERWARDS = ("RSET", "QUIT")

WAYS: tuple[dict[str, bool], ...] = ({}, {"reset": True}, {"half": True})
DROPS: list[Fault | None] = [Drop(**way) for way in WAYS]
LOSSES: list[Fault | None] = [Lost(**way) for way in WAYS]


@pytest.fixture(scope="module", params=KINDS if LONG else ["postgresql"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """With every worker at work, and a server that knows a login. Sessions grow old soon, so that many are opened."""
    folder: Path = tmp_path_factory.mktemp("house")
    certificates = Certificates(folder)
    smtp = ScriptedSMTP(
        size_bytes=None,
        certificate=certificates.good,
        login="shop",
        password="secret",
        auth_before_tls=True,
    )
    chosen = {"smtp_ca_file": certificates.ca_file, "session_age_seconds": 0.5, "session_idle_seconds": 0.3}
    with (
        databases.migrated(request.param, folder) as url,
        RedisServer() as redis_server,
        House(folder, url, redis_server, smtp, **chosen) as house,
    ):
        for kind in ("accept", "care", "drain"):
            house.start(kind)
        yield house


def open_books(house: House, security: str, *, connections: int) -> None:
    fields, _ = CONNECTIONS[security]
    house.open_books(connections=connections, auth=Auth.AUTO, login="shop", password="secret", **fields)


@pytest.mark.parametrize("security", CONNECTIONS if LONG else ["plain"])
def test_drops_at_every_verb_in_random_order(house: House, dice: random.Random, security: str) -> None:
    house.smtp.script({})
    open_books(house, security, connections=4)

    def shuffled(faults: list[Fault | None], usual: int) -> list[Fault | None]:
        due = [*faults * TIMES, *[None] * usual]
        dice.shuffle(due)
        return due

    at_the_dot = [*DROPS, *LOSSES]
    script = {verb: shuffled(DROPS, MAILS // 2) for verb in OF_A_MAIL} | {".": shuffled(at_the_dot, MAILS // 2)}
    _, opening = CONNECTIONS[security]
    house.smtp.script(script | dict.fromkeys(AFTERWARDS, DROPS * TIMES) | dict.fromkeys(opening, DROPS * TIMES))
    for _ in range(MAILS // 20):
        house.enqueue(13, priority="high")
        house.enqueue(2, text="Thank you\n" * 20_000)
        house.enqueue(3, to="rcpt-550-5.1.1@client.example")
        house.enqueue(2, priority="bulk")
    house.settle(SETTLES_IN_SECONDS)
    while house.smtp.faults_left:  # another connection, and on it a mail that follows a refused one
        house.smtp.wait_connections_closed(5)
        house.enqueue(2, to="rcpt-550-5.1.1@client.example")
        house.enqueue(2)
        house.settle(SETTLES_IN_SECONDS)
    books = house.books()
    uncertain = ended_uncertain(house)
    print(f"{security}: {uncertain} attempts ended uncertain, {house.smtp.connections} connections; {books}")
    assert books.balance, books
    assert books.sent + books.failed + books.held == books.enqueued
    assert announced_exactly(house)
    noticed_late = len(DROPS) * TIMES  # the dot was written before it was seen that nobody read the content
    assert len(at_the_dot) * TIMES <= uncertain <= len(at_the_dot) * TIMES + noticed_late
    assert books.doubled_announced <= len(LOSSES) * TIMES


@pytest.mark.parametrize(
    ("at_the_dot", "priority", "twice", "held"),
    [
        pytest.param(LOSSES, "high", 3, 0, id="taken"),
        pytest.param(DROPS, "high", 0, 0, id="not-taken"),
        pytest.param(LOSSES, "bulk", 0, 3, id="taken-bulk"),
    ],
)
def test_dropped_after_the_dot(
    house: House, at_the_dot: list[Fault | None], priority: str, twice: int, held: int
) -> None:
    """It is sent once more, and says so; only a bulk mail is held."""
    open_books(house, "plain", connections=1)
    house.smtp.script({".": at_the_dot})
    house.enqueue(6, priority=priority)
    house.settle(SETTLES_IN_SECONDS)
    books = house.books()
    assert books.balance, books
    assert (books.sent, books.held, books.doubled_announced) == (6 - held, held, twice)
    assert ended_uncertain(house) == 3
    assert announced_exactly(house)
