"""After a job has ended: move or delete its original as the rule says, and retry until that has succeeded."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config.schema import OnSuccess, Rule
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.fs.verdicts import Missing
from picwish_watchd.job import Job, OriginalStatus, SourceKind, State
from picwish_watchd.job_json import render_sidecar
from picwish_watchd.outbox.availability import ensure_usable, why_unavailable
from picwish_watchd.outbox.originals import (
    Deleted,
    DisposalFailed,
    Moved,
    Replaced,
    delete_original,
    find_moved_original,
    move_original,
)
from picwish_watchd.outbox.publish import NameTaken, Published, write_sidecar
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.error_boundary import job_error_boundary
from picwish_watchd.pipeline.target_folders import Sweeper, record_folder
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()

# Seconds between looks at the journal when no wake-up comes.
_IDLE_SECONDS = 5.0
# Seconds until an original that could not be moved is tried again.
_RETRY_DELAY = 60.0


@dataclass(frozen=True, slots=True)
class MovedWithoutSidecar:
    """The original was moved, but the sidecar with its error could not be written; it is tried again."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class DisposalBlocked:
    """A folder is away that all originals of the rule need which ended in the same way."""

    reason: str


@dataclass(frozen=True, slots=True)
class _AcceptedFolders:
    """The mounts that a rule's inbox, and the folder that an original goes to, were last accepted on."""

    inbox: AcceptedMount
    #: None where the original goes to no folder.
    root: AcceptedMount | None


DisposalOutcome = Moved | MovedWithoutSidecar | Deleted | Replaced | Missing | DisposalFailed | DisposalBlocked


