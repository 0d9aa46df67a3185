"""`postroom demo`: the main job end to end, for real, in a scratch folder that is gone afterwards.

It starts what `postroom up` starts and a mail server of its own, tells `demo_story` and stops it all, however it ends:
by itself, by a signal or by an error. Neither the caller's POSTROOM_* variables nor a `.env` reach it.
"""

import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

from postroom.config.settings import Settings
from postroom.front import demo_certificate, demo_letters, flower, house
from postroom.front.access import Access
from postroom.front.demo_story import SPARE, Story, throw_away_passwords
from postroom.front.demo_telling import Telling
from postroom.front.house import House
from postroom.front.mail_server import HOST, MailServer
from postroom.front.process import ending
from postroom.producer.errors import Refused

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STARTING_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5
_LAST_LINES: Final = 25


class Interrupted(BaseException):
    """A signal asked the demo to end. Like KeyboardInterrupt it passes through whatever catches errors.

    Attributes:
        number: the signal's.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def demo(*, keep: bool) -> int:
    """Run the demo in this process's main thread.

    Args:
        keep: leave everything running after the story until a signal comes, and leave the folder for good.

    Returns:
        The exit status: 0 if all went as told, 128 + number if a signal cut the story short.

    Raises:
        PostroomError: something could not be started or did not go as told. Everything is stopped.
    """
    telling = Telling()
    began_at = time.monotonic()
    with _interruptible():
        try:
            with _scratch_folder(keep) as folder:
                _run(telling, folder, keep)
        except Interrupted as end:
            telling.refused(f"Interrupted by {signal.Signals(end.number).name}. Everything is stopped")
            return 128 + end.number
    telling.good(f"Stopped, nothing is left running. The whole demo took {time.monotonic() - began_at:.1f} s")
    return 0


def settings_for(data_dir: Path, ca_file: Path) -> Settings:
    """Every setting at its default, whatever the environment says, but for those that keep the demo to itself."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    settings: dict[str, Any] = {name: field.default for name, field in Settings.model_fields.items()}
    settings.update(data_dir=data_dir, smtp_ca_file=ca_file, flower_bind=f"{HOST}:{port}")
    return Settings(**settings)


def _run(telling: Telling, folder: Path, keep: bool) -> None:
    passwords = throw_away_passwords()
    certificate = demo_certificate.make(folder)
    settings = settings_for(folder / "data", certificate.ca_file)
    log = folder / "up.log"
    telling.title("Postroom", "The whole way of a mail, for real and on this machine alone, in a folder of its own.")
    with MailServer(certificate.server, passwords) as server, ExitStack() as up:
        started_at = time.monotonic()
        telling.chapter("Everything starts, from an empty folder")
        telling.command("postroom up")
        with telling.working("Redis, the workers, the scheduler and Flower are starting …"):
            running = up.enter_context(house.started(settings, log=log, timeout_seconds=_STARTING_SECONDS))
        telling.good(f"{', '.join(running.programs)}: all up after {time.monotonic() - started_at:.1f} s")
        telling.good(f"and a mail provider in small: {HOST}:{server.port}, which demands STARTTLS and a password")
        access = up.enter_context(Access(settings))
        up.enter_context(_signals_ignored_after())
        try:
            Story(telling, access, server, passwords).tell()
        except Exception:
            _show_log(telling, log)
            raise
        if keep:
            _print_what_to_try(telling, settings, running, server, passwords[SPARE])
            _stay(telling, running, server)
        with telling.working("Stopping …"):
            up.close()


@contextmanager
def _scratch_folder(keep: bool) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix="postroom-demo-"))
    except OSError as error:
        raise Refused(f"no scratch folder can be made: {error}") from None
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first signal raise `Interrupted`, and no other disturb the stopping that follows."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number in _SIGNALS:
            if number != signal.SIGHUP or before[number] is not signal.SIG_IGN:  # nohup
                signal.signal(number, _interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _ignore_signals()
    raise Interrupted(number)


@contextmanager
def _signals_ignored_after() -> Iterator[None]:
    """Let no signal disturb the stopping that follows the block."""
    try:
        yield
    finally:
        _ignore_signals()


def _ignore_signals() -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _print_what_to_try(
    telling: Telling, settings: Settings, running: House, server: MailServer, spare_password: str
) -> None:
    data_dir = settings.data_dir.resolve()
    user = flower.credentials(settings).partition(":")[0]
    telling.chapter("It keeps running. To try, in another terminal")
    telling.fact("Flower", f"{running.flower_url} (user {user}, password in {flower.password_file(settings)})")
    telling.fact("data folder", str(data_dir))
    telling.fact("log", str(data_dir.parent / "up.log"))
    telling.fact("mail server", f"{HOST}:{server.port}, STARTTLS")
    telling.fact("free mailbox", f"{SPARE}, password {spare_password}")
    postroom = _command_name()
    telling.command(
        f"export POSTROOM_DATA_DIR={shlex.quote(str(data_dir))} POSTROOM_FLOWER_BIND={settings.flower_bind}"
    )
    telling.command(f"{postroom} mail list")
    telling.command(f"{postroom} doctor")
    telling.command(f"{postroom} account add --address {SPARE} --host {HOST} --port {server.port} --security starttls")
    telling.say("Ctrl-C stops everything; the folder stays.")


def _command_name() -> str:
    """How this `postroom` is called from the current folder."""
    beside = Path(sys.executable).with_name("postroom")
    found = shutil.which("postroom")
    if not beside.exists() or (found and Path(found) == beside):
        return "postroom"
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _stay(telling: Telling, running: House, server: MailServer) -> None:
    """Tell what arrives, until a signal comes.

    Raises:
        Refused: `postroom up` ended.
    """
    told = len(server.arrived)
    with suppress(Interrupted):
        while (code := running.process.poll()) is None:
            server.wait_for(lambda _: False, _LOOK_SECONDS)
            for letter in server.arrived[told:]:
                telling.good(f"arrived from {letter.reverse_path}: {demo_letters.read(letter)['Subject']}")
                told += 1
        raise Refused(f"`postroom up` ended ({ending(code)})")


def _show_log(telling: Telling, log: Path) -> None:
    telling.say("The last lines of `postroom up`:")
    for line in log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]:
        telling.say(line)
