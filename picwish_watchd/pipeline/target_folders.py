"""Folders that are written to: made once, and afterwards only waited for.

A folder that was there and is not any more lies on a mount that is away, more likely than not: made again, it would lie
on the wrong disk, and the next mount would hide what was put into it.
"""

import math
from pathlib import Path

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.mounts import AcceptedMount, canonical_mount_of
from picwish_watchd.outbox.availability import describe_low_space, ensure_usable, why_unavailable
from picwish_watchd.outbox.publish import remove_stale_parts
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.worker_key import WorkerKey

# seconds until a folder is swept again that could not be swept to its end
_SWEEP_INTERVAL = 300.0


class Sweeper:
    """Removes what a crash left of copies, once for each folder: when it is there, and until that has gone well."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # Monotonic seconds; math.inf once the folder is swept.
        self._due_at: dict[Path, float] = {}

    async def sweep(self, rule: Rule, folder: Path) -> None:
        """Sweeps ``folder``, of ``rule``, if it was not yet and is there; what is being written meanwhile stays."""
        now = self._context.clock.monotonic()
        if now < self._due_at.get(folder, -math.inf):
            return
        self._due_at[folder] = now + _SWEEP_INTERVAL
        accepted = self._context.accepted_mount(rule.name, folder)
        swept = await self._context.executor.run(WorkerKey.outbox(rule.name), _sweep_folder, folder, accepted)
        if swept is None:
            del self._due_at[folder]
        elif swept:
            self._due_at[folder] = math.inf


def _sweep_folder(folder: Path, accepted: AcceptedMount) -> bool | None:
    """In a thread: whether all is swept; None while the folder is away."""
    return None if why_unavailable(folder, accepted) is not None else remove_stale_parts(folder)


async def why_unusable(context: StepContext, rule: Rule, folder: Path) -> str | None:
    """Why nothing can be kept in ``folder``, or in the spool, now; or None.

    The first time, the folder is made if its parent is there. Both must have `min_free`.
    """
    least = context.config.min_free
    free = context.spool.free_space()
    if free < least:
        return f"the spool {context.spool.folder} cannot be used: {describe_low_space(free, least)}"
    problem = await context.executor.run(
        WorkerKey.outbox(rule.name),
        ensure_usable,
        folder,
        rule.file_mode,
        context.accepted_mount(rule.name, folder),
        seen=context.journal.is_known_folder(folder),
        min_free=least,
    )
    if problem is None:
        await record_folder(context, rule, folder)
        return None
    return f"{folder} cannot be used: {problem.reason}"


async def record_folder(context: StepContext, rule: Rule, folder: Path) -> None:
    """The folder could be used: from now on it is only waited for, on the mount that it lies on."""
    if context.journal.folder_mount(folder) is None:
        context.journal.save_folder(
            folder, await context.executor.run(WorkerKey.outbox(rule.name), canonical_mount_of, folder)
        )
