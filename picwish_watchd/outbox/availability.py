"""Check whether a folder can be used, and say why not: the only place that words these reasons.

A reason is "what is wrong; what to do about it" and follows the name of the folder. Everything here may hang with the
folder's mount, so it is for worker threads.
"""

import errno
import os
import stat
from collections.abc import Collection
from pathlib import Path

from picwish_watchd.fs import hang_guard
from picwish_watchd.fs.atomic_write import FolderUnavailable, NoSpace, ensure_root
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.wording import printable_path

LOST = "it was there before and is away; mount it, or make it again if it is gone for good"
_MISSING = "it is not there; make it, or mount what it is on"
_NOT_A_FOLDER = "it is not a folder; rename or remove what bears its name"
_NOT_WRITABLE = "it is not writable; give the user of picwish-watchd the right to write to it"
_MISSING_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def describe_hang(seconds: float | None = None) -> str:
    """Return the reason for a folder that did not answer within ``seconds`` (by default `hang_guard.HANG_TIMEOUT`)."""
    seconds = hang_guard.HANG_TIMEOUT if seconds is None else seconds
    time = f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:.0f} min"
    return f"it has not answered for {time}; check the server that it is mounted from"


def describe_low_space(free: int, min_free: int) -> str:
    """Return the reason for a folder with ``free`` bytes of space where ``min_free`` are required."""
    return f"it has only {free / 2**20:.0f} MiB free, and min_free is {min_free / 2**20:.0f} MiB; make room there"


def why_unavailable(folder: Path, accepted: AcceptedMount | None) -> str | None:
    """Return why an existing ``folder`` cannot be used now; None if it can.

    It must be a folder, and on the ``accepted`` mount; None means any mount.
    """
    try:
        status = os.stat(folder)
    except OSError as error:
        return _MISSING if error.errno in _MISSING_ERRNOS else error.strerror or str(error)
    if not stat.S_ISDIR(status.st_mode):
        return _NOT_A_FOLDER
    return None if accepted is None else accepted.why_elsewhere(folder)


def why_absent(folder: Path, accepted: AcceptedMount | None, *, seen: bool) -> str | None:
    """Return why a target folder is neither there nor can be made, without making it; None otherwise.

    ``seen``: it was used before. A folder that is missing then is probably on a mount that is away. Made again it would
    be on the wrong disk, and the next mount would hide what was put into it. So only its parent counts before that.
    """
    if not seen and not os.path.lexists(folder):
        there = os.path.isdir(folder.parent)
        return None if there else f"{printable_path(folder.parent)} is not there; make it, or mount what it is on"
    reason = why_unavailable(folder, accepted)
    return LOST if reason == _MISSING and seen else reason


def find_write_problem(
    folder: Path, accepted: AcceptedMount | None, *, seen: bool, min_free: int = 0
) -> FolderUnavailable | NoSpace | None:
    """Return why nothing can be put into a target folder now, without making it; see `why_absent` for ``seen``.

    A folder that can still be made counts as usable. ``min_free`` is in bytes.
    """
    if (reason := why_absent(folder, accepted, seen=seen)) is not None:
        return FolderUnavailable(reason)
    return why_not_writable(folder, min_free) if os.path.isdir(folder) else None


def ensure_usable(
    folder: Path, mode: int, accepted: AcceptedMount | None, *, seen: bool, min_free: int = 0
) -> FolderUnavailable | NoSpace | None:
    """Make a target folder unless it was ``seen`` before; return why nothing can be put into it, or None.

    ``mode`` is that of the rule's files (see `ensure_root`); ``min_free`` is in bytes.
    """
    if seen:
        reason = why_absent(folder, accepted, seen=True)
    else:
        reason = None if accepted is None else accepted.why_elsewhere(folder)
    if reason is not None:
        return FolderUnavailable(reason)
    problem = None if seen else ensure_root(folder, mode)
    return why_not_writable(folder, min_free) if problem is None else problem


def why_not_writable(folder: Path, min_free: int = 0) -> FolderUnavailable | NoSpace | None:
    """Return why nothing can be put into an existing ``folder``: no right to write, or less space than ``min_free``."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return FolderUnavailable(_NOT_WRITABLE)
    return why_full(folder, min_free) if min_free else None


def why_full(folder: Path, min_free: int) -> FolderUnavailable | NoSpace | None:
    """Return why ``folder`` has no room: less than ``min_free`` bytes or no free inodes; None if it has.

    A folder that cannot be asked is `FolderUnavailable`. Space counts as far as this user may fill it (statvfs(3):
    f_bavail, f_favail; f_files is 0 where a file system does not count inodes).
    """
    try:
        status = os.statvfs(folder)
    except OSError as error:
        return FolderUnavailable(error.strerror or str(error))
    free = status.f_bavail * status.f_frsize
    if free < min_free:
        return NoSpace(describe_low_space(free, min_free))
    if status.f_files and not status.f_favail:
        return NoSpace(f"it has {free / 2**20:.0f} MiB free, and no inodes for another file; remove some files there")
    return None


def is_inside_any(path: Path, folders: Collection[Path]) -> bool:
    """Return whether ``path`` is one of ``folders`` or below one, by text alone; asks no file system."""
    return any(path.is_relative_to(folder) for folder in folders)
