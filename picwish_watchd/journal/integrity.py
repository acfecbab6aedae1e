"""Refuse a journal that must not be used: not ours, newer than this program, or with less in it than before."""

import os
import sqlite3
import stat
from pathlib import Path

from picwish_watchd.errors import JournalError
from picwish_watchd.journal.locks import last_durable_event
from picwish_watchd.journal.schema import APPLICATION_ID, VERSION

_FILE_TYPES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular_file(path: Path) -> None:
    """Raise `JournalError` if something else than a file has the journal's name, or a link whose target is missing.

    A new journal would replace such a link, although the real one may be on a disk that is not mounted.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        if os.path.islink(path):
            raise JournalError(
                f"the journal {path} is a link to {os.readlink(path)}: {error.strerror}",
                hint="mount the disk that it leads to; to start with an empty journal instead, remove the link",
            ) from error
        return
    if kind != stat.S_IFREG:
        raise JournalError(
            f"the journal {path} cannot be opened: it is {_FILE_TYPES.get(kind, 'not a file')}",
            hint="set `journal:` to a file of its own, such as /var/lib/picwish-watchd/journal.db",
        )


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the schema version of the file. Raises `JournalError` if it is not ours or is newer than this program."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        raise JournalError(
            f"{path} is not a journal of picwish-watchd",
            hint="set `journal:` to a file of its own; this one was not touched",
        )
    if version > VERSION:
        raise JournalError(
            f"{path} was written by a newer picwish-watchd (schema {version}; this one knows {VERSION})",
            hint="install the newer version again; the journal was not touched",
        )
    return version


def last_event_id(connection: sqlite3.Connection) -> int:
    """Return the id of the newest event, or 0 without events. Ids are never used twice."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM event").fetchone()[0])


def check_no_lost_events(connection: sqlite3.Connection, path: Path, witness: int) -> None:
    """Raise `JournalError` if the journal lacks event ``witness``, which was committed and has to be read before."""
    missing = witness - last_event_id(connection)
    if missing > 0:
        lacks = "1 entry is missing" if missing == 1 else f"{missing} entries are missing"
        raise JournalError(
            f"the journal {path} is older than what was last written to it: {lacks}",
            hint="its -wal was taken away, or this is a backup: put the newest one back, with its -wal. Without it, "
            "images paid for since are unknown: only after moving them out of the inboxes, and with nothing of "
            f"picwish-watchd running, remove {path}.write and start again",
        )


def check_wal_present(path: Path) -> None:
    """Raise `JournalError` if the -wal was removed after an unclean end, and with it the last commits.

    SQLite deletes the -shm before the -wal (sqlite.org/src/file/src/wal.c, sqlite3WalClose), so it never leaves a -shm
    alone. The -wal is looked for twice, as another process may open or close the journal meanwhile.
    """
    wal = f"{path}-wal"
    if not os.path.exists(wal) and os.path.exists(f"{path}-shm") and not os.path.exists(wal):
        raise JournalError(
            f"the journal {path} lost its companion {wal}, and with it what was written last",
            hint=f"put the -wal back; or restore both from a backup and remove {path}-shm. Without it, images "
            "paid for last are unknown: only after moving them out of the inboxes, remove the -shm and start again",
        )


def check_not_deleted(path: Path) -> None:
    """Raise `JournalError` if files beside the missing journal show that there was one."""
    if os.path.exists(f"{path}-wal"):
        raise JournalError(
            f"the journal {path} is gone, but its companion {path}-wal is there",
            hint="put the journal back beside it; to start with an empty journal instead, move the -wal away too",
        )
    paid = [name for name in _list_folder(f"{path}.spool") if name.endswith(".result")]
    if paid:
        raise JournalError(
            f"the journal {path} is gone, but {len(paid)} paid results are in {path}.spool",
            hint="put the journal back; to start with an empty journal instead, move that folder away",
        )
    if last_durable_event(path):
        raise JournalError(
            f"the journal {path} is gone: {path}.write shows that it existed",
            hint="put it back, with its -wal. A new one knows no finished image: only after moving those out of the "
            f"inboxes, remove {path}.write and start again",
        )


def _list_folder(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def check_local_filesystem(path: Path) -> None:
    """Raise `JournalError` on a network file system, where locks and WAL are not safe (sqlite.org/wal.html)."""
    # Imported here, as `status`, which does not call this, must not load dataclasses.
    from picwish_watchd.fs.mounts import mount_of

    mount = mount_of(path.parent)
    if mount is not None and mount.is_network:
        raise JournalError(
            f"the journal {path} is on a network file system ({mount.kind} at {mount.point})",
            hint="set `journal:` to a file on a local disk; SQLite is not safe on network file systems",
        )
