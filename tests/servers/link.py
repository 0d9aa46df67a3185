"""A link to a server, that can be cut: TCP on loopback, passed on to where the server listens."""

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

_PIECE_BYTES = 65536


class Link:
    """Passes on what comes, as a context manager; it listens on 127.0.0.1 and a free port.

    Args:
        target: the server: the path of its Unix socket, or its host and port.
    """

    def __init__(self, target: Path | tuple[str, int]) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._ended = False
        self._passages: list[Passage] = []
        self._guard = threading.Lock()

    def cut(self) -> None:
        """Let nothing through, either way, and say nothing: each side waits for the other."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again, first what lay on the way."""
        self._whole.set()

    def up(self, passage: "Passage", data: bytes) -> None:
        """What the client says goes to the server."""
        passage.server.sendall(data)

    def down(self, passage: "Passage", data: bytes) -> None:
        """What the server says goes to the client."""
        passage.client.sendall(data)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        self._whole.set()
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes accept()
        self._thread.join()
        self._listener.close()
        with self._guard:
            passages = list(self._passages)
        for passage in passages:
            passage.end()
            for thread in passage.threads:
                thread.join()

    def _listen(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._ended:
                client.close()
                return
            passage = Passage(client)
            passage.threads.append(threading.Thread(target=self._pass, args=(passage,), daemon=True))
            with self._guard:
                self._passages.append(passage)
            passage.threads[0].start()

    def _pass(self, passage: "Passage") -> None:
        """Pass on upwards in this thread, and downwards in another."""
        self._whole.wait()
        try:
            passage.connect(self._target)
        except OSError:
            passage.end()
            passage.close()
            return
        back = threading.Thread(target=self._pump, args=(passage, passage.server, self.down), daemon=True)
        back.start()
        self._pump(passage, passage.client, self.up)
        back.join()
        passage.close()

    def _pump(self, passage: "Passage", source: socket.socket, onwards: "Callable[[Passage, bytes], None]") -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                self._whole.wait()
                onwards(passage, data)
        self._whole.wait()
        passage.end()


class Passage:
    """One connection through a link."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket(socket.AF_INET)
        self.committing = False
        self.threads: list[threading.Thread] = []

    def connect(self, target: Path | tuple[str, int]) -> None:
        self.server.close()
        if isinstance(target, Path):
            self.server = socket.socket(socket.AF_UNIX)
            self.server.connect(str(target))
        else:
            self.server = socket.create_connection(target)
            self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def end(self) -> None:
        """Cut both sides off."""
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.server.close()


class CommitLink(Link):
    """A link to a PostgreSQL that ends connections in the middle of a COMMIT: the client cannot know what became of it.

    Attributes:
        cuts: how many connections it has ended so.
    """

    _COMMIT = b"Q\0\0\0\x0bCOMMIT\0"
    """The message Query (https://www.postgresql.org/docs/15/protocol-message-formats.html) as psycopg sends it."""

    def __init__(self, target: Path) -> None:
        super().__init__(target)
        self.cuts = 0
        self._moment = ""
        self._every = self._left = self._seen = 0

    def cut_commits(self, moment: Literal["before", "after"], *, every: int, times: int) -> None:
        """End the connection at every n-th COMMIT from now on: before the server executes it, or after it did."""
        with self._guard:
            self._moment, self._every, self._left, self._seen = moment, every, times, 0

    def up(self, passage: Passage, data: bytes) -> None:
        if data.endswith(self._COMMIT) and self._is_due():
            if self._moment == "before":
                passage.end()
                return
            passage.committing = True
        super().up(passage, data)

    def down(self, passage: Passage, data: bytes) -> None:
        if passage.committing:  # this answers the COMMIT
            passage.end()
            return
        super().down(passage, data)

    def _is_due(self) -> bool:
        with self._guard:
            self._seen += 1
            due = self._left > 0 and self._seen % self._every == 0
            self._left -= due
            self.cuts += due
        return due
