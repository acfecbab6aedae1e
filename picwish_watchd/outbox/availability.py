"""Check whether a folder can be written to, and why not."""

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from picwish_watchd.fs.atomic_write import NoRoom, OutboxAway, Refused, ensure_root
from picwish_watchd.fs.mounts import Mount, moved

if TYPE_CHECKING:  # `why` and `plan` ask where folders lie, and do without what only the daemon has
    pass


HANGS = "it does not answer; look after the server that it is mounted from"


_GONE = "it is not there"


_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def absence(folder: Path, home: Mount | None) -> str | None:
    """In a thread: why ``folder``, which was last on ``home``, is not to be had now; None if it is."""
    try:
        found = os.stat(folder)
    except OSError as error:
        return _GONE if error.errno in _ABSENT else error.strerror or str(error)
    return moved(folder, home) if stat.S_ISDIR(found.st_mode) else _GONE


def lies_in(path: Path, folders: Collection[Path]) -> bool:
    """Whether ``path`` is, or lies below, one of ``folders``, by their letters."""
    return any(path.is_relative_to(folder) for folder in folders)


def reach(
    folder: Path, mode: int, *, seen: bool, mount: Mount | None = None, min_free: int = 0
) -> OutboxAway | NoRoom | Refused | None:
    """In a thread: the same for one that may have been ``seen`` before, on ``mount``."""
    missing = absence(folder, mount) if seen else moved(folder, mount)
    if missing == _GONE:
        return OutboxAway("it was there before and is away; mount it, or make it again if it is gone for good")
    if missing is not None:
        return OutboxAway(missing)
    away = None if seen else ensure_root(folder, mode)
    if away is None and not os.access(folder, os.W_OK | os.X_OK):
        return OutboxAway("it is not writable")
    return _shortage(folder, min_free) if away is None and min_free else away


def _shortage(folder: Path, min_free: int) -> OutboxAway | NoRoom | None:
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return OutboxAway(error.strerror or str(error))
    free = found.f_bavail * found.f_frsize
    if free >= min_free and (found.f_favail or not found.f_files):
        return None
    return NoRoom(f"only {free / 2**20:.0f} MiB and {found.f_favail} files free; min_free is {min_free / 2**20:.0f}")
