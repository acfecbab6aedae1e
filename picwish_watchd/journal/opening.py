"""Opening the journal for reading."""

import os
import sqlite3
from pathlib import Path

from picwish_watchd.errors import JournalError
from picwish_watchd.journal.refusals import check_version, refuse_lost_events, refuse_no_file


def require(path: Path) -> None:
    """Raises `JournalError` if there is no journal, or none that this user can see."""
    refuse_no_file(path)
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise JournalError(
            f"there is no journal at {path}", hint="it is made by the first `picwish-watchd run`"
        ) from None
    except OSError as error:
        raise JournalError(
            f"the journal {path} cannot be opened: {error.strerror}",
            hint="run this as the user that runs picwish-watchd, or let this one into the folder",
        ) from error


def connect_checked(path: Path, parameter: str, witness: int = 0) -> sqlite3.Connection:
    """A connection for reading to a journal that is ours, not newer and not older than ``witness``; ``parameter`` is
    one of sqlite.org/uri.html. Raises `JournalError`.
    """
    connection = _connect(path, parameter)
    try:
        check_version(connection, path)
        refuse_lost_events(connection, path, witness)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, parameter: str) -> sqlite3.Connection:
    quoted = os.fsencode(path.absolute()).decode("latin-1")
    address = "file:" + "".join(c if (c.isalnum() and c.isascii()) or c in "/._-" else f"%{ord(c):02X}" for c in quoted)
    return sqlite3.connect(f"{address}?{parameter}", uri=True, isolation_level=None, timeout=5.0)
