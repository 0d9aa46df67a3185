"""A server that says anything at any time, as the dice have it."""

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from servers.smtp_client import At

_USUAL: Final = [
    b"220 hello\r\n",
    b"250-x\r\n250-PIPELINING\r\n250-SMTPUTF8\r\n250-8BITMIME\r\n250-SIZE 9000\r\n250 AUTH LOGIN\r\n",
]
_SAID: Final = [
    *([b"250 ok\r\n"] * 12),
    *([b"354 go on\r\n"] * 6),
    *([b"235 yes\r\n"] * 3),
    b"334 VXNlcm5hbWU6\r\n",
    b"334 =not base64=\r\n",
    b"334\r\n",
    b"220 hello\r\n",
    b"250-half",
    b"250 x\n",
    b"250 x\r",
    b"250-1\r\n250-2\r\n250 3\r\n",
    b"250-5.1.1 mixed\r\n550 4.7.0 \xff\xfe\r\n",
    b"421 4.3.2 closing\r\n",
    b"450 4.2.0 come back in 99999999999999 hours\r\n",
    b"452 4.5.3 too many\r\n",
    b"550 5.1.1 \xc0\x80\0\x1b[31m\r\n",
    b"552 5.3.4\r\n",
    b"553\r\n",
    b"599 5.999.999\r\n",
    b"000 x\r\n",
    b"2\xb25 x\r\n",
    b"\r\n\r\n",
    b"\0" * 50,
    b"\x16\x03\x01\x02\x00",
    b"250 " + b"x" * 70_000 + b"\r\n",
    b"250-y\r\n" * 9_000,
    b"",
]
_MOST_READS: Final = 60


@contextmanager
def anything(dice: random.Random) -> Iterator[tuple[At, list[bytes]]]:
    """A server on loopback that answers whatever it reads; and all that it read."""
    heard: list[bytes] = []
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    if stopping.is_set():
                        return
                    _talk(connection, dice, heard)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        at = At("127.0.0.1", listener.getsockname()[1])
        try:
            yield at, heard
        finally:
            stopping.set()
            socket.create_connection((at.host, at.port)).close()
            thread.join(10)


def _talk(connection: socket.socket, dice: random.Random, heard: list[bytes]) -> None:
    usual = list(_USUAL) if dice.random() < 0.9 else []
    connection.settimeout(5)
    connection.sendall(usual.pop(0) if usual else dice.choice(_SAID))
    for _ in range(_MOST_READS):
        piece = connection.recv(65536)
        if not piece or (not usual and dice.random() < 0.04):
            if dice.random() < 0.5:  # a reset instead of an end
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        heard.append(piece)
        if usual and dice.random() < 0.9:
            connection.sendall(usual.pop(0))
            continue
        answers = max(1, min(piece.count(b"\n"), 4)) if dice.random() < 0.8 else dice.randrange(4)
        for _ in range(answers):
            connection.sendall(dice.choice(_SAID))
