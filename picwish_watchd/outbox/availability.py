"""Check whether a folder can be written to, and why not."""

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path

from picwish_watchd.fs.atomic_write import FolderUnavailable, NameRefused, NoSpace, ensure_root
from picwish_watchd.fs.mounts import Mount, detect_mount_change

NOT_RESPONDING = "it does not answer; look after the server that it is mounted from"


_MISSING_REASON = "it is not there"


_MISSING_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def why_unavailable(folder: Path, home: Mount | None) -> str | None:
    """In a thread: why ``folder``, which was last on ``home``, is not to be had now; None if it is."""
    try:
        found = os.stat(folder)
    except OSError as error:
        return _MISSING_REASON if error.errno in _MISSING_ERRNOS else error.strerror or str(error)
    return detect_mount_change(folder, home) if stat.S_ISDIR(found.st_mode) else _MISSING_REASON


def is_inside_any(path: Path, folders: Collection[Path]) -> bool:
    """Whether ``path`` is, or lies below, one of ``folders``, by their letters."""
    return any(path.is_relative_to(folder) for folder in folders)


def ensure_usable(
    folder: Path, mode: int, *, seen: bool, mount: Mount | None = None, min_free: int = 0
) -> FolderUnavailable | NoSpace | NameRefused | None:
    """In a thread: the same for one that may have been ``seen`` before, on ``mount``."""
    missing = why_unavailable(folder, mount) if seen else detect_mount_change(folder, mount)
    if missing == _MISSING_REASON:
        return FolderUnavailable("it was there before and is away; mount it, or make it again if it is gone for good")
    if missing is not None:
        return FolderUnavailable(missing)
    away = None if seen else ensure_root(folder, mode)
    if away is None and not os.access(folder, os.W_OK | os.X_OK):
        return FolderUnavailable("it is not writable")
    return _check_free_space(folder, min_free) if away is None and min_free else away


def _check_free_space(folder: Path, min_free: int) -> FolderUnavailable | NoSpace | None:
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return FolderUnavailable(error.strerror or str(error))
    free = found.f_bavail * found.f_frsize
    if free >= min_free and (found.f_favail or not found.f_files):
        return None
    return NoSpace(f"only {free / 2**20:.0f} MiB and {found.f_favail} files free; min_free is {min_free / 2**20:.0f}")
