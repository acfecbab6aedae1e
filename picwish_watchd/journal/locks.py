"""The two locks beside the journal, both flock(2): they die with the process that holds them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from picwish_watchd.errors import JournalBusyError, JournalError, JournalTemporaryError

#: How long a writer waits for another process's transaction, in seconds; ours take milliseconds.
LOCK_TIMEOUT = 5.0

#: `DaemonLock.owner` holds the lock for microseconds while it looks: so long, in seconds, a starting daemon waits.
_START_TIMEOUT = 0.1


class DaemonLock:
    """At most one daemon a journal. The lock file holds the owner's pid and is never removed: a removed lock file
    could be locked twice, once by its old and once by its new inode."""

    def __init__(self, journal: Path) -> None:
        self.path = Path(f"{journal}.lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Takes the lock or raises `JournalBusyError` naming the owner's pid."""
        fd = _open_lock_file(self.path)
        if not _try_lock(fd, _START_TIMEOUT):
            pid = _read_number(fd)
            os.close(fd)
            raise JournalBusyError(
                f"another picwish-watchd (pid {pid or 'unknown'}) is running on this journal",
                hint=f"stop that one first, or give this one another journal; the lock is {self.path}",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Lets go; harmless when not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def owner_pid(self) -> int | None:
        """The pid of the running daemon, or None when no daemon holds the lock. Never blocks, never creates."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_number(fd) or 0
        finally:
            os.close(fd)
        return None


class WriteLock:
    """Serialises the write transactions of all processes, their checkpoints included.

    SQLite 3.7.0 to 3.51.2 can corrupt a WAL when one connection commits while another one checkpoints
    (sqlite.org/wal.html#walresetbug); Debian 12 ships 3.40.1.

    The file also bears witness to the last event that was committed, so that a -wal that went away with its -shm, or
    an older copy of the journal, is noticed (`witnessed`). It is not synced: after a power cut it may lag behind, which
    only makes it believe what it finds.
    """

    def __init__(self, journal: Path) -> None:
        self.path = Path(f"{journal}.write")
        self._fd = _open_lock_file(self.path)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the lock for the block; raises `JournalError` after `PATIENCE` seconds."""
        if not _try_lock(self._fd, LOCK_TIMEOUT):
            raise JournalTemporaryError(
                f"another process has kept the journal locked for {LOCK_TIMEOUT:.0f} s ({self.path})",
                hint="look for a stopped `picwish-watchd` command and end it",
            )
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def record_durable_event(self, event: int) -> None:
        """The last event committed; while the lock is held. A full disk is no reason to stop."""
        with suppress(OSError):
            os.pwrite(self._fd, f"{event:020d}\n".encode(), 0)

    def close(self) -> None:
        """Closes the lock file."""
        os.close(self._fd)


def last_durable_event(journal: Path) -> int:
    """The last event that is known to have been committed; 0 if nobody knows, or it is not for this user to read."""
    try:
        fd = os.open(f"{journal}.write", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        return _read_number(fd) or 0
    finally:
        os.close(fd)


def _try_lock(fd: int, seconds: float) -> bool:
    give_up = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                return False
            time.sleep(0.002)
        else:
            return True


def _open_lock_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JournalError(
            f"the lock file {path} cannot be opened: {error.strerror}",
            hint="the folder of the journal must be writable for the user that runs picwish-watchd",
        ) from error


def _read_number(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None
