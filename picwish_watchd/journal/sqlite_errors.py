"""What SQLite's errors mean to a person (sqlite.org/rescode.html); the only place that knows them."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from picwish_watchd.errors import JournalError, JournalTemporaryError

RESTORE_HINT = (
    "nothing was changed; restore the file (with its -wal) from a backup, or move it and its .write away "
    "to begin anew: a new journal knows of no finished image, so first move finished originals out of the inboxes, "
    "or they are bought again"
)

_LOCK_ERRORS = ("SQLITE_BUSY", "SQLITE_LOCKED")
_DISK_FULL = ("the disk of the journal is full", "make room there; nothing is submitted until then")

#: Result code, extended or primary -> what it says, what to do.
_MESSAGES: dict[str, tuple[str, str]] = {
    "SQLITE_CORRUPT": ("the journal is damaged", RESTORE_HINT),
    "SQLITE_NOTADB": ("the journal is damaged or no SQLite file", RESTORE_HINT),
    "SQLITE_FULL": _DISK_FULL,
    # no room for the -shm: how opening meets a full disk
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
        "look at the kernel's log (dmesg) and check the disk before going on",
    ),
}


@contextmanager
def sqlite_errors_as_journal_errors(path: Path) -> Iterator[None]:
    """Turns what sqlite3 raises into a `JournalError` that names the file; bugs in our SQL stay what they are."""
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
        passing = meaning is _DISK_FULL or name.startswith(_LOCK_ERRORS)
        kind = JournalTemporaryError if passing else JournalError
        raise kind(f"{what}: {path} ({error})", hint=hint) from error
