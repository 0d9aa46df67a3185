"""The pool hands out sessions that can be used, and only those."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from postroom.config.states import Outcome
from postroom.worker.smtp.pool import Pool
from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Envelope, Session
from servers.scripted_smtp import ScriptedSMTP
from servers.smtp_client import LETTER, account, permitted

MakePool: TypeAlias = Callable[..., Pool]
KEY = (1, 1)


@pytest.fixture
def server() -> Iterator[ScriptedSMTP]:
    with ScriptedSMTP() as running:
        yield running


@pytest.fixture
def make_pool(patient: Client) -> Iterator[MakePool]:
    pools: list[Pool] = []

    def make(idle_seconds: float = 60, age_seconds: float = 60) -> Pool:
        pools.append(Pool(patient, idle_seconds, age_seconds))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close_all()


def take(pool: Pool, server: ScriptedSMTP, key: object = KEY) -> Session:
    return pool.take(key, lambda: Session.open(account(server), pool.client))


def test_a_session_given_back_is_handed_out_again(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    first = take(pool, server)
    pool.give_back(KEY, first)
    assert pool.idle_count == 1
    assert take(pool, server) is first
    assert pool.idle_count == 0
    pool.give_back(KEY, first)
    assert server.connections == 1


def test_two_at_once_are_two_sessions(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    first, second = take(pool, server), take(pool, server)
    assert first is not second
    pool.give_back(KEY, first)
    pool.give_back(KEY, second)
    assert take(pool, server) is second
    pool.give_back(KEY, second)


def test_another_version_gets_no_session_of_the_old(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    old = take(pool, server, (1, 1))
    pool.give_back((1, 1), old)
    new = take(pool, server, (1, 2))
    assert new is not old
    pool.give_back((1, 2), new)


def test_forget_closes_every_version_of_one_account(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    sessions = {key: take(pool, server, key) for key in [("a", 1), ("a", 2), ("b", 1)]}
    for key, session in sessions.items():
        pool.give_back(key, session)
    pool.forget("a")
    assert pool.idle_count == 1
    assert server.commands.count("QUIT") == 2
    assert take(pool, server, ("b", 1)) is sessions["b", 1]
    pool.give_back(("b", 1), sessions["b", 1])


def test_a_session_that_is_not_reusable_is_closed(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    session = take(pool, server)
    session.deliver(Envelope("a@x", ("b@x",)), LETTER, lambda: False)
    pool.give_back(KEY, session)
    assert pool.idle_count == 0
    server.wait_connections_closed()


def test_a_session_closed_by_the_server_is_not_handed_out(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    first = take(pool, server)
    pool.give_back(KEY, first)
    server.disconnect_all()
    second = take(pool, server)
    assert second is not first
    assert second.deliver(Envelope("a@x", ("b@x",)), LETTER, permitted).outcome is Outcome.ACCEPTED
    pool.give_back(KEY, second)


@pytest.mark.parametrize("which", ["opened_at", "last_used_at"])
def test_a_session_too_old_is_not_handed_out(server: ScriptedSMTP, make_pool: MakePool, which: str) -> None:
    pool = make_pool()
    first = take(pool, server)
    pool.give_back(KEY, first)
    setattr(first, which, time.monotonic() - 61)
    second = take(pool, server)
    assert second is not first
    setattr(second, which, time.monotonic() - 61)
    pool.give_back(KEY, second)
    assert pool.idle_count == 0
    server.wait_connections_closed()


@pytest.mark.parametrize("limits", [{"idle_seconds": 0.2}, {"age_seconds": 0.2}], ids=str)
def test_idle_sessions_are_closed_by_themselves(
    server: ScriptedSMTP, make_pool: MakePool, limits: dict[str, float]
) -> None:
    pool = make_pool(**limits)
    pool.give_back(KEY, take(pool, server))
    assert pool.idle_count == 1
    server.wait_connections_closed()
    assert pool.idle_count == 0
    assert server.commands[-1] == "QUIT"


def test_a_session_is_idle_since_its_last_mail(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    session = take(pool, server)
    session.last_used_at -= 61
    session.deliver(Envelope("a@x", ("b@x",)), LETTER, permitted)
    pool.give_back(KEY, session)
    assert take(pool, server) is session
    pool.give_back(KEY, session)


def test_close_all_closes_now_and_later(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    kept, out = take(pool, server), take(pool, server)
    pool.give_back(KEY, kept)
    pool.close_all()
    pool.give_back(KEY, out)
    server.wait_connections_closed()
    assert pool.idle_count == 0
    assert not any(thread.name == "smtp-pool" and thread.is_alive() for thread in threading.enumerate())


def test_an_error_in_opening_passes_through(make_pool: MakePool) -> None:
    def fails() -> Session:
        raise ConnectionError("no")

    with pytest.raises(ConnectionError, match="no"):
        make_pool().take(KEY, fails)


def test_many_threads(server: ScriptedSMTP, make_pool: MakePool) -> None:
    pool = make_pool()
    in_use: set[int] = set()
    lock = threading.Lock()
    doubles: list[int] = []

    def work() -> None:
        for _ in range(20):
            session = take(pool, server)
            with lock:
                if id(session) in in_use:
                    doubles.append(id(session))
                in_use.add(id(session))
            assert session.deliver(Envelope("a@x", ("b@x",)), LETTER, permitted).outcome is Outcome.ACCEPTED
            with lock:
                in_use.discard(id(session))
            pool.give_back(KEY, session)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert doubles == []
    assert len(server.accepted) == 120
    assert server.connections <= 6
