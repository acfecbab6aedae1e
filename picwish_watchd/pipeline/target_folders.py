"""Folders that results and originals are written to: made once, and afterwards only waited for.

A folder that was there and is missing now is most likely on a mount that is away. If it were made again it would be on
the wrong disk, and the next mount would hide the files that were put into it.
"""

import math
from pathlib import Path

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.mounts import AcceptedMount, canonical_mount_of
from picwish_watchd.outbox.availability import describe_low_space, ensure_usable, why_unavailable
from picwish_watchd.outbox.publish import remove_stale_parts
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.worker_key import WorkerKey

# Seconds until a folder is swept again that could not be swept completely.
_SWEEP_INTERVAL = 300.0


class Sweeper:
    """Removes the unfinished copies that a crash left, once for each folder, retrying until it has succeeded."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # Monotonic seconds; math.inf once the folder is swept.
        self._due_at: dict[Path, float] = {}

    async def sweep(self, rule: Rule, folder: Path) -> None:
        """Sweep ``folder``, one of ``rule``'s, if it is due and there; copies that are being written now stay."""
        now = self._context.clock.monotonic()
        if now < self._due_at.get(folder, -math.inf):
            return
        self._due_at[folder] = now + _SWEEP_INTERVAL
        accepted = self._context.accepted_mount(rule.name, folder)
        result = await self._context.executor.run(WorkerKey.outbox(rule.name), _sweep_folder, folder, accepted)
        if result is None:
            del self._due_at[folder]
        elif result:
            self._due_at[folder] = math.inf


def _sweep_folder(folder: Path, accepted: AcceptedMount) -> bool | None:
    """Return, in a thread, whether the whole folder is swept; None while it is away."""
    return None if why_unavailable(folder, accepted) is not None else remove_stale_parts(folder)


async def why_unusable(context: StepContext, rule: Rule, folder: Path) -> str | None:
    """Return why nothing can be written to ``folder`` or to the spool now, or None if both are usable.

    The folder is made the first time, if its parent is there. Both must have `min_free` bytes free.
    """
    min_free = context.config.min_free
    free = context.spool.free_space()
    if free < min_free:
        return f"the spool {context.spool.folder} cannot be used: {describe_low_space(free, min_free)}"
    problem = await context.executor.run(
        WorkerKey.outbox(rule.name),
        ensure_usable,
        folder,
        rule.file_mode,
        context.accepted_mount(rule.name, folder),
        seen=context.journal.is_known_folder(folder),
        min_free=min_free,
    )
    if problem is None:
        await record_folder(context, rule, folder)
        return None
    return f"{folder} cannot be used: {problem.reason}"


async def record_folder(context: StepContext, rule: Rule, folder: Path) -> None:
    """Record a folder that was written to, and its mount: from now on the folder is waited for there and never made."""
    if context.journal.folder_mount(folder) is None:
        context.journal.save_folder(
            folder, await context.executor.run(WorkerKey.outbox(rule.name), canonical_mount_of, folder)
        )
