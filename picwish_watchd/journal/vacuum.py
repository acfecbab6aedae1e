"""Gives room that pruning left in the journal's file back to the disk; only for a person, and without a daemon.

New lines use that room by themselves (sqlite.org/pragma.html#pragma_freelist_count), so that a daemon that is pruned
each day never needs this. SQLite's VACUUM writes the whole file anew in one transaction, during which nobody else can
write: a daemon would stand still for it.
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

# bytes
_FREE_RESERVE = 2**20


def vacuum_journal(path: Path, clock: Clock) -> tuple[int, int]:
    """Rewrites the journal; answers its size in bytes before and after. A crash in the middle changes nothing.

    Raises `JournalError` where there is none or it is unusable, `JournalBusyError` while a daemon runs or an image is
    on its way (its result lives an hour at PicWish), `JournalTemporaryError` where the disk has no room for it.
    """
    require_journal(path)
    lock = DaemonLock(path)
    lock.acquire()
    try:
        # all that it refuses, and an upgrade, come first
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
    under_way = connection.execute(f"SELECT count(*) FROM job WHERE state IN ({states})").fetchone()[0]
    if under_way:
        raise JournalBusyError(
            f"{under_way} {'image is' if under_way == 1 else 'images are'} on the way to or from PicWish; "
            "the journal was not touched",
            hint="let `picwish-watchd run --once` bring them to their end first",
        )
    _check_free_space(connection, path)
    connection.execute("PRAGMA synchronous = FULL")
    before = os.path.getsize(path)
    with _use_temp_folder(path):
        connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before, os.path.getsize(path)


def _check_free_space(connection: sqlite3.Connection, path: Path) -> None:
    """The new file is written twice before the old one is given up (sqlite.org/lang_vacuum.html)."""
    pages, free, size = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    needed = 2 * (pages - free) * size + _FREE_RESERVE
    disk = os.statvfs(path.parent)
    there = disk.f_bavail * disk.f_frsize
    if there < needed:
        raise JournalTemporaryError(
            f"{path.parent} has {there // 2**20} MiB free, and {-(-needed // 2**20)} MiB are needed while the journal "
            "is written anew; it was not touched",
            hint="make room there, then try again",
        )


@contextmanager
def _use_temp_folder(path: Path) -> Iterator[None]:
    """Where the room was looked for, and where nobody else may read (sqlite.org/tempfiles.html)."""
    before = os.environ.get("SQLITE_TMPDIR")
    os.environ["SQLITE_TMPDIR"] = os.fspath(path.parent)
    try:
        yield
    finally:
        del os.environ["SQLITE_TMPDIR"]
        if before is not None:
            os.environ["SQLITE_TMPDIR"] = before
