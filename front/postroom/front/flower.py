"""Flower, run so that only those with its password see it.

It can revoke tasks and stop workers, so it always has a password and listens on loopback unless told otherwise. Its
own command is not used: that reads `flowerconfig.py` of whatever folder one stands in, any `FLOWER_*` variable may
undo the password, and an argument shows in `ps`.
"""

import ipaddress
import logging
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Final

from postroom.config.settings import Settings
from postroom.config.vault import check_secret_mode, write_new
from postroom.front.child import say_ready
from postroom.producer.errors import KeyUnusable, MissingExtra, Refused

USER: Final = "postroom"


def password_file(settings: Settings) -> Path:
    """Where the password lies that is made when POSTROOM_FLOWER_AUTH is not set."""
    return settings.data_dir / "keys" / "flower.auth"


def credentials(settings: Settings) -> str:
    """`user:password`: the setting, else the password file's, which is made if missing.

    Raises:
        Refused: Flower would be reachable from other machines with a password that nobody has chosen.
        KeyUnusable: the password file is malformed or open to other users.
    """
    if settings.flower_auth is not None:
        return settings.flower_auth.get_secret_value()
    host, _ = settings.flower_address
    if not is_loopback(host):
        raise Refused(
            f"POSTROOM_FLOWER_BIND={settings.flower_bind} can be reached from other machines: "
            "set POSTROOM_FLOWER_AUTH=user:password as well, or bind to 127.0.0.1"
        )
    path = password_file(settings)
    if not path.exists():
        _make_password(path)
    check_secret_mode(path)
    found = path.read_text("utf-8").strip()
    user, _, password = found.partition(":")
    if not user or not password:
        raise KeyUnusable(f"{path}: must hold user:password; remove it, and the next start makes a new one")
    return found


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to that host. A name other than localhost counts as not."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(settings: Settings) -> str:
    """Where to find it, with the last slash that it insists on."""
    host, port = settings.flower_address
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def refuse_taken_port(settings: Settings) -> None:
    """Refuse if Flower could not listen where it should.

    Raises:
        Refused: the message names the setting.
    """
    host, port = settings.flower_address
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
    except OSError as error:
        raise Refused(
            f"Flower cannot listen on {settings.flower_bind}: {error.strerror}. "
            "Set POSTROOM_FLOWER_BIND to another address, such as 127.0.0.1:5556"
        ) from None


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        Refused: the address is taken, or off loopback without a chosen password.
        MissingExtra: Flower is not installed.
    """
    auth = credentials(settings)
    refuse_taken_port(settings)
    os.environ.pop("FLOWER_UNAUTHENTICATED_API", None)
    try:
        from flower.app import Flower  # noqa: PLC0415 - only this command needs it
        from flower.options import options  # noqa: PLC0415
        from flower.urls import settings as web_settings  # noqa: PLC0415
    except ImportError:
        raise MissingExtra("Flower is not installed: pip install 'postroom[front]'") from None
    from postroom.worker.celery_app import make_celery  # noqa: PLC0415

    options.basic_auth = [auth]
    options.address, options.port = settings.flower_address
    options.enable_events = False  # it would ask for them every 5 s, and workers send them anyway
    options.logging = "none"  # tornado's own set-up of the root logger
    logging.getLogger("flower.inspector").setLevel(logging.ERROR)  # it asks before the workers are up, and asks again
    flower = Flower(capp=make_celery(settings), options=options, **web_settings)
    flower.start_http_server()

    def leave(_number: int, _frame: FrameType | None) -> None:
        flower.io_loop.add_callback_from_signal(flower.io_loop.stop)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    flower.io_loop.add_callback(say_ready)
    flower.start()
    flower.stop()
    sys.stdout.flush()
    os._exit(0)  # its threads may wait for a Redis that is gone, and Python would wait for them


def _make_password(path: Path) -> None:
    try:
        write_new(path, f"{USER}:{secrets.token_urlsafe(18)}\n", 0o600)
    except KeyUnusable:
        if not path.exists():  # else another process was faster, and its password holds
            raise
