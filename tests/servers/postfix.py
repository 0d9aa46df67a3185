"""A real Postfix, an instance of its own on loopback: STARTTLS, TLS, SASL and addresses that belong to logins.

It takes mail for every domain into one Maildir and has no SMTP client, so nothing can leave it. It needs root and
Debian's packages postfix and sasl2-bin; Debian's own instance is never touched.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest

from servers.certificates import Certificates

_MASTER: Final = Path("/usr/lib/postfix/sbin/master")
_SASLPASSWD: Final = Path("/usr/sbin/saslpasswd2")
_START_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 10.0
_WATCH: Final = 'read -r _; kill -s KILL -- "-$0"; rm -rf -- "$1"'
"""Ends the process group and removes the folder when its stdin ends, which is when the tests were killed."""
_DOMAIN: Final = "shop.example"
_MAILBOXES: Final = {f"info@{_DOMAIN}": "Pass-wörd 1", f"sales@{_DOMAIN}": "Pass-wörd 2"}

_SERVICES: Final = """\
{host}:{port}      inet  n  -  n  -  -  smtpd
[::1]:{port}       inet  n  -  n  -  -  smtpd
{host}:{tls_port}  inet  n  -  n  -  -  smtpd -o smtpd_tls_wrappermode=yes
[::1]:{tls_port}   inet  n  -  n  -  -  smtpd -o smtpd_tls_wrappermode=yes
cleanup   unix  n  -  n  -     0  cleanup
qmgr      unix  n  -  n  300   1  qmgr
tlsmgr    unix  -  -  n  1000? 1  tlsmgr
rewrite   unix  -  -  n  -     -  trivial-rewrite
bounce    unix  -  -  n  -     0  bounce
defer     unix  -  -  n  -     0  bounce
trace     unix  -  -  n  -     0  bounce
proxymap  unix  -  -  n  -     -  proxymap
anvil     unix  -  -  n  -     1  anvil
error     unix  -  -  n  -     -  error
retry     unix  -  -  n  -     -  error
virtual   unix  -  n  n  -     1  virtual
postlog   unix-dgram n - n -   1  postlogd
"""
# One virtual(8) at a time, so that the Maildir keeps the order of the queue.

_QUEUE_FOLDERS: Final = {
    "": ("root", "root", 0o755),
    "pid": ("root", "root", 0o755),
    "public": ("postfix", "postdrop", 0o710),
    "maildrop": ("postfix", "postdrop", 0o730),
    **dict.fromkeys(
        ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"],
        ("postfix", "root", 0o700),
    ),
}


class PostfixServer:
    """The server, as a context manager, on 127.0.0.1 and ::1 and two free ports. Where it cannot run, tests skip.

    Sign-in is offered under TLS alone, by PLAIN, LOGIN and CRAM-MD5, and required. A login may send from its own
    address alone (553 5.7.1 otherwise). A recipient whose local part begins with ``unknown`` is refused (550 5.1.1).

    Args:
        certificates: whose `good` certificate it shows.
        mailboxes: address → password. The address is the login, too.
        size_bytes: the largest letter taken.
        parameters: of main.cf, over ours, such as ``smtpd_timeout="1s"``.

    Attributes:
        port: begins plain and offers STARTTLS.
        tls_port: begins with TLS.
        login, password: of the first mailbox.
        other_login, other_password: of the second mailbox, where there is one.
    """

    host: Final = "127.0.0.1"
    domain: Final = _DOMAIN

    def __init__(
        self,
        certificates: Certificates,
        *,
        mailboxes: Mapping[str, str] = _MAILBOXES,
        size_bytes: int = 1_000_000,
        **parameters: str,
    ) -> None:
        self.port = self.tls_port = 0
        self._mailboxes = dict(mailboxes)
        (self.login, self.password), *others = self._mailboxes.items()
        self.other_login, self.other_password = others[0] if others else ("", "")
        self._certificates = certificates
        self._parameters = {"message_size_limit": str(size_bytes), **parameters}
        self._folder = Path()
        self._master: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if missing := _missing():
            assert os.environ.get("CI") != "true", f"Postfix cannot run here: {missing}"
            pytest.skip(f"Postfix cannot run here: {missing}")
        self._folder = Path(tempfile.mkdtemp(prefix="postroom-postfix-", dir="/tmp"))
        try:
            self._lay_out()
            self._begin()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def start(self) -> None:
        """Starts it, again on the same ports and with the same mail; returns when it answers."""
        self._master = subprocess.Popen(
            [_MASTER, "-c", self._folder / "etc", "-d"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it signals its whole process group
            umask=0o022,
        )
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(self._master.pid), self._folder],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._master.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Postfix does not start:\n{self.log()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stops it as its init script would: open connections are cut."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self._end(signal.SIGKILL)

    def delivered(self) -> list[bytes]:
        """The letters delivered until now, oldest delivery first (a queue keeps no order), Postfix's own headers on top
        and LF at line ends.
        """
        letters = (self._folder / "mail" / "inbox" / "new").glob("*")
        return [path.read_bytes() for path in sorted(letters, key=lambda path: path.stat().st_mtime_ns)]

    def wait_delivered(self, count: int, timeout_seconds: float = 20) -> list[bytes]:
        """Waits until at least `count` letters are delivered, and returns them all, oldest first."""
        deadline = time.monotonic() + timeout_seconds
        while len(letters := self.delivered()) < count:
            assert time.monotonic() < deadline, f"{len(letters)} of {count} letters came; the log:\n{self.log()}"
            time.sleep(0.02)
        return letters

    def log(self) -> str:
        """What it has logged."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / "log").read_text(errors="replace")
        return ""

    def _lay_out(self) -> None:
        umask = os.umask(0o022)  # Postfix reads much of it as another user
        try:
            self._write_files()
        finally:
            os.umask(umask)

    def _write_files(self) -> None:
        folder = self._folder
        folder.chmod(0o755)
        for name in ("etc", "etc/sasl", "queue", "data", "mail"):
            (folder / name).mkdir()
        for name, (user, group, mode) in _QUEUE_FOLDERS.items():
            path = folder / "queue" / name
            path.mkdir(exist_ok=True)
            shutil.chown(path, user, group)
            path.chmod(mode)
        shutil.chown(folder / "data", "postfix", "root")
        shutil.chown(folder / "mail", "nobody", "nogroup")
        self._certificates.write_good(folder / "etc" / "chain.pem")
        (folder / "etc" / "recipients").write_text("!/^unknown/ inbox/\n")
        (folder / "etc" / "owners").write_text("".join(f"{address} {address}\n" for address in self._mailboxes))
        (folder / "etc" / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in self._main().items()))
        passwords = folder / "etc" / "sasldb2"
        (folder / "etc" / "sasl" / "smtpd.conf").write_text(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN CRAM-MD5\n"
            f"sasldb_path: {passwords}\n"
        )
        for login, password in self._mailboxes.items():
            name, _, domain = login.rpartition("@")
            command: list[str | Path] = [_SASLPASSWD, "-p", "-c", "-f", passwords, "-u", domain, name]
            subprocess.run(command, input=password.encode(), capture_output=True, check=True)
        shutil.chown(passwords, "postfix", "root")

    def _main(self) -> dict[str, str]:
        """What main.cf says."""
        folder, nobody = self._folder, pwd.getpwnam("nobody")
        return {
            "compatibility_level": "3.7",
            "queue_directory": f"{folder}/queue",
            "data_directory": f"{folder}/data",
            "maillog_file": f"{folder}/log",
            "maillog_file_prefixes": f"{folder}",
            "inet_interfaces": "127.0.0.1, [::1]",
            "myhostname": f"mail.{_DOMAIN}",
            "mydestination": "",
            "mynetworks": "",
            "smtpd_peername_lookup": "no",
            "default_transport": "error:nothing leaves this server",
            "relay_transport": "error:nothing leaves this server",
            "virtual_mailbox_domains": "static:all",
            "virtual_mailbox_maps": f"regexp:{folder}/etc/recipients",
            "virtual_mailbox_base": f"{folder}/mail",
            "virtual_mailbox_limit": "0",
            "virtual_uid_maps": f"static:{nobody.pw_uid}",
            "virtual_gid_maps": f"static:{nobody.pw_gid}",
            "smtpd_tls_chain_files": f"{folder}/etc/chain.pem",
            "smtpd_tls_security_level": "may",
            "smtpd_tls_auth_only": "yes",
            "smtpd_tls_received_header": "yes",
            "smtpd_sasl_auth_enable": "yes",
            "smtpd_sasl_type": "cyrus",
            "smtpd_sasl_authenticated_header": "yes",
            "smtpd_sender_login_maps": f"texthash:{folder}/etc/owners",
            "smtpd_sender_restrictions": "reject_authenticated_sender_login_mismatch",
            "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
            "smtpd_error_sleep_time": "0",
            "smtpd_timeout": "1h",  # a session may lie idle while other tests run
            "smtpd_client_connection_count_limit": "0",
            "in_flow_delay": "0",
            **self._parameters,
        }

    def _begin(self) -> None:
        """Starts it on ports that nobody else took meanwhile."""
        for tries_left in (2, 1, 0):
            self.port, self.tls_port = _free_ports(2)
            services = _SERVICES.format(host=self.host, port=self.port, tls_port=self.tls_port)
            (self._folder / "etc" / "master.cf").write_text(services)
            try:
                return self.start()
            except RuntimeError:
                if not tries_left:
                    raise
        return None

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=1) as connection:
            connection.settimeout(_START_SECONDS)
            return connection.recv(4) == b"220 "
        return False

    def _end(self, how: signal.Signals) -> None:
        if self._master is None:
            return
        assert self._watcher is not None
        self._watcher.kill()
        self._watcher.communicate()
        group = self._master.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, how)
        try:
            self._master.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            how = signal.SIGKILL
        deadline = time.monotonic() + _STOP_SECONDS
        while _any_left(group):  # its children end a little after it
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, how)
            if time.monotonic() > deadline:
                how = signal.SIGKILL
            time.sleep(0.01)
        self._master.wait()
        self._master = None

    def _remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def _missing() -> str:
    """Why Postfix cannot run here; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    return ", ".join(f"{program} is not there" for program in (_MASTER, _SASLPASSWD) if not program.exists())


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((PostfixServer.host, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _any_left(group: int) -> bool:
    """Whether a process of the group is there and no zombie."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                return True
    return False
