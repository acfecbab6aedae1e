"""From `delivering` to `done`: publish a result from the spool in the outbox, complete under its final name or not.

Delivering can be repeated. The name is written to the journal before the file gets it, so after a crash our own result
is recognised in the outbox and not delivered a second time under another name.
"""

import asyncio
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path, PurePath
from typing import assert_never

import structlog

from picwish_watchd.config.schema import IfExists, OnSuccess, Rule
from picwish_watchd.fs.atomic_write import FolderUnavailable, NameRefused, NoSpace
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.images.formats import Format
from picwish_watchd.job import ErrorCode, Job, OriginalStatus, Problem, Stamp, State
from picwish_watchd.job_json import render_sidecar
from picwish_watchd.outbox.availability import ensure_usable
from picwish_watchd.outbox.filenames import make_portable
from picwish_watchd.outbox.publish import (
    ExistingFile,
    NameTaken,
    Published,
    SpoolDamaged,
    ensure_durable,
    find_same_file,
    first_free_name,
    inspect_existing,
    publish_result,
    write_sidecar,
)
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.error_boundary import job_error_boundary
from picwish_watchd.pipeline.result_names import numbered_names, result_name
from picwish_watchd.pipeline.target_folders import Sweeper, record_folder
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.wording import printable_path

_log = structlog.get_logger()

# Seconds between looks at the journal when no wake-up comes.
_IDLE_SECONDS = 1.0
# Deliveries of one rule at a time; the rule's thread copies one after the other.
_MAX_PER_RULE = 4
# Seconds until an outbox that was away or full is tried again.
_RETRY_DELAY = 10.0


