"""When a task leaves its lane, and which lanes are not begun while servers do not answer."""

import threading
import time
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest

from postroom.worker import patience
from postroom.worker.patience import Patience, Run
from servers.command import wait_until

TASKS = 4
MOST_ALONE = 2


class Lanes:
    """Lanes that wait for their servers until a test lets them, and what was nudged."""

    def __init__(self) -> None:
        self.nudged: list[UUID] = []
        self.stopping = threading.Event()
        self.patience = Patience(TASKS, self.nudged.append, self.stopping)
        self.answers = threading.Event()
        self.cut = threading.Event()

    def opens(self, run: Run) -> None:
        with run.opening():
            self.answers.wait(20)

    def sends(self, run: Run) -> None:
        run.opened()
        with run.sending(self.cut.set):
            wait_until(lambda: self.answers.is_set() or self.cut.is_set())

    def begin(self, account_id: UUID, lane: Callable[[Run], None]) -> threading.Thread:
        """A task on a thread of its own."""
        task = threading.Thread(target=self.patience.run, args=(account_id, lane))
        task.start()
        return task

    @property
    def at_work(self) -> int:
        return len(self.patience.at_work())

    @property
    def alone(self) -> int:
        return sum(run.alone for run in self.patience.at_work())


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lanes]:
    monkeypatch.setattr(patience, "_PATIENCE_SECONDS", 0.1)
    lanes = Lanes()
    lanes.patience._most_alone = MOST_ALONE
    yield lanes
    lanes.answers.set()
    wait_until(lambda: lanes.at_work == 0)


@pytest.mark.parametrize("what", ["opens", "sends"])
def test_a_task_leaves_a_lane_whose_server_does_not_answer(lanes: Lanes, what: str) -> None:
    lanes.begin(uuid4(), getattr(lanes, what)).join(10)
    assert (lanes.at_work, lanes.alone) == (1, 1)


def test_a_task_stays_with_a_lane_that_is_no_trouble(lanes: Lanes) -> None:
    done = []

    def works(run: Run) -> None:
        run.opened()
        for _ in range(4):
            with run.sending(lanes.cut.set):
                time.sleep(0.05)
        done.append(run.alone)

    lanes.begin(uuid4(), works).join(10)
    assert done == [False]


def test_an_account_not_yet_let_in_gets_one_connection_and_then_more(lanes: Lanes) -> None:
    account_id = uuid4()
    lanes.begin(account_id, lanes.opens)
    wait_until(lambda: lanes.at_work == 1)
    lanes.begin(account_id, lanes.opens).join(10)
    assert lanes.at_work == 1
    assert lanes.patience.opened(account_id)
    lanes.begin(account_id, lanes.opens)
    wait_until(lambda: lanes.at_work == 2)
    lanes.patience.did_not_open(account_id)
    lanes.begin(account_id, lanes.opens).join(10)
    assert lanes.at_work == 2


def test_silent_servers_get_half_of_the_tasks_when_no_more_may_wait_alone(lanes: Lanes) -> None:
    for _ in range(MOST_ALONE):
        lanes.begin(uuid4(), lanes.opens).join(10)
    tasks = [lanes.begin(uuid4(), lanes.opens) for _ in range(TASKS // 2)]
    wait_until(lambda: lanes.at_work == MOST_ALONE + TASKS // 2)
    refused = uuid4()
    lanes.begin(refused, lanes.opens).join(10)
    assert lanes.at_work == MOST_ALONE + TASKS // 2
    well = uuid4()
    lanes.patience.opened(well)
    ran = threading.Event()
    lanes.begin(well, lambda _run: ran.set()).join(10)
    assert ran.is_set(), "a server that is known to answer is served"
    assert lanes.nudged == [refused], "a lane ended, so the one that was refused is looked at again"
    assert all(task.is_alive() for task in tasks)


def test_an_error_reaches_the_task(lanes: Lanes) -> None:
    def breaks(_run: Run) -> None:
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        lanes.patience.run(uuid4(), breaks)


def test_a_stop_cuts_off_what_still_waits(lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_IN_HAND_SECONDS", 0.2)
    sending, opening = lanes.begin(uuid4(), lanes.sends), lanes.begin(uuid4(), lanes.opens)
    wait_until(lambda: lanes.at_work == 2)
    lanes.stopping.set()
    left = lanes.patience.close()
    assert lanes.cut.is_set()
    assert [run.is_opening for run in left] == [True]
    for task in (sending, opening):
        task.join(10)
        assert not task.is_alive()


def test_waiting_for_our_own_database_is_no_delay_of_the_servers(lanes: Lanes) -> None:
    account_id, written = uuid4(), threading.Event()

    def waits_for_its_mark(run: Run) -> None:
        run.opened()
        with run.sending(lanes.cut.set), run.busy():
            written.wait(20)

    task = lanes.begin(account_id, waits_for_its_mark)
    task.join(1)
    assert task.is_alive(), "its task stays beside it"
    assert lanes.alone == 0
    written.set()
    task.join(20)
    assert lanes.patience._answers(account_id), "its server is not called slow"
