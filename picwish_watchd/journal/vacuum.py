"""Give the space that pruning left unused in the journal's file back to the disk. Only without a running daemon.

SQLite uses that space for new rows (sqlite.org/pragma.html#pragma_freelist_count), so the daemon, which prunes each
day, never needs this. VACUUM writes the whole file again in one transaction, during which a daemon could not write.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from picwish_watchd.clock import Clock
from picwish_watchd.errors import JournalBusyError, JournalTemporaryError
from picwish_watchd.journal.connection import require_journal
from picwish_watchd.journal.locks import LOCK_TIMEOUT, DaemonLock, WriteLock
from picwish_watchd.journal.sqlite_errors import sqlite_errors_as_journal_errors
from picwish_watchd.journal.writer import Journal

#: Bytes that have to be free on the disk beyond what is computed.
_FREE_RESERVE = 2**20


def vacuum_journal(path: Path, clock: Clock) -> tuple[int, int]:
    """Rewrite the journal, and return its size in bytes before and after. A crash in the middle changes nothing.

    Raises `JournalError` if there is none or it cannot be used, `JournalBusyError` while a daemon runs or an image is
    under way (PicWish keeps its result for an hour only), `JournalTemporaryError` if the disk has not enough space.
    """
    require_journal(path)
    lock = DaemonLock(path)
    lock.acquire()
    try:
        # Opening it first checks the journal, and migrates one of an earlier version.
        Journal.open_for_writing(path, clock).close()
        write = WriteLock(path)
        try:
            with sqlite_errors_as_journal_errors(path), write.hold(), closing(_connect(path)) as connection:
                return _rewrite(connection, path)
        finally:
            write.close()
    finally:
        lock.release()


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=LOCK_TIMEOUT)


def _rewrite(connection: sqlite3.Connection, path: Path) -> tuple[int, int]:
    states = "'submitting', 'pending', 'fetching', 'delivering'"
    count = connection.execute(f"SELECT count(*) FROM job WHERE state IN ({states})").fetchone()[0]
    if count:
        raise JournalBusyError(
            f"{count} {'image is' if count == 1 else 'images are'} on the way to or from PicWish; "
            "the journal was not changed",
            hint="let `picwish-watchd run --once` finish them first",
        )
    _check_free_space(connection, path)
    connection.execute("PRAGMA synchronous = FULL")
    before = os.path.getsize(path)
    with _use_temp_folder(path):
        connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, os.path.getsize(path)


def _check_free_space(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `JournalTemporaryError` if the disk has not enough space.

    VACUUM writes the new content twice before it frees the old one (sqlite.org/lang_vacuum.html).
    """
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    needed = 2 * (pages - free) * size + _FREE_RESERVE
    disk = os.statvfs(path.parent)
    available = disk.f_bavail * disk.f_frsize
    if available < needed:
        raise JournalTemporaryError(
            f"{path.parent} has {available // 2**20} MiB free, and {-(-needed // 2**20)} MiB are needed while the "
            "journal is rewritten; it was not changed",
            hint="free some space there, then try again",
        )


@contextmanager
def _use_temp_folder(path: Path) -> Iterator[None]:
    """Put SQLite's temporary files beside the journal, where the space was checked and no other user can read them."""
    before = os.environ.get("SQLITE_TMPDIR")
    os.environ["SQLITE_TMPDIR"] = os.fspath(path.parent)
    try:
        yield
    finally:
        del os.environ["SQLITE_TMPDIR"]
        if before is not None:
            os.environ["SQLITE_TMPDIR"] = before
