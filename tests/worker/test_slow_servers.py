"""Servers that do not answer, by the hundred, and a real drain with few threads: the mail of other lanes goes on."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import delete, func, insert, select, update

from campaigns.house import PATIENCE_SECONDS, House
from long_form import LONG
from postroom.config import accounts as kept
from postroom.config.accounts import Account
from postroom.config.states import Auth, MailState, Security
from postroom.config.tables import accounts, letters, mails, recipients, slots
from postroom.producer.identifiers import uuid7
from servers.command import wait_until
from servers.databases import KINDS, Databases
from servers.redis_server import RedisServer
from servers.scripted_smtp import Hang, ScriptedSMTP

pytestmark = pytest.mark.timeout(300 if LONG else 120)

WAITING = 10_000 if LONG else 500
HANGING = 200
TRIALS = 20 if LONG else 8
BEGINNING_SECONDS = 20
"""Lanes that begin by the hundred are work for a busy machine, but far less than one silent server's 300 s."""
LATER_SECONDS = 1 if LONG else 20
"""1; the tests of a suite share a machine, and any step of theirs may take seconds."""
_READY = {"state": MailState.QUEUED, "ready": True, "claim": None, "claimed_at": None, "marked_at": None}


@pytest.fixture(scope="module", params=KINDS if LONG else ["sqlite"])
def house(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """With an accept and a care at work, and a drain of each test's own."""
    folder = tmp_path_factory.mktemp("house")
    with (
        databases.migrated(request.param, folder) as url,
        RedisServer() as redis_server,
        House(folder, url, redis_server) as house,
    ):
        house.settings = house.settings.model_copy(update={"lease_seconds": 60.0})
        for kind in ("accept", "care"):
            house.start(kind)
        yield house


@pytest.fixture(autouse=True)
def _alone(house: House) -> Iterator[None]:
    """No test is troubled by the drain and the lanes of the one before."""
    yield
    house.kill("drain")
    with house.database.write() as connection:
        connection.execute(update(accounts).values(active=False))
        connection.execute(delete(slots))


@pytest.fixture
def silent() -> Iterator[ScriptedSMTP]:
    """Takes connections and never says a word."""
    with ScriptedSMTP(on={"connect": Hang()}) as server:
        yield server


def add_accounts(house: House, server: ScriptedSMTP, count: int) -> list[Account]:
    with house.database.write() as connection:
        return [
            kept.add(
                connection,
                Account(
                    id=(account_id := uuid7()),
                    address=f"slow-{account_id.hex}@shop.example",
                    host=server.host,
                    port=server.port,
                    security=Security.NONE,
                    auth=Auth.NONE,
                ),
            )
            for _ in range(count)
        ]


def fill(house: House, lanes: Sequence[Account], count: int, **changes: Any) -> None:
    """Let so many mails wait in each lane: copies of one that was really handed over."""
    [pattern] = house.enqueue(1, from_=lanes[0].address, **changes)
    house.handed_over.clear()
    wait_until(lambda: _one(house, pattern) is not None)
    mail = _one(house, pattern)
    assert mail is not None
    with house.database.read() as connection:
        its = dict(connection.execute(select(recipients).where(recipients.c.mail_id == pattern)).one()._mapping)
        letter = connection.execute(select(letters.c.sealed).where(letters.c.mail_id == pattern)).scalar_one()
    copies = [
        {**mail, **_READY, "id": uuid7(), "account_id": lane.id, "from_key": lane.address_key}
        for lane in lanes
        for _ in range(count)
    ]
    with house.database.write() as connection:
        connection.execute(insert(mails), copies)
        connection.execute(insert(recipients), [{**its, "mail_id": each["id"]} for each in copies])
        connection.execute(insert(letters), [{"mail_id": each["id"], "sealed": letter} for each in copies])


def _one(house: House, mail_id: UUID) -> dict[str, Any] | None:
    with house.database.read() as connection:
        row = connection.execute(select(mails).where(mails.c.id == mail_id)).first()
    return None if row is None else dict(row._mapping)


@dataclass
class Delays:
    """How long mails took from being handed over to their arrival, one after another."""

    first: float
    others: list[float]

    @property
    def worst(self) -> float:
        return max([self.first, *self.others])

    def __str__(self) -> str:
        ordered = sorted(self.others)
        return f"first {self.first:.3f} s, then median {ordered[len(ordered) // 2]:.3f} s, worst {ordered[-1]:.3f} s"


def delays(house: House) -> Delays:
    """Of the lane whose server is well."""
    taken = []
    for _ in range(TRIALS):
        before = len(house.smtp.accepted)
        began_at = time.monotonic()
        house.enqueue(1)
        house.smtp.wait_accepted(before + 1, timeout_seconds=60)
        taken.append(time.monotonic() - began_at)
    return Delays(taken[0], taken[1:])


def slots_held(house: House, lanes: Sequence[Account]) -> int:
    with house.database.read() as connection:
        held = select(func.count()).select_from(slots).where(slots.c.account_id.in_([lane.id for lane in lanes]))
        return connection.execute(held).scalar_one()


def nudge_until(house: House, what: Callable[[], bool]) -> None:
    """Wait as beside a scheduler, which asks again for a chore that nobody came to do."""

    def holds() -> bool:
        if what():
            return True
        house.move_time()
        time.sleep(0.5)
        return False

    wait_until(holds, PATIENCE_SECONDS)


def start_drain(house: House, threads: int) -> None:
    house.settings = house.settings.model_copy(update={"drain_threads": threads})
    house.open_books()
    house.start("drain")
    house.enqueue(1)
    house.wait_arrived(1)  # it is up


def test_a_dead_server_with_thousands_of_mails_delays_no_other_lane(house: House, silent: ScriptedSMTP) -> None:
    start_drain(house, threads=4)
    usual = delays(house)
    dead = add_accounts(house, silent, 1)
    fill(house, dead, WAITING)
    wait_until(lambda: silent.connections)
    found = delays(house)
    print(f"{WAITING} mails wait for a dead server; others took: {found}; without it: {usual}")
    assert found.worst - usual.worst < LATER_SECONDS
    assert slots_held(house, dead) == 1
    assert silent.connections <= 2, "a lane alone tries, and looks once whether the port waits for TLS"


def test_many_hanging_servers_do_not_starve_a_lane_that_is_well(house: House, silent: ScriptedSMTP) -> None:
    hanging = add_accounts(house, silent, HANGING)
    start_drain(house, threads=16)
    usual = delays(house)
    house.open_books()  # a lane whose server this drain has not seen yet
    fill(house, hanging, 1)
    nudge_until(house, lambda: slots_held(house, hanging) > 0)
    while_they_are_tried = delays(house)
    nudge_until(house, lambda: slots_held(house, hanging) == HANGING)
    found = delays(house)
    print(f"{HANGING} servers hang, 16 threads; others took: {found}; without them: {usual}")
    print(f"while they are tried for the first time: {while_they_are_tried}")
    assert while_they_are_tried.worst < BEGINNING_SECONDS
    assert found.first < LATER_SECONDS, "it comes after what was said about the others"
    assert max(found.others) - usual.worst < LATER_SECONDS


def test_servers_that_hang_at_the_dot_do_not_starve_others(house: House) -> None:
    with ScriptedSMTP(on={".": Hang()}) as server:
        hanging = add_accounts(house, server, 8)
        start_drain(house, threads=4)
        usual = delays(house)
        for lane in hanging:
            house.enqueue(4, from_=lane.address)
        wait_until(lambda: len(server.accepted) >= 8)
        house.open_books()
        found = delays(house)
        print(f"8 servers hang at the dot, 4 threads; others took: {found}; without them: {usual}")
        assert found.first < BEGINNING_SECONDS, "each of theirs may hold a thread for a second"
        assert max(found.others) - usual.worst < LATER_SECONDS
