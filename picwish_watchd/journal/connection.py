"""Open connections to the journal, create it, and migrate one of an earlier version."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from picwish_watchd.errors import JournalError
from picwish_watchd.fs.durability import sync_path
from picwish_watchd.journal.integrity import (
    check_no_lost_events,
    check_not_deleted,
    check_regular_file,
    check_version,
    check_wal_present,
)
from picwish_watchd.journal.locks import WriteLock, last_durable_event
from picwish_watchd.journal.schema import VERSION, add_indexes, migrate
from picwish_watchd.journal.sqlite_errors import RESTORE_HINT


def require_journal(path: Path) -> None:
    """Raise `JournalError` if there is no journal, or if this user cannot see it."""
    check_regular_file(path)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise JournalError(f"there is no journal at {path}", hint="the first `picwish-watchd run` creates it") from None
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be opened: {error.strerror}",
            hint="run this as the user that runs picwish-watchd, or give this user access to the folder",
        ) from error


def open_read_connection(path: Path, parameter: str, witness: int = 0) -> sqlite3.Connection:
    """Open a connection for reading, with a query parameter of sqlite.org/uri.html such as ``mode=ro``.

    Raises `JournalError` if the journal is not ours, is newer than this program, or lacks event ``witness``.
    """
    connection = _connect_uri(path, parameter)
    try:
        check_version(connection, path)
        check_no_lost_events(connection, path, witness)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_uri(path: Path, parameter: str) -> sqlite3.Connection:
    quoted = os.fsencode(path.absolute()).decode("latin-1")
    address = "file:" + "".join(c if (c.isalnum() and c.isascii()) or c in "/._-" else f"%{ord(c):02X}" for c in quoted)
    return sqlite3.connect(f"{address}?{parameter}", uri=True, isolation_level=None, timeout=5.0)


#: With WAL and synchronous FULL, a power cut loses no commit that was acknowledged
#: (sqlite.org/pragma.html#pragma_synchronous).
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA journal_size_limit = 16777216",
    # Pages, together 16 MiB: fewer, and a flood would write the same pages to the file again and again.
    "PRAGMA wal_autocheckpoint = 4096",
)


def ensure_journal_folder(path: Path) -> None:
    """Create the folder of the journal (mode 0700) if its parent exists. Raises `JournalError` if that fails."""
    try:
        with suppress(FileExistsError):
            os.mkdir(path.parent, 0o700)
    except OSError as error:
        raise JournalError(
            f"the folder {path.parent} of the journal cannot be created: {error.strerror}",
            hint="create it, owned by the user that runs picwish-watchd",
        ) from error


def ensure_journal_file(path: Path, lock: WriteLock) -> None:
    """Create the journal if there is none, under another name first, so that it is never there half made.

    Raises `JournalError` if it is empty, was deleted, or lost its -wal.
    """
    if path.exists():
        if os.path.getsize(path) == 0:
            raise JournalError(
                f"the journal {path} is empty (0 bytes): it was cut off",
                hint="restore it from a backup; only if picwish-watchd never ran here, remove it and "
                f"{path}.write and start again",
            )
        check_wal_present(path)
        return
    check_not_deleted(path)
    fresh = f"{path}.new"
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):
            os.unlink(fresh + suffix)
    connection = sqlite3.connect(fresh, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        migrate(connection, 0)
        connection.execute("COMMIT")
    finally:
        connection.close()
    sync_path(fresh)
    lock.record_durable_event(0)
    os.rename(fresh, path)
    sync_path(path.parent)


def open_write_connection(path: Path, *, verify: bool = True) -> sqlite3.Connection:
    """Open a connection for writing, and migrate the journal if it is of an earlier version.

    ``verify``: check the file for damage if it was not closed properly. Raises `JournalError` if it is damaged, not
    ours, newer than this program, lacks committed events, or is on a file system without support for SQLite's WAL.
    """
    unclean = verify and os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
    connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    try:
        version = check_version(connection, path)
        for pragma in _PRAGMAS:
            row = connection.execute(pragma).fetchone()
            if pragma.startswith("PRAGMA journal_mode") and row[0] != "wal":
                raise JournalError(f"the file system of {path} does not support SQLite's WAL", hint="use a local disk")
        if unclean:
            finding = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if finding != "ok":
                raise JournalError(f"the journal is damaged: {path} ({finding})", hint=RESTORE_HINT)
        check_no_lost_events(connection, path, last_durable_event(path))
        if version < VERSION:
            _migrate_with_backup(connection, path, version)
        add_indexes(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate_with_backup(connection: sqlite3.Connection, path: Path, version: int) -> None:
    backup = f"{path}.schema{version}.bak"
    with suppress(FileNotFoundError):
        os.unlink(backup)
    connection.execute("VACUUM INTO ?", (backup,))
    sync_path(backup)
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrate(connection, version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
