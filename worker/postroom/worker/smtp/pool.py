"""Open sessions kept for the next mail of the same account and version. One pool a process, for all threads."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final

from postroom.worker.smtp.server import Client
from postroom.worker.smtp.session import Session

_FEWEST_SECONDS_BETWEEN_SWEEPS: Final = 0.05
_FAREWELLS_SECONDS: Final = 0.5
_LOCKSTEP_SECONDS: Final = 600.0
"""So long an account's new sessions do without pipelining after one broke in a way that it may be to blame for."""


class Pool:
    """Idle sessions by key, which is (account id, version): an edited account never meets an old session.

    Args:
        client: who we are; kept here so that whoever opens a session for the pool has it at hand.
        idle_seconds: a session unused for so long is closed.
        age_seconds: a session open for so long is not used again.
    """

    def __init__(self, client: Client, idle_seconds: float, age_seconds: float) -> None:
        self.client = client
        self._idle_seconds = idle_seconds
        self._age_seconds = age_seconds
        self._idle: dict[Hashable, list[Session]] = {}
        self._lockstep_until: dict[Hashable, float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._reaper: threading.Thread | None = None

    def take(self, key: Hashable, open_session: Callable[[], Session]) -> Session:
        """An idle session that still lives, the one used last first, else a new one.

        Raises:
            whatever `open_session` raises.
        """
        while (session := self._pop(key)) is not None:
            if self._usable(session) and session.alive():
                break
            session.close()
        else:
            session = open_session()
        session.lockstep = session.lockstep or self._needs_lockstep(key)
        return session

    def give_back(self, key: Hashable, session: Session) -> None:
        """Keeps a session for the next mail, or closes it if it cannot be used again, or awaits a mail of its own."""
        if session.out_of_step:
            with self._lock:
                self._lockstep_until[key] = time.monotonic() + _LOCKSTEP_SECONDS
        if session.reusable and session.promised is None and self._usable(session):
            with self._lock:
                if not self._closed.is_set():
                    self._idle.setdefault(key, []).append(session)
                    self._start_reaper()
                    return
        session.close()

    def has_idle(self, account_id: Hashable) -> bool:
        """Whether a session of an account lies idle that can be used again."""
        with self._lock:
            return any(self._usable(session) for key in self._keys_of(account_id) for session in self._idle[key])

    def forget(self, account_id: Hashable) -> None:
        """Closes the idle sessions of all versions of an account."""
        with self._lock:
            forgotten = [session for key in self._keys_of(account_id) for session in self._idle.pop(key)]
        _close(forgotten)

    def close_all(self) -> None:
        """Closes every idle session; a session given back later is closed at once."""
        self._closed.set()
        with self._lock:
            forgotten = [session for sessions in self._idle.values() for session in sessions]
            self._idle.clear()
            reaper = self._reaper
        _close(forgotten, _FAREWELLS_SECONDS)
        if reaper is not None:
            reaper.join(_FAREWELLS_SECONDS)

    @property
    def idle_count(self) -> int:
        """How many sessions lie idle."""
        with self._lock:
            return sum(map(len, self._idle.values()))

    def _keys_of(self, account_id: Hashable) -> list[Hashable]:
        return [key for key in self._idle if isinstance(key, tuple) and key and key[0] == account_id]

    def _pop(self, key: Hashable) -> Session | None:
        with self._lock:
            sessions = self._idle.get(key)
            return sessions.pop() if sessions else None  # the reaper takes an empty list away

    def _needs_lockstep(self, key: Hashable) -> bool:
        with self._lock:
            if self._lockstep_until.get(key, 0.0) > time.monotonic():
                return True
            self._lockstep_until.pop(key, None)
        return False

    def _usable(self, session: Session) -> bool:
        now = time.monotonic()
        return now - session.opened_at < self._age_seconds and now - session.last_used_at < self._idle_seconds

    def _start_reaper(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Thread(target=self._reap, name="smtp-pool", daemon=True)
            self._reaper.start()

    def _reap(self) -> None:
        pause_seconds = max(min(self._idle_seconds, self._age_seconds) / 4, _FEWEST_SECONDS_BETWEEN_SWEEPS)
        while not self._closed.wait(pause_seconds):
            with self._lock:
                over: list[Session] = []
                for key, sessions in list(self._idle.items()):
                    usable = [session for session in sessions if self._usable(session)]
                    over.extend(session for session in sessions if session not in usable)
                    if usable:
                        self._idle[key] = usable
                    else:
                        del self._idle[key]
            _close(over)


def _close(sessions: list[Session], farewells_seconds: float = float("inf")) -> None:
    """Closes sessions; for so long in all it says QUIT and waits for the replies."""
    until = time.monotonic() + farewells_seconds
    for session in sessions:
        session.close(politely=time.monotonic() < until)