class Deliver:
    """The step that delivers results from the spool, rule by rule: an outbox that hangs delays only its own rule."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # Job id -> rule, of the deliveries under way.
        self._in_progress: dict[int, str] = {}
        # Paths that a result is being written to, and its job.
        self._claimed_paths: dict[Path, Job] = {}
        self._sweeper = Sweeper(context)

    async def run(self) -> None:
        """Deliver until the daemon stops, then return when the deliveries under way have ended."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.heartbeat.beat("deliver")
                while (job := self._next_job()) is not None:
                    self._in_progress[job.id] = job.rule
                    group.create_task(self._process_job(job))
                await self._context.wakeups.deliver.wait(self._context.wait_timeout(_IDLE_SECONDS))

    def _next_job(self) -> Job | None:
        journal, now = self._context.journal, self._context.clock.now()
        for rule in journal.rules_with_ready_jobs(State.DELIVERING, now):
            if sum(other == rule for other in self._in_progress.values()) < _MAX_PER_RULE:
                job = journal.next_ready_job(rule, now, tuple(self._in_progress), state=State.DELIVERING)
                if job is not None:
                    return job
        return None

    async def _process_job(self, job: Job) -> None:
        try:
            await job_error_boundary(self._context, job.id, self.deliver(job))
        finally:
            del self._in_progress[job.id]
            self._claimed_paths = {path: holder for path, holder in self._claimed_paths.items() if holder.id != job.id}
            self._context.wakeups.deliver.notify()

    async def deliver(self, job: Job) -> None:
        """Deliver one result, or record in the journal why it has to wait."""
        context = self._context
        rule = context.rule_of(job)
        result = job.result
        assert result is not None
        await self._sweeper.sweep(rule, rule.outbox)
        if job.output is not None and job.output.is_relative_to(rule.outbox):
            delivered = await context.executor.run(
                WorkerKey.outbox(job.rule), ensure_durable, job.output, result.sha256
            )
            if isinstance(delivered, FolderUnavailable):
                self._postpone_rule(job, f"the outbox {rule.outbox} cannot be used: {delivered.reason}")
                return
            if delivered:
                await self._finish(job, rule, job.output)
                return
        planned = result_name(job, rule, Format(result.format), result.width, result.height, context.clock.now())
        earlier = () if job.output is None or not job.output.is_relative_to(rule.outbox) else (job.output,)
        # The name that an earlier try had planned goes first.
        await self._publish_first_free(
            job, rule, chain((path.relative_to(rule.outbox) for path in earlier), numbered_names(planned))
        )

    async def _publish_first_free(self, job: Job, rule: Rule, names: Iterator[PurePath]) -> None:
        """Deliver the result under the first of the names that is free."""
        if rule.if_exists is not IfExists.OVERWRITE:
            names = chain(
                (await self._context.executor.run(WorkerKey.outbox(job.rule), first_free_name, rule.outbox, names),),
                names,
            )
        for name in names:
            match outcome := await self._try_name(job, rule, name):
                case Published(path=path):
                    await self._finish(job, rule, path)
                case NameTaken():
                    continue
                case NoSpace(reason=reason):
                    self._postpone_rule(job, f"the outbox {rule.outbox} has not enough space: {reason}")
                case FolderUnavailable(reason=reason):
                    self._postpone_rule(job, f"the outbox {rule.outbox} cannot be used: {reason}")
                case NameRefused(reason=reason):
                    await self._handle_refused_name(job, rule, name, reason)
                case SpoolDamaged(reason=reason):
                    self._refetch_result(job, reason)
                case _:
                    assert_never(outcome)
            return

    async def _handle_refused_name(self, job: Job, rule: Rule, name: PurePath, reason: str) -> None:
        """Deliver under a portable name: a paid result gets another name rather than none."""
        portable = make_portable(name)
        message = f"the outbox does not accept the name {printable_path(name)}: {reason}"
        if portable == name:
            self._hold(job, ErrorCode.OUTPUT_FAILED, message)
            return
        _log.warning("delivery.renamed", job=job.id, rule=job.rule, path=job.source, output=portable, reason=message)
        self._context.journal.update(job, f"{message}; it is delivered as {portable}", output=None)
        await self._publish_first_free(job, rule, numbered_names(portable))

    async def _try_name(
        self, job: Job, rule: Rule, name: PurePath
    ) -> Published | NameTaken | FolderUnavailable | NoSpace | NameRefused | SpoolDamaged:
        """Publish under one name; with `if_exists: overwrite`, inspect a file that has it before replacing it."""
        context, path = self._context, rule.outbox / name
        if not await self._claim_path(job, rule, path):
            return NameTaken()
        context.journal.update(job, output=path)
        seen = context.journal.is_known_folder(rule.outbox)
        accepted = context.accepted_mount(rule.name, rule.outbox)
        examined: Stamp | None = None
        while True:
            outcome = await context.executor.run(
                WorkerKey.outbox(job.rule), self._publish_as, job, rule, name, examined, accepted, seen=seen
            )
            if not isinstance(outcome, ExistingFile):
                return outcome
            other_outputs = [
                other.output
                for other in context.journal.find_jobs_by_result(outcome.sha256)
                if other.output is not None and not _can_replace(job, other)
            ]
            if await context.executor.run(WorkerKey.outbox(job.rule), find_same_file, path, other_outputs) is not None:
                return NameTaken()
            examined = outcome.stamp

    def _publish_as(
        self, job: Job, rule: Rule, name: PurePath, examined: Stamp | None, accepted: AcceptedMount, *, seen: bool
    ) -> Published | NameTaken | ExistingFile | FolderUnavailable | NoSpace | NameRefused | SpoolDamaged:
        """Publish the result if the outbox is usable and the name free; runs in the outbox's thread."""
        assert job.result is not None
        problem = ensure_usable(rule.outbox, rule.file_mode, accepted, seen=seen)
        if problem is not None:
            return problem
        overwriting = rule.if_exists is IfExists.OVERWRITE
        if overwriting and (existing := inspect_existing(rule.outbox / name, examined)) is not None:
            return existing
        if not overwriting and os.path.lexists(rule.outbox / name):
            # Before a copy is made in vain.
            return NameTaken()
        return publish_result(
            self._context.spool.result_path(job.id),
            rule.outbox,
            name,
            mode=rule.file_mode,
            replace=examined is not None,
            tag=str(job.id),
            sha256=job.result.sha256,
            accepted=accepted,
        )

    async def _claim_path(self, job: Job, rule: Rule, path: Path) -> bool:
        """Return whether the result may be written to ``path``; then the path belongs to this job.

        With `if_exists: overwrite`, a result never replaces that of another source, or of newer content of its own
        source. Otherwise no file may be there, and no result of any rule may be due there: rules may share an outbox.
        """
        journal = self._context.journal
        overwriting = rule.if_exists is IfExists.OVERWRITE
        holder = self._claimed_paths.get(path, job)
        if holder.id != job.id and not (overwriting and _can_replace(job, holder)):
            return False
        if overwriting:
            owner = journal.find_output_owner(path)
            if owner is not None and not _can_replace(job, owner):
                return False
        elif journal.is_output_planned(path, excluding=job.id):
            return False
        self._claimed_paths[path] = job
        if overwriting or not await self._context.executor.run(WorkerKey.outbox(job.rule), os.path.lexists, path):
            return True
        del self._claimed_paths[path]
        return False

    async def _finish(self, job: Job, rule: Rule, path: Path) -> None:
        """Mark the job as `done`, once its result is durable in the outbox; only then the original may be moved."""
        context = self._context
        await record_folder(context, rule, rule.outbox)
        keeping = rule.on_success is OnSuccess.KEEP
        job = context.journal.transition(
            job,
            State.DONE,
            f"delivered to {path}",
            output=path,
            completed_at=context.clock.now(),
            not_before=None,
            note=None,
            problem=None,
            original=OriginalStatus.PRESENT if keeping else OriginalStatus.WAITING,
        )
        _log.info("job.done", job=job.id, rule=job.rule, path=job.source, output=path, credits=job.credits)
        if rule.sidecar:
            await self._write_sidecar(job, rule, path)
        context.wakeups.dispose.notify()
        # A copy of this image may continue now.
        context.wakeups.submit.notify()
        await context.executor.run(WorkerKey.spool(), context.spool.remove_result, job.id)

    async def _write_sidecar(self, job: Job, rule: Rule, path: Path) -> None:
        name = PurePath(path.relative_to(rule.outbox))
        accepted = self._context.accepted_mount(rule.name, rule.outbox)
        written = await self._context.executor.run(
            WorkerKey.outbox(job.rule),
            write_sidecar,
            rule.outbox,
            name,
            ".json",
            render_sidecar(job),
            mode=rule.file_mode,
            tag=str(job.id),
            accepted=accepted,
        )
        if not isinstance(written, Published):
            reason = "another file has its name" if isinstance(written, NameTaken) else written.reason
            self._context.journal.update(job, f"its sidecar could not be written: {reason}", note=reason)

    def _postpone_rule(self, job: Job, reason: str) -> None:
        """Postpone all jobs that wait for this outbox, because the job is not at fault."""
        context = self._context
        if job.note != reason:
            _log.warning("delivery.waits", job=job.id, rule=job.rule, path=job.source, reason=reason)
            job = context.journal.update(job, reason, note=reason)
        context.journal.postpone_jobs(job.rule, State.DELIVERING, reason, context.clock.now() + _RETRY_DELAY)

    def _hold(self, job: Job, code: ErrorCode, message: str) -> None:
        _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=message)
        self._context.journal.transition(job, State.HELD, message, problem=Problem(code, message))

    def _refetch_result(self, job: Job, reason: str) -> None:
        """Query PicWish again for a paid result that the spool has lost: PicWish may still have it."""
        _log.error("spool.lost", job=job.id, rule=job.rule, path=job.source, reason=reason)
        message = f"its result in the spool is damaged ({reason}); PicWish is asked for it again"
        # Otherwise, after a crash while the result is fetched again, the damaged file would pass for the new one.
        self._context.spool.remove_result(job.id)
        self._context.journal.transition(job, State.PENDING, message, result=None, not_before=None)
        self._context.wakeups.collect.notify()


def _can_replace(job: Job, other: Job) -> bool:
    """Return whether the result of ``job`` may replace that of ``other``: one of older content of the same source."""
    return other.id == job.id or (other.source == job.source and other.id < job.id)
