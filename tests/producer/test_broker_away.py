"""Redis that is away, full or closed to us: a clear error in time and nothing half; a lost nudge is none."""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from postroom.producer import BrokerUnavailable, Mail, PostroomError, Producer
from postroom.producer.names import INBOX, INBOX_AT, QUEUE_ACCEPT
from postroom.producer.sealing import PublicKey
from servers.redis_server import RedisServer

Make = Callable[..., Mail]
Nudges = Callable[[], list[dict[str, Any]]]

NOT_IN_LOGS = ["client.example", "Anna Needle", "subject-needle", "text-needle"]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@contextmanager
def listening_in_silence() -> Iterator[int]:
    """A port where connections are taken by the system and nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_redis_that_is_not_there(public_key: PublicKey, tmp_path: Path, make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    stale = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(stale))
    for url in (f"redis://127.0.0.1:{closed}/0", f"redis+socket://{tmp_path}/none.sock", f"unix://{stale}"):
        with Producer(url, public_key=public_key, timeout_seconds=1) as producer, within(5):
            with pytest.raises(BrokerUnavailable, match=r"postroom up.*POSTROOM_BROKER_URL") as away:
                producer.enqueue(make())
            assert isinstance(away.value, ConnectionError)
            assert isinstance(away.value, PostroomError)


def test_redis_that_hangs_is_waited_for_once(public_key: PublicKey, make: Make) -> None:
    timeout_seconds = 3.0
    with RedisServer() as server, Producer(server.url, public_key=public_key, timeout_seconds=timeout_seconds) as warm:
        warm.enqueue(make())
        server.pause()
        with Producer(server.url, public_key=public_key, timeout_seconds=timeout_seconds) as fresh:
            for producer in (warm, fresh):
                # Less than two waits: nothing is asked twice.
                with within(1.8 * timeout_seconds), pytest.raises(BrokerUnavailable, match="did not answer in time"):
                    producer.enqueue(make())
        server.resume()
        warm.enqueue(make())


def test_a_port_that_answers_nothing_is_waited_for_once(public_key: PublicKey, make: Make) -> None:
    with (
        listening_in_silence() as port,
        Producer(f"redis://127.0.0.1:{port}/0", public_key=public_key, timeout_seconds=3) as producer,
        within(5.4),
        pytest.raises(BrokerUnavailable, match="did not answer in time"),
    ):
        producer.enqueue(make())


def test_redis_that_was_restarted_is_used_again_without_an_error(public_key: PublicKey, make: Make) -> None:
    with RedisServer() as server, Producer(server.url, public_key=public_key) as producer:
        producer.enqueue(make())
        server.stop()
        server.restart()
        producer.enqueue(make())
        with server.client() as client:
            assert (client.hlen(INBOX), client.llen(QUEUE_ACCEPT)) == (2, 2)


def test_redis_that_is_full_keeps_nothing_half(public_key: PublicKey, make: Make) -> None:
    with RedisServer(maxmemory="3mb") as server, Producer(server.url, public_key=public_key) as producer:
        with pytest.raises(BrokerUnavailable) as full:
            deque(map(producer.enqueue, (make(text="x" * 50_000) for _ in range(100))), maxlen=0)
        said = str(full.value)
        assert said.startswith("Redis is full (")
        assert "maxmemory" in said
        assert len(said) < 300, "nothing of the sealed job"
        assert "HSETNX" not in said, "what Redis said, not what it was asked"
        with server.client() as client:
            before = client.hlen(INBOX)
            with pytest.raises(BrokerUnavailable, match="full"):
                producer.enqueue_many(make(text="x" * 50_000) for _ in range(20))
            assert client.hlen(INBOX) == client.zcard(INBOX_AT) == before > 0


@pytest.mark.parametrize("user", ["", ":wrong@", "nobody:right@"])
def test_redis_that_does_not_let_us_in(public_key: PublicKey, make: Make, user: str) -> None:
    with RedisServer() as server:
        with server.client() as client:
            client.config_set("requirepass", "right")
            url = server.url.replace("://", f"://{user}")
            with Producer(url, public_key=public_key) as producer:
                with pytest.raises(BrokerUnavailable, match="check the password in POSTROOM_BROKER_URL") as refused:
                    producer.enqueue(make())
                assert "wrong" not in str(refused.value).partition("WRONGPASS")[0]
            assert client.hlen(INBOX) == 0
        with Producer(server.url.replace("://", "://:right@"), public_key=public_key) as producer:
            producer.enqueue(make())


def test_a_replica_is_told_from_the_primary(public_key: PublicKey, make: Make) -> None:
    with RedisServer() as server, Producer(server.url, public_key=public_key) as producer:
        with server.client() as client:
            client.replicaof("127.0.0.1", "1")
        with pytest.raises(BrokerUnavailable, match=r"read-only replica.*must name the primary"):
            producer.enqueue(make())


def test_what_redis_says_is_passed_on_without_the_job(
    producer: Producer, redis_server: RedisServer, make: Make
) -> None:
    with redis_server.client() as client:
        client.set(INBOX, "another program's")
    with pytest.raises(BrokerUnavailable, match=r"^Redis cannot be used \(WRONGTYPE.*\): ") as refused:
        producer.enqueue(make())
    assert "HSETNX" not in str(refused.value)


def test_a_user_that_may_not_write_the_inbox(redis_server: RedisServer, public_key: PublicKey, make: Make) -> None:
    url = with_user(redis_server, "-hsetnx")
    with (
        Producer(url, public_key=public_key) as producer,
        pytest.raises(BrokerUnavailable, match="no permissions to run the 'hsetnx'"),
    ):
        producer.enqueue(make())


def test_a_nudge_that_is_refused_is_no_error(
    redis_server: RedisServer, public_key: PublicKey, make: Make, nudges: Nudges, caplog: pytest.LogCaptureFixture
) -> None:
    with Producer(with_user(redis_server, "-lpush"), public_key=public_key) as producer:
        one = producer.enqueue(make())
        many = producer.enqueue_many([make(), make()])
    with redis_server.client() as client:
        assert {str(each).encode() for each in [one, *many]} == set(client.hkeys(INBOX))
    assert nudges() == []
    assert caplog.text.count("the mail waits in the inbox") == 2
    assert not any(each in caplog.text for each in NOT_IN_LOGS)


def test_one_connection_is_enough(public_key: PublicKey, make: Make) -> None:
    with RedisServer(maxclients="1") as server, Producer(server.url, public_key=public_key) as producer, within(10):
        assert len(producer.enqueue_many(make() for _ in range(101))) == 101
        producer.enqueue(make())


def test_a_connection_that_breaks_is_made_anew_once(
    redis_server: RedisServer, public_key: PublicKey, make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "r.sock"
    with (
        cut_once_at(b"EVAL", redis_server.socket, path),
        Producer(f"unix://{path}", public_key=public_key) as producer,
    ):
        mail_id = producer.enqueue(make())
    with redis_server.client() as client:
        assert client.hexists(INBOX, str(mail_id))


def with_user(server: RedisServer, forbidden: str) -> str:
    """The URL with a user who may do all but one command."""
    with server.client() as client:
        client.acl_setuser(
            "site", reset=True, enabled=True, passwords="+pw", keys="*", categories=["+@all"], commands=[forbidden]
        )
    return server.url.replace("://", "://site:pw@")


@contextmanager
def cut_once_at(command: bytes, behind: Path, path: Path) -> Iterator[None]:
    """A relay to a server that passes everything on, but cuts the connection when it first sees a command."""
    met: list[bytes] = []
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while chunk := source.recv(65536):
                if command in chunk and not met:
                    met.append(chunk)
                    source.shutdown(socket.SHUT_RDWR)
                    return
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(behind))
                connections.extend([client, server])
                for pair in ((client, server), (server, client)):
                    threads.append(threading.Thread(target=pump, args=pair))
                    threads[-1].start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        accepting = threading.Thread(target=accept, args=(listener,))
        accepting.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for each in connections:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()
            for thread in threads:
                thread.join()


def test_a_redis_that_is_just_starting_again_is_waited_for(public_key: PublicKey, make: Make) -> None:
    with RedisServer() as server, Producer(server.url, public_key=public_key) as producer:
        first = producer.enqueue(make())
        server.kill()
        again = threading.Timer(0.5, server.restart)
        again.start()
        second = producer.enqueue(make())
        again.join()
        with server.client() as client:
            assert client.hexists(INBOX, str(first))
            assert client.hexists(INBOX, str(second))
