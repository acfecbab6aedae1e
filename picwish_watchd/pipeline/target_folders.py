"""Folders that are written to: made once, and afterwards only waited for.

A folder that was there and is not any more lies on a mount that is away, more likely than not: made again, it would lie
on the wrong disk, and the next mount would hide what was put into it.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.mounts import Mount, home_of
from picwish_watchd.outbox.availability import absence, reach
from picwish_watchd.outbox.publish import sweep

if TYPE_CHECKING:  # `why` and `plan` ask where folders lie, and do without what only the daemon has
    from picwish_watchd.pipeline.context import Context

_SWEEP_AGAIN = 300.0  # seconds until a folder is swept again that could not be swept to its end


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


async def remember(context: "Context", rule: Rule, folder: Path) -> None:
    """The folder could be used: from now on it is only waited for, on the mount that it lies on."""
    if context.journal.folder_mount(folder) is None:
        context.journal.remember_folder(folder, await context.lanes.run(f"out:{rule.name}", home_of, folder))
