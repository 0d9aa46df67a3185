"""Redis behind TLS (rediss://): a URL is enough for both clients, and a certificate that nobody trusts is refused.

No Redis that comes along speaks TLS, so a proxy of the test's own ends it.
"""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from postroom.producer import BrokerUnavailable, Mail, Producer, names
from postroom.producer.broker import redis_client
from postroom.producer.sealing import PublicKey
from servers.certificates import Certificates
from servers.redis_server import RedisServer

KEY = PublicKey.of(X25519PrivateKey.generate())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def tls_port(redis_server: RedisServer, certificates: Certificates) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, certificates.good, redis_server.socket), daemon=True).start()
        yield listener.getsockname()[1]


def _serve(listener: socket.socket, context: ssl.SSLContext, inside: Path) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_join, args=(client, context, inside), daemon=True).start()


def _join(client: socket.socket, context: ssl.SSLContext, inside: Path) -> None:
    with suppress(OSError), client, socket.socket(socket.AF_UNIX) as redis:
        redis.connect(str(inside))
        with context.wrap_socket(client, server_side=True) as outside:
            threading.Thread(target=_pour, args=(redis, outside), daemon=True).start()
            _pour(outside, redis)


def _pour(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def mail() -> Mail:
    return Mail(from_="shop@shop.example", to="anna@client.example", subject="Order 7", text="Thank you")


@pytest.mark.parametrize("verify", ["ssl_ca_certs={ca}", "ssl_cert_reqs=none"])
def test_job_and_nudge_go_over_tls(
    redis_server: RedisServer, tls_port: int, certificates: Certificates, verify: str
) -> None:
    url = f"rediss://localhost:{tls_port}/0?{verify.format(ca=certificates.ca_file)}"
    with redis_server.client() as client:
        client.flushall()
    with Producer(url, public_key=KEY) as producer:
        mail_id = producer.enqueue(mail())
    with redis_client(url) as client:
        assert client.hexists(names.INBOX, str(mail_id))
        assert client.llen(names.QUEUE_ACCEPT) == 1


def test_a_certificate_that_nobody_trusts_is_refused(redis_server: RedisServer, tls_port: int) -> None:
    with (
        Producer(f"rediss://localhost:{tls_port}/0", public_key=KEY, timeout_seconds=0.5) as producer,
        pytest.raises(BrokerUnavailable, match="certificate verify failed"),
    ):
        producer.enqueue(mail())
