"""The scheduler asks for all chores that are due by one message; a worker does them one after the other."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from celery.exceptions import Ignore
from sqlalchemy.exc import OperationalError

from postroom.config.settings import Settings
from postroom.worker import app
from postroom.worker.app import TaskFailed, make_app
from postroom.worker.celery_app import CHORE_PERIODS_SECONDS, ROUND, chore_task, last_run_key
from postroom.worker.process import Process
from postroom.worker.scheduler import Rounds
from servers.redis_server import RedisServer


def test_each_chore_is_asked_for_in_its_time() -> None:
    rounds = Rounds()
    asked = [rounds.next() for _ in range(300)]
    assert Counter(name for each in asked for name in each) == {
        name: 300 / seconds for name, seconds in CHORE_PERIODS_SECONDS.items()
    }
    assert all(each[0] == "due" for each in asked)


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyError("x"), TaskFailed), (OperationalError("x", {}, Exception("database is locked")), Ignore)],
)
def test_a_chore_that_fails_does_not_keep_the_others_from_their_turn(
    error: Exception, told: type[Exception], tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def chore(name: str) -> Callable[[Process], int]:
        def run(_: Process) -> int:
            ran.append(name)
            if name == "release":
                raise error
            return 0

        return run

    for name in app.CHORES:
        monkeypatch.setitem(app.CHORES, name, chore(name))
    settings = Settings(_env_file=None, data_dir=tmp_path, broker_url=redis_server.url)
    with redis_server.client() as client, make_app(settings) as celery:
        client.flushall()
        with pytest.raises(told):
            celery.tasks[chore_task(ROUND)](["due", "of a newer release", "release", "leases"])
        celery.postroom_process.close()
        assert ran == ["due", "release", "leases"]
        assert [name for name in app.CHORES if client.exists(last_run_key(name))] == ["leases", "due"]
