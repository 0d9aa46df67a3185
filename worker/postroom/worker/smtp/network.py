"""From a host's name to a connected socket: every address in turn, IPv6 and IPv4, each one past the guard."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Guard: TypeAlias = Callable[[str], None]
"""Asked with the IP address before every connect; raises PermissionError where it must not be reached."""


def allow_all(_ip: str) -> None:
    """The guard of accounts that may reach every address."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address of a host, as getaddrinfo gives it."""

    family: socket.AddressFamily
    sockaddr: tuple[str, int] | tuple[str, int, int, int]

    @property
    def ip(self) -> str:
        """The IP address alone."""
        return self.sockaddr[0]


def resolve(host: str, port: int) -> list[Address]:
    """All addresses of a host, in the order of RFC 6724, without doubles.

    Raises:
        OSError: the name has no address, or the resolver does not answer; the message says which.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise OSError(f"the resolver did not answer for {host}") from error
        raise OSError(f"{host} has no address") from error
    except ValueError as error:  # a label that IDNA refuses, an embedded NUL
        raise OSError(f"{host!r} is no host name") from error
    addresses = [Address(family, sockaddr) for family, _, _, _, sockaddr in found]  # type: ignore[arg-type]
    return list(dict.fromkeys(addresses))


def connect(
    addresses: Sequence[Address], *, timeout_seconds: float, guard: Guard = allow_all
) -> tuple[socket.socket, Address]:
    """Connects to the first address that answers, and says which that was.

    The time-out is for all of them; each gets an equal share of what is left, so that one that swallows packets does
    not use up the time of the next.

    Raises:
        OSError: none answered; the message names every address tried and why. TimeoutError if all were silent.
    """
    deadline = time.monotonic() + timeout_seconds
    tried: list[tuple[str, OSError]] = []
    for position, address in enumerate(addresses):
        share = (deadline - time.monotonic()) / (len(addresses) - position)
        try:
            guard(address.ip)
            return _connect_one(address, max(share, 0.001)), address
        except OSError as error:
            tried.append((address.ip, error))
    what = "; ".join(f"{ip}: {_why(error)}" for ip, error in tried) or "no address"
    silent = bool(tried) and all(isinstance(error, TimeoutError) for _, error in tried)
    raise (TimeoutError if silent else OSError)(what)


def _connect_one(address: Address, timeout_seconds: float) -> socket.socket:
    connection = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        connection.connect(address.sockaddr)
        # The final dot must not wait for the acknowledgement of the content before it (Nagle).
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except BaseException:
        connection.close()
        raise
    return connection


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return error.strerror.lower() if error.strerror else str(error)
