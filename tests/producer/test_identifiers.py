"""Ids are in the order of their making, and a key has the same id for ever."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from postroom.producer.identifiers import keyed_id, uuid7


def test_ids_are_versions_7_in_order_of_time() -> None:
    before = time.time_ns() // 1_000_000
    made = [uuid7() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {each.version for each in made} == {7}
    assert before <= made[0].int >> 80 <= time.time_ns() // 1_000_000


def test_ids_of_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = [each for ids in pool.map(lambda _: [uuid7() for _ in range(500)], range(16)) for each in ids]
    assert len(set(made)) == len(made)


def test_a_key_has_one_id_for_ever() -> None:
    assert keyed_id("site", "order-7") == UUID("32efbfd4-cc62-5146-85c6-595d38897a3c")
    assert len({keyed_id("site", "a"), keyed_id("site", "b"), keyed_id("crm", "a"), keyed_id("sit", "ea")}) == 4
