"""The two lock files beside the journal. Both use flock(2), so that a lock ends with the process that holds it."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from picwish_watchd.errors import JournalBusyError, JournalError, JournalTemporaryError

#: Seconds that a writer waits for another process's transaction; ours take milliseconds.
LOCK_TIMEOUT = 5.0

#: Seconds that a starting daemon waits for the lock, which `DaemonLock.owner_pid` holds for microseconds.
_START_TIMEOUT = 0.1


class DaemonLock:
    """Allows one daemon for each journal.

    The lock file holds the owner's pid. It is never removed, as a removed file could be locked twice: once by its old
    inode and once by its new one.
    """

    def __init__(self, journal: Path) -> None:
        self.path = Path(f"{journal}.lock")
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `JournalBusyError`, which names the owner's pid, if another process holds it."""
        fd = _open_lock_file(self.path)
        if not _try_lock(fd, _START_TIMEOUT):
            pid = _read_number(fd)
            os.close(fd)
            raise JournalBusyError(
                f"another picwish-watchd (pid {pid or 'unknown'}) is running on this journal",
                hint=f"stop that one first, or use another journal for this one; the lock file is {self.path}",
            )
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Release the lock; harmless if it is not held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def owner_pid(self) -> int | None:
        """Return the pid of the running daemon, 0 if it is unknown, or None if no daemon holds the lock.

        Never blocks, and creates no file.
        """
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
    """Serialises the write transactions of all processes, with their checkpoints.

    SQLite 3.7.0 to 3.51.2 can corrupt a WAL if one connection commits while another one checkpoints
    (sqlite.org/wal.html#walresetbug); Debian 12 has 3.40.1.

    The lock file also holds the id of the last event that was committed (`last_durable_event`). So a -wal that was
    removed with its -shm, or an older copy of the journal, is noticed. The id is not synced: after a power cut it may
    be too low, and then less is noticed, but nothing is refused wrongly.
    """

    def __init__(self, journal: Path) -> None:
        self.path = Path(f"{journal}.write")
        self._fd = _open_lock_file(self.path)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock during the ``with`` block. Raises `JournalTemporaryError` after `LOCK_TIMEOUT` seconds."""
        if not _try_lock(self._fd, LOCK_TIMEOUT):
            raise JournalTemporaryError(
                f"another process has kept the journal locked for {LOCK_TIMEOUT:.0f} s ({self.path})",
                hint="look for a `picwish-watchd` command that was stopped (Ctrl-Z) or hangs, and end it",
            )
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def record_durable_event(self, event: int) -> None:
        """Store the id of the last committed event, while the lock is held; a full disk is ignored."""
        with suppress(OSError):
            os.pwrite(self._fd, f"{event:020d}\n".encode(), 0)

    def close(self) -> None:
        """Close the lock file."""
        os.close(self._fd)


def last_durable_event(journal: Path) -> int:
    """Return the id of the last event known to be committed, or 0 if it is unknown or this user may not read it."""
    try:
        fd = os.open(f"{journal}.write", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        return _read_number(fd) or 0
    finally:
        os.close(fd)


def _try_lock(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
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