class Dispose:
    """The step that moves and deletes the originals that are `waiting`, rule by rule."""

    def __init__(self, context: StepContext, *, rescan_source: Callable[[Job], None]) -> None:
        """``rescan_source`` makes the file at a job's source a candidate again."""
        self._rescan_source = rescan_source
        self._context = context
        self._busy_rules: set[str] = set()
        self._sweeper = Sweeper(context)

    async def run(self) -> None:
        """Move and delete originals until the daemon stops."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.heartbeat.beat("dispose")
                for rule in self._context.journal.rules_with_waiting_originals(self._context.clock.now()):
                    if rule not in self._busy_rules:
                        self._busy_rules.add(rule)
                        group.create_task(self._process_rule(rule))
                await self._context.wakeups.dispose.wait(_IDLE_SECONDS)

    async def _process_rule(self, rule: str) -> None:
        context = self._context
        try:
            while not context.stopping:
                job = context.journal.next_waiting_original(rule, context.clock.now())
                if job is None:
                    return
                await job_error_boundary(context, job.id, self.dispose(job))
        finally:
            self._busy_rules.discard(rule)

    async def dispose(self, job: Job) -> None:
        """Move or delete the original of one job, and record what became of it."""
        context = self._context
        rule = context.rule_of(job)
        # An inbox and its outbox, archive and failed folders may hang together, so one worker does all of this.
        root = rule.archive if job.state is State.DONE else rule.failed
        if job.state is State.DONE and rule.on_success is OnSuccess.KEEP:
            self._finish(job, OriginalStatus.PRESENT, "the original stays where it is, as the rule says now")
            return
        seen = root is not None and context.journal.is_known_folder(root)
        accepted = _AcceptedFolders(
            context.accepted_mount(rule.name, rule.inbox),
            None if root is None else context.accepted_mount(rule.name, root),
        )
        if root is not None:
            await self._sweeper.sweep(rule, root)
        newest = context.journal.find_latest_job(job.source)
        outcome = await context.executor.run(
            WorkerKey.outbox(job.rule),
            _dispose_original,
            job,
            rule,
            root,
            accepted,
            seen=seen,
            last=newest is None or newest.id == job.id,
        )
        await self._record_outcome(job, rule, root, outcome)

    async def _record_outcome(self, job: Job, rule: Rule, root: Path | None, outcome: DisposalOutcome) -> None:
        if root is not None and isinstance(outcome, Moved | MovedWithoutSidecar):
            await record_folder(self._context, rule, root)
        match outcome:
            case Moved(path=path):
                self._finish(job, OriginalStatus.MOVED, f"the original was moved to {path}")
            case Deleted():
                self._finish(job, OriginalStatus.DELETED, "the original was deleted, as on_success: delete asks")
            case Missing():
                self._finish(job, OriginalStatus.GONE, "the original was gone already")
            case Replaced():
                text = "another file has the original's name now; it was not touched"
                self._finish(job, OriginalStatus.REPLACED, text)
            case DisposalFailed(reason=reason):
                self._retry_later(job, _describe_failure(job, rule, root, reason), "original.stuck", reason)
            case DisposalBlocked(reason=reason):
                # Thousands may wait for that folder: to try each one every minute would leave time for nothing else.
                self._context.journal.postpone_originals(job, self._context.clock.now() + _RETRY_DELAY)
                self._retry_later(job, _describe_failure(job, rule, root, reason), "original.stuck", reason)
            case MovedWithoutSidecar(path=path, reason=reason):
                note = (
                    f"the original was moved to {path}, but its error could not be written beside it yet: {reason}; "
                    "tried again every minute"
                )
                self._retry_later(job, note, "original.untold", reason)
            case _:
                assert_never(outcome)

    def _retry_later(self, job: Job, note: str, event: str, reason: str) -> None:
        is_news = job.note != note
        if is_news:
            _log.warning(event, job=job.id, rule=job.rule, path=job.source, reason=reason)
        later = self._context.clock.now() + _RETRY_DELAY
        self._context.journal.update(job, note if is_news else None, note=note, not_before=later)

    def _finish(self, job: Job, original: OriginalStatus, message: str) -> None:
        _log.info(f"original.{original}", job=job.id, rule=job.rule, path=job.source, reason=message)
        self._context.journal.update(job, message, original=original, note=None, not_before=None)
        self._rescan_source(job)


def _describe_failure(job: Job, rule: Rule, root: Path | None, reason: str) -> str:
    deleting = job.state is State.DONE and rule.on_success is OnSuccess.DELETE
    what = "deleted" if deleting else f"moved to {root}" if root is not None else "moved"
    return f"the original could not be {what} yet: {reason}; it is where it was, and is tried again every minute"


def _dispose_original(
    job: Job, rule: Rule, root: Path | None, accepted: _AcceptedFolders, *, seen: bool, last: bool
) -> DisposalOutcome:
    """Move or delete the original, in a thread. Unless this is the source's ``last`` job, the file is a later job's."""
    if (missing := why_unavailable(rule.inbox, accepted.inbox)) is not None:
        return DisposalBlocked(f"the inbox {rule.inbox} is away: {missing}")
    # The hash of a link's job is that of its URL, not of the file.
    sha256 = None if job.kind is SourceKind.LINK else job.sha256
    if job.state is State.DONE and rule.on_success is OnSuccess.DELETE:
        return _recheck_inbox(
            delete_original(job.source, job.stamp, sha256) if last else Replaced(), rule, accepted.inbox
        )
    # The rule was changed meanwhile.
    if root is None or accepted.root is None:
        return DisposalFailed("the rule names no folder to move it to")
    away = ensure_usable(root, rule.file_mode, accepted.root, seen=seen)
    if away is not None:
        return DisposalBlocked(f"{root}: {away.reason}")
    done: DisposalOutcome = Replaced()
    if last:
        done = move_original(
            job.source,
            job.stamp,
            sha256,
            root,
            job.relative,
            mode=rule.file_mode,
            tag=str(job.id),
            accepted=accepted.root,
        )
    if (
        isinstance(done, Missing | Replaced)
        and (path := find_moved_original(job.stamp, sha256, root, job.relative)) is not None
    ):
        done = Moved(path)
    if isinstance(done, Moved) and job.state is not State.DONE:
        return _write_error_sidecar(job, rule, root, done, accepted.root)
    return _recheck_inbox(done, rule, accepted.inbox)


def _write_error_sidecar(
    job: Job, rule: Rule, root: Path, moved: Moved, accepted: AcceptedMount
) -> Moved | MovedWithoutSidecar:
    """Write the sidecar with the job's error beside the original."""
    written = write_sidecar(
        root,
        moved.path.relative_to(root),
        ".error.json",
        render_sidecar(job),
        mode=rule.file_mode,
        tag=str(job.id),
        accepted=accepted,
    )
    if isinstance(written, Published):
        return moved
    reason = "another file has its name" if isinstance(written, NameTaken) else written.reason
    return MovedWithoutSidecar(moved.path, reason)


def _recheck_inbox(outcome: DisposalOutcome, rule: Rule, accepted: AcceptedMount) -> DisposalOutcome:
    """Return the outcome, or `DisposalBlocked` if the inbox went away meanwhile: then a missing file proves nothing."""
    if not isinstance(outcome, Missing | Replaced) or (missing := why_unavailable(rule.inbox, accepted)) is None:
        return outcome
    return DisposalBlocked(f"the inbox {rule.inbox} is away: {missing}")
