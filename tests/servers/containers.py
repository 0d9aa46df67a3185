"""Containers without an engine: services of docker-compose.yml as processes in namespaces of the kernel's own.

Each has what the file gives it and no more: its user, no capability, a read-only root with the mounts and secrets that
are named, a host name, and a network that the whole house shares. What an image brings lies in folders that are mounted
over this machine's own root. Needs root on Linux; tests skip elsewhere.
"""

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PATH: Final = "/opt/postroom/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_SCRATCH: Final = "/mnt"  # a folder that every machine has; what is mounted there only the container sees
_UNSHARE: Final = "/usr/bin/unshare"
_CLONE_NEWNET: Final = 0x40000000
_UP: Final = """
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1 | 64))  # SIOCSIFFLAGS, IFF_UP and IFF_RUNNING
print(flush=True)
sys.stdin.read()
"""


def possible() -> bool:
    """Whether this machine lets us make namespaces and an overlay."""
    if os.geteuid() != 0:
        return False
    trial = (
        f"mount -t tmpfs tmpfs {_SCRATCH} && cd {_SCRATCH} && mkdir u w r && "
        f"mount -t overlay -o lowerdir=/,upperdir={_SCRATCH}/u,workdir={_SCRATCH}/w overlay r"
    )
    if not Path(_UNSHARE).exists():
        return False
    trying = [_UNSHARE, "--mount", "--net", "--uts", "--ipc", "/bin/sh", "-c", trial]
    return subprocess.run(trying, capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder or file of this machine that a container sees at `target`."""

    source: Path
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class Spec:
    """What runs, and what it gets.

    Attributes:
        user: uid:gid.
        capabilities: that it may have, without CAP_; all others are gone for good.
        tmpfs: paths, as Compose writes them: with options of mount after a colon.
    """

    name: str
    argv: Sequence[str]
    user: str = "0:0"
    capabilities: Sequence[str] = ()
    mounts: Sequence[Mount] = ()
    tmpfs: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    read_only: bool = True


class Container:
    """A process in a container of its own; its output goes to `log`."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def path(self, inside: str) -> Path:
        """A path of the container, seen from outside."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def ends(self, within_seconds: float) -> int:
        """Wait for its end; gives the exit status."""
        return self.process.wait(within_seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to stop."""
        self.process.send_signal(number)

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()


class Network:
    """A network of loopback alone, as a context manager."""

    def __enter__(self) -> Self:
        self._holder = subprocess.Popen(
            [_UNSHARE, "--net", sys.executable, "-c", _UP], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"
        self.file = f"/proc/{self._holder.pid}/ns/net"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens, and starts, in the block is in that network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as before, open(self.file) as there:  # noqa: PTH123 - magic links
            assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
            try:
                yield
            finally:
                assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())


def start(spec: Spec, network: Network | None, log: Path) -> Container:
    """Start one in the background; with `network` None it has this machine's own."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            _command(spec, network),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": PATH, **spec.environment},
        )
    return Container(spec.name, process, log)


def run(
    spec: Spec, network: Network | None, given: str = "", timeout_seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one to its end."""
    return subprocess.run(
        _command(spec, network),
        input=given,
        capture_output=True,
        text=True,
        env={"PATH": PATH, **spec.environment},
        timeout=timeout_seconds,
        check=False,
    )


def execute(container: Container, argv: Sequence[str], spec: Spec) -> subprocess.CompletedProcess[str]:
    """Run a command in a container that runs, as its user, as `docker exec` and a health check do."""
    spaces = ["/usr/bin/nsenter", f"--target={container.pid}", "--mount", "--net", "--uts", "--ipc"]
    inside = ["chroot", f"/proc/{container.pid}/root", *_privileges(spec), *argv]
    return subprocess.run(
        [*spaces, *inside],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={"PATH": PATH, **spec.environment},
        timeout=30,
        check=False,
    )


def _command(spec: Spec, network: Network | None) -> list[str]:
    entering = [] if network is None else ["/usr/bin/nsenter", f"--net={network.file}"]
    spaces = [_UNSHARE, "--mount", "--uts", "--ipc", "--propagation", "private"]
    return [*entering, *spaces, "/bin/sh", "-euc", _script(spec), "sh", *spec.argv]


def _script(spec: Spec) -> str:
    lines = [
        f"echo {shlex.quote(spec.name)} > /proc/sys/kernel/hostname",
        "umask 022",
        f"mount -t tmpfs tmpfs {_SCRATCH}",
        f"cd {_SCRATCH} && mkdir upper work root",
        f"mount -t overlay -o lowerdir=/,upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work overlay root",
        "mount --rbind /proc root/proc && mount --rbind /dev root/dev",
        "mount -t tmpfs -o mode=755 tmpfs root/run",
    ]
    for each in spec.tmpfs:
        target, _, options = each.partition(":")
        lines.append(f"mkdir -p root{target} && mount -t tmpfs -o {options or 'mode=1777'} tmpfs root{target}")
    for mount in spec.mounts:
        source, target = shlex.quote(str(mount.source)), shlex.quote(f"root{mount.target}")
        make = f"mkdir -p {target}" if mount.source.is_dir() else f"mkdir -p $(dirname {target}) && touch {target}"
        lines.append(f"{make} && mount --bind {source} {target}")
        if mount.read_only:
            lines.append(f"mount -o remount,bind,ro {target}")
    if spec.read_only:
        lines.append("mount -o remount,ro root")
    inside = ["chroot", "root", *_privileges(spec), "sh", "-c", f'cd {spec.working_dir} && exec "$@"', "sh"]
    lines.append(f'exec {shlex.join(inside)} "$@"')
    return "\n".join(lines)


def _privileges(spec: Spec) -> list[str]:
    uid, _, gid = spec.user.partition(":")
    bounding = ",".join(["-all", *(f"+{each.lower()}" for each in spec.capabilities)])
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={gid}",
        "--clear-groups",
        "--no-new-privs",
        f"--bounding-set={bounding}",
    ]
