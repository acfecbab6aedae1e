"""Turn SQLite's errors into messages for a person (sqlite.org/rescode.html). No other module knows their codes."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from picwish_watchd.errors import JournalError, JournalTemporaryError

RESTORE_HINT = (
    "nothing was changed; restore the file (with its -wal) from a backup, or move it and its .write away "
    "to start with an empty journal: that one knows no finished image, so first move finished originals out of the "
    "inboxes, or they are paid for again"
)

_LOCK_ERRORS = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DISK_FULL = ("the disk of the journal is full", "free some space there; nothing is submitted until then")

#: Result code, extended or primary -> (message, what to do).
_MESSAGES: dict[str, tuple[str, str]] = {
    "SQLITE_CORRUPT": ("the journal is damaged", RESTORE_HINT),
    "SQLITE_NOTADB": ("the journal is damaged or not an SQLite file", RESTORE_HINT),
    "SQLITE_FULL": _DISK_FULL,
    # A full disk at opening: there is no space for the -shm.
    "SQLITE_IOERR_SHMSIZE": _DISK_FULL,
    "SQLITE_READONLY": ("the journal is read-only", "make the file and its folder writable for this user"),
    "SQLITE_PERM": ("the journal may not be opened", "make the file and its folder accessible to this user"),
    "SQLITE_CANTOPEN": (
        "the journal cannot be opened",
        "make the file and its folder accessible to this user",
    ),
    "SQLITE_BUSY": (
        "another program keeps the journal locked",
        "close the program that has it open, then try again",
    ),
    "SQLITE_LOCKED": (
        "another program keeps the journal locked",
        "close the program that has it open, then try again",
    ),
    "SQLITE_IOERR": (
        "the disk of the journal fails",
        "look at the kernel's log (dmesg) and check the disk before you start again",
    ),
}


@contextmanager
def sqlite_errors_as_journal_errors(path: Path) -> Iterator[None]:
    """Turn errors of sqlite3 into a `JournalError` that names the file and says what to do.

    It is a `JournalTemporaryError` for a full disk and for locks of other programs. Errors that are bugs in our SQL are
    raised as they are.
    """
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        if isinstance(error, (sqlite3.ProgrammingError, sqlite3.IntegrityError, sqlite3.DataError)):
            raise
        name = getattr(error, "sqlite_errorname", "") or ""
        meaning = _MESSAGES.get(name) or _MESSAGES.get("_".join(name.split("_")[:2]))
        if meaning is None:
            raise
        what, hint = meaning
        is_temporary = meaning is _DISK_FULL or name.startswith(_LOCK_ERRORS)
        kind = JournalTemporaryError if is_temporary else JournalError
        raise kind(f"{what}: {path} ({error})", hint=hint) from error
