"""Ids are in the order of their making, and a key has the same id for ever."""

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from postroom.producer.identifiers import Ids, keyed_id, uuid7


def test_ids_are_of_version_7_in_order_of_time() -> None:
    before = time.time_ns() // 1_000_000
    made = [uuid7() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert before <= made[0].int >> 80 <= made[-1].int >> 80 <= time.time_ns() // 1_000_000 + 1


def test_order_is_kept_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = uuid7()
    hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: hour_ago)
    made = [first, *(uuid7() for _ in range(1000))]
    assert made == sorted(set(made))
    assert {each.version for each in made} == {7}


def test_ids_of_many_threads_differ_and_are_in_order_within_each() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [uuid7() for _ in range(500)], range(16)))
    assert all(ids == sorted(ids) for ids in made)
    assert len({each for ids in made for each in ids}) == 16 * 500


@pytest.mark.parametrize(
    ("producer", "key", "known"),
    [
        # Written down here, as another namespace or spelling would send every keyed mail a second time.
        ("site", "order-7", "32efbfd4-cc62-5146-85c6-595d38897a3c"),
        ("crm", "заказ 7", "85d2d72d-85b5-5c3f-a0d7-4833b01c587b"),
    ],
)
def test_a_key_has_one_id_for_ever(producer: str, key: str, known: str) -> None:
    assert keyed_id(producer, key) == UUID(known)


def test_producer_and_key_are_told_apart() -> None:
    pairs = [("site", "a"), ("site", "b"), ("crm", "a"), ("sit", "ea"), ("s", "itea"), ("site", "A")]
    assert len({keyed_id(*pair) for pair in pairs}) == len(pairs)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on; that is what is tried
def test_a_fork_finds_the_guard_free() -> None:
    stop = threading.Event()
    busy = threading.Thread(target=lambda: [uuid7() for _ in iter(stop.is_set, True)])
    busy.start()
    try:
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                uuid7()
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        busy.join()


def test_ids_are_a_sequence_of_little_weight() -> None:
    made = [uuid7() for _ in range(1000)]
    ids = Ids()
    for each in made:
        ids.add(each)
    assert (len(ids), list(ids)) == (1000, made)
    assert ids == made
    assert (ids[0], ids[-1], ids[10:13], ids[::-400]) == (made[0], made[-1], made[10:13], made[::-400])
    assert (made[7] in ids, ids.index(made[7]), uuid7() in ids) == (True, 7, False)
    assert ids != made[1:]
    assert ids != [*made[1:], made[0]]
    assert ids != "text"
    assert not Ids()
    with pytest.raises(IndexError):
        ids[1000]
    assert sys.getsizeof(ids._bytes) < 20 * 1000
