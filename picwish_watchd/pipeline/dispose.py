"""After the end: moves or deletes the originals whose rules ask for it, again and again until it is done."""

import asyncio
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

_IDLE_SECONDS = 5.0
# seconds until an original that could not be moved is tried again
_RETRY_DELAY = 60.0


@dataclass(frozen=True, slots=True)
class MovedWithoutSidecar:
    """It was moved, and what was wrong with it does not stand beside it yet; to be tried again."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class DisposalBlocked:
    """A folder is away that all such originals of the rule need."""

    reason: str


@dataclass(frozen=True, slots=True)
class _AcceptedFolders:
    """The mounts that a rule's inbox, and the folder that an original goes to, were last accepted on."""

    inbox: AcceptedMount
    #: None where the original goes to no folder
    root: AcceptedMount | None


DisposalOutcome = Moved | MovedWithoutSidecar | Deleted | Replaced | Missing | DisposalFailed | DisposalBlocked


class Dispose:
    """Works on the jobs whose original is `waiting`, rule by rule."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        self._busy_rules: set[str] = set()
        self._sweeper = Sweeper(context)

    async def run(self) -> None:
        """Disposes until the daemon stops."""
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
        """One original, and what came of it."""
        context = self._context
        rule = context.rule_of(job)
        # An inbox and its outbox, archive and failed folders may hang together: all of it is one lane's work.
        root = rule.archive if job.state is State.DONE else rule.failed
        if job.state is State.DONE and rule.on_success is OnSuccess.KEEP:
            self._finish(job, OriginalStatus.PRESENT, "the original stays where it is, as the rule says by now")
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
                text = "something else bears the original's name by now; it was not touched"
                self._finish(job, OriginalStatus.REPLACED, text)
            case DisposalFailed(reason=reason):
                self._retry_later(job, _describe_failure(job, rule, root, reason), "original.stuck", reason)
            case DisposalBlocked(reason=reason):
                # thousands may wait for it: to try each of them every minute leaves time for nothing else
                self._context.journal.postpone_originals(job, self._context.clock.now() + _RETRY_DELAY)
                self._retry_later(job, _describe_failure(job, rule, root, reason), "original.stuck", reason)
            case MovedWithoutSidecar(path=path, reason=reason):
                note = (
                    f"the original was moved to {path}, and what was wrong with it could not be written beside it "
                    f"yet: {reason}; tried again every minute"
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
        self._context.rescan_source(job)


def _describe_failure(job: Job, rule: Rule, root: Path | None, reason: str) -> str:
    deleting = job.state is State.DONE and rule.on_success is OnSuccess.DELETE
    what = "deleted" if deleting else f"moved to {root}" if root is not None else "moved"
    return f"the original could not be {what} yet: {reason}; it is where it was, and is tried again every minute"


def _dispose_original(
    job: Job, rule: Rule, root: Path | None, accepted: "_AcceptedFolders", *, seen: bool, last: bool
) -> DisposalOutcome:
    """In a thread. Unless it is the ``last`` job of its source, what lies there is a later one's."""
    if (missing := why_unavailable(rule.inbox, accepted.inbox)) is not None:
        return DisposalBlocked(f"the inbox {rule.inbox} is away: {missing}")
    # a link's is that of its address
    sha256 = None if job.kind is SourceKind.LINK else job.sha256
    if job.state is State.DONE and rule.on_success is OnSuccess.DELETE:
        return _recheck_inbox(
            delete_original(job.source, job.stamp, sha256) if last else Replaced(), rule, accepted.inbox
        )
    # the rule was changed meanwhile
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
    """Writes beside the original what was wrong with it."""
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
    reason = "something else bears its name" if isinstance(written, NameTaken) else written.reason
    return MovedWithoutSidecar(moved.path, reason)


def _recheck_inbox(outcome: DisposalOutcome, rule: Rule, accepted: AcceptedMount) -> DisposalOutcome:
    """The mount may have gone after it was looked at: then nobody knows yet what became of an original."""
    if not isinstance(outcome, Missing | Replaced) or (missing := why_unavailable(rule.inbox, accepted)) is None:
        return outcome
    return DisposalBlocked(f"the inbox {rule.inbox} is away: {missing}")
