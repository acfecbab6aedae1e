"""Folders that are written to: made once, and afterwards only waited for.

A folder that was there and is not any more lies on a mount that is away, more likely than not: made again, it would lie
on the wrong disk, and the next mount would hide what was put into it.
"""

import errno
import math
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from picwish_watchd.config import Rule
from picwish_watchd.files.place import NoRoom, OutboxAway, Refused, ensure_root
from picwish_watchd.files.publish import sweep
from picwish_watchd.mounts import Mount, home_of, moved

if TYPE_CHECKING:  # `why` and `plan` ask where folders lie, and do without what only the daemon has
    from picwish_watchd.pipeline.context import Context

HANGS = "it does not answer; look after the server that it is mounted from"
_GONE = "it is not there"
_SWEEP_AGAIN = 300.0  # seconds until a folder is swept again that could not be swept to its end
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Sweeper:
    """Removes what a crash left of copies, once for each folder: when it is there, and until that has gone well."""

    def __init__(self, context: "Context") -> None:
        self._context = context
        self._due: dict[Path, float] = {}  # monotonic; math.inf: it is swept

    async def sweep(self, rule: Rule, folder: Path) -> None:
        """Sweeps ``folder``, of ``rule``, if it was not yet and is there; what is being written meanwhile stays."""
        now = self._context.clock.monotonic()
        if now < self._due.get(folder, -math.inf):
            return
        self._due[folder] = now + _SWEEP_AGAIN
        mount = self._context.journal.folder_mount(folder)
        swept = await self._context.lanes.run(f"out:{rule.name}", _swept, folder, mount)
        if swept is None:
            del self._due[folder]
        elif swept:
            self._due[folder] = math.inf


def _swept(folder: Path, mount: Mount | None) -> bool | None:
    """In a thread: whether all is swept; None while the folder is away."""
    return None if absence(folder, mount) is not None else sweep(folder)


async def trouble_with(context: "Context", rule: Rule, folder: Path) -> str | None:
    """Why nothing can be kept in ``folder``, or in the spool, now; or None.

    The first time, the folder is made if its parent is there. Both must have `min_free`.
    """
    least = context.config.min_free
    free = context.spool.free()
    if free < least:
        return f"the spool {context.spool.folder} has only {free / 2**20:.0f} MiB free; min_free is {least / 2**20:.0f}"
    seen = context.journal.folder_seen(folder)
    mount = context.journal.folder_mount(folder)
    lane = f"out:{rule.name}"
    away = await context.lanes.run(lane, reach, folder, rule.file_mode, seen=seen, mount=mount, min_free=least)
    if away is None:
        await remember(context, rule, folder)
        return None
    return f"{folder} cannot be used: {away.reason}"


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


async def remember(context: "Context", rule: Rule, folder: Path) -> None:
    """The folder could be used: from now on it is only waited for, on the mount that it lies on."""
    if context.journal.folder_mount(folder) is None:
        context.journal.remember_folder(folder, await context.lanes.run(f"out:{rule.name}", home_of, folder))


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
