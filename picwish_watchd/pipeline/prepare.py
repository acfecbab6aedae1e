"""The last looks before paying: is the file still what was validated, and was the same image paid for already?"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config.schema import IfExists, OnSuccess, Rule
from picwish_watchd.fs.atomic_write import FolderUnavailable, find_obstacle
from picwish_watchd.fs.safe_open import OpenFile, open_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.downscale import DownscaleDeferred, DownscaleFailed
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import ImageLimits, ValidImage, read_verified
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.job import ErrorCode, Job, OriginalStatus, Problem, Result, SentImage, SourceKind, State
from picwish_watchd.outbox.availability import why_unavailable
from picwish_watchd.pipeline.admission import image_limits, validate_file
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.downscaling import DownscaledImage, Downscaling
from picwish_watchd.pipeline.duplicates import list_firsts, must_follow
from picwish_watchd.pipeline.result_names import find_existing_result, result_name
from picwish_watchd.pipeline.target_folders import why_unusable
from picwish_watchd.pipeline.transitions import mark_rejected
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()

# Seconds for which an outbox that was usable counts as usable.
_OUTBOX_CHECK_TTL = 2.0
# Seconds until a file or folder that could not be read is tried again.
_RETRY_DELAY = 30.0


@dataclass(frozen=True, slots=True)
class Upload:
    """The image that is sent."""

    data: bytearray
    format: Format
    #: Set where the image is not the source itself but a smaller one made of it.
    sent: SentImage | None = None


class Prepare:
    """The last looks at a queued job. What they decide is in the journal when a method returns None or True."""

    def __init__(self, context: StepContext, *, rescan_source: Callable[[Job], None]) -> None:
        """``rescan_source`` makes the file at a job's source a candidate again."""
        self._rescan_source = rescan_source
        self._context = context
        self._downscaling = Downscaling(context)
        # Outboxes that were usable, and when (monotonic seconds).
        self._outbox_checked_at: dict[Path, float] = {}

    async def prepare(self, job: Job, rule: Rule) -> Job | None:
        """Return the job as it is to be submitted, or None where it is settled without that or has to wait."""
        if job.sha256 is None or self._is_too_large(job, rule):
            validated = await self._revalidate(job, rule)
            if validated is None or validated.sha256 != job.sha256:
                # With its new content it takes its turn among the copies of that.
                return None
            job = validated
        if await self._postpone_if_unusable(rule) or await self._postpone_if_obstructed(job, rule):
            return None
        if await self._resolve_duplicate(job, rule) or await self._skip_if_exists(job, rule):
            return None
        return job

    def needs_downscale(self, job: Job, rule: Rule) -> bool:
        """Return whether the job's image is downscaled before it is sent: that is slow, and one at a time is made."""
        limits = image_limits(self._context.config.api, rule)
        return limits.allow_downscale and _exceeds_limits(job, limits)

    def memory_needed(self, job: Job, rule: Rule) -> int:
        """Return the number of bytes that `read_upload` brings into memory at most."""
        limits = image_limits(self._context.config.api, rule)
        return limits.max_bytes if _exceeds_limits(job, limits) else job.stamp.size

    async def probe_source(self, job: Job, rule: Rule) -> None:
        """Open the image and no more: if its mount hangs, the job hangs here, before it holds memory."""
        follow = rule.follow_symlinks
        await self._context.executor.run(WorkerKey.source(rule.name), _probe_open, job.source, follow_symlinks=follow)

    async def read_upload(self, job: Job, rule: Rule) -> Upload | None:
        """Return the bytes that are sent: those that were hashed, or a smaller image made of them where too large.

        None: the journal has what is wrong with the file, or the job waits.
        """
        assert job.sha256 is not None
        limits = image_limits(self._context.config.api, rule)
        if _exceeds_limits(job, limits):
            return await self._read_downscaled(job, rule, limits)
        data = await self._context.executor.run(
            WorkerKey.source(rule.name),
            read_verified,
            job.source,
            job.sha256,
            job.stamp.size,
            follow_symlinks=rule.follow_symlinks,
        )
        if isinstance(data, bytearray):
            return Upload(data, Format(job.format or ""))
        await self._handle_read_failure(job, rule, data)
        return None

    def release_cached(self, job_id: int) -> None:
        """Remove the smaller image of a job whose try is over, unless the job is queued for another one."""
        self._downscaling.release(job_id)

    async def _read_downscaled(self, job: Job, rule: Rule, limits: ImageLimits) -> Upload | None:
        match result := await self._downscaling.load(job, rule, limits):
            case DownscaledImage(data=data, image=image):
                sent = SentImage(image.format.value, image.width, image.height, image.size)
                return Upload(data, image.format, sent)
            case DownscaleFailed(problem=problem):
                mark_rejected(self._context, job, problem)
            case DownscaleDeferred(reason=reason):
                self._postpone(job, f"{job.source.name} could not be downscaled yet: {reason}; tried again")
            case _:
                await self._handle_read_failure(job, rule, result)
        return None

    async def _postpone_if_obstructed(self, job: Job, rule: Rule) -> bool:
        """Return whether a file or a link is where the result's subfolder must be; then postpone the job."""
        image_format = Format(job.format) if job.format else Format.JPEG
        name = result_name(job, rule, image_format, job.width or 0, job.height or 0, self._context.clock.now())
        obstacle = await self._context.executor.run(
            WorkerKey.outbox(rule.name), find_obstacle, rule.outbox, name.parent
        )
        if obstacle is None:
            return False
        self._postpone(
            job, f"{obstacle} is where a folder for results must be; rename or remove it, then the job continues"
        )
        return True

    async def _postpone_if_unusable(self, rule: Rule, *, recheck: bool = False) -> bool:
        """Return whether the outbox cannot be written to; then postpone the rule, so nothing is paid and not kept.

        The outbox is checked every few seconds, or now with ``recheck``: what it lacks may be on a mount that has just
        gone.
        """
        now = self._context.clock.monotonic()
        if not recheck and now - self._outbox_checked_at.get(rule.outbox, -_OUTBOX_CHECK_TTL) < _OUTBOX_CHECK_TTL:
            return False
        reason = await why_unusable(self._context, rule, rule.outbox)
        if reason is None:
            self._outbox_checked_at[rule.outbox] = now
            return False
        self._outbox_checked_at.pop(rule.outbox, None)
        self._context.journal.postpone_jobs(rule.name, State.QUEUED, reason, self._context.clock.now() + _RETRY_DELAY)
        _log.warning("submit.waits", rule=rule.name, reason=reason)
        return True

    def _is_too_large(self, job: Job, rule: Rule) -> bool:
        """Return whether the job was queued to be downscaled and its rule does not want that any more."""
        limits = image_limits(self._context.config.api, rule)
        return not limits.allow_downscale and _exceeds_limits(job, limits)

    async def _handle_read_failure(self, job: Job, rule: Rule, failure: Changed | Missing | Unreadable) -> None:
        """Record why the job's bytes are not those that were validated."""
        match failure:
            case Changed():
                text = f"{job.source.name} changed while it waited; its new content becomes a job of its own"
                mark_rejected(self._context, job, Problem(ErrorCode.SOURCE_CHANGED, text))
                self._rescan_source(job)
            case Missing():
                await self._handle_missing_source(job, rule)
            case Unreadable(reason=reason):
                self._postpone(job, f"{job.source.name} cannot be read ({reason}); tried again")
            case _:
                assert_never(failure)

    async def _revalidate(self, job: Job, rule: Rule) -> Job | None:
        """Validate the file anew: it was rejected and a user retries it, or the rule's limits have changed."""
        context = self._context
        verdict = await context.executor.run(
            WorkerKey.source(rule.name), validate_file, job.source, context.config.api, rule, final=True
        )
        match verdict:
            case ValidImage(format=image_format, width=width, height=height, sha256=sha256, stamp=stamp):
                return context.journal.update(
                    job,
                    kind=SourceKind.FILE,
                    format=image_format,
                    width=width,
                    height=height,
                    sha256=sha256,
                    stamp=stamp,
                )
            case ValidLink(url=url, sha256=sha256, stamp=stamp):
                return context.journal.update(job, kind=SourceKind.LINK, url=url, sha256=sha256, stamp=stamp)
            case Rejected(problem=problem):
                mark_rejected(context, job, problem)
            case Missing():
                await self._handle_missing_source(job, rule)
            case Incomplete(reason=reason) | Unreadable(reason=reason):
                self._postpone(job, f"{job.source.name} cannot be read ({reason}); tried again")
            case Changed():
                self._postpone(job, f"{job.source.name} is being changed; tried again")
            case _:
                assert_never(verdict)
        return None

    async def _resolve_duplicate(self, job: Job, rule: Rule) -> bool:
        """Return whether the job follows another one of the same content, so it is not submitted; see `duplicates`."""
        context = self._context
        for first in list_firsts(context.journal, job.sha256, rule, job, settled=True):
            if first.state is State.HELD:
                if must_follow(job, first):
                    text = f"the same image as job {first.id}, which is held; it continues together with that job"
                    problem = Problem(ErrorCode.DUPLICATE_OF_HELD, text)
                    context.journal.transition(job, State.HELD, text, problem=problem)
                    return True
            elif first.output is not None and first.result is not None:
                if await self._copy_result(job, rule, first, first.output, first.result):
                    return True
                if await self._postpone_if_unusable(rule, recheck=True):
                    return True
        return False

    async def _copy_result(self, job: Job, rule: Rule, first: Job, output: Path, result: Result) -> bool:
        """Return whether the first job's result is intact in the outbox; then deliver a copy of it for this job."""
        context = self._context
        copied = await context.executor.run(
            WorkerKey.outbox(rule.name), context.spool.copy_from_outbox, output, job.id, result.sha256
        )
        if copied:
            text = f"the same image as job {first.id}: delivered from its result, at no cost"
            context.journal.transition(job, State.DELIVERING, text, result=result, note=text, not_before=None)
            _log.info("job.copied", job=job.id, rule=rule.name, path=job.source, first=first.id)
            context.wakeups.deliver.notify()
        return copied

    async def _skip_if_exists(self, job: Job, rule: Rule) -> bool:
        """Return whether `if_exists: skip` ends the job at no cost, or the outbox cannot be read and the job waits."""
        if rule.if_exists is not IfExists.SKIP:
            return False
        context = self._context
        existing = await context.executor.run(
            WorkerKey.outbox(rule.name), find_existing_result, rule, job, context.clock.now()
        )
        if existing is None:
            return await self._postpone_if_unusable(rule, recheck=True)
        if isinstance(existing, FolderUnavailable):
            self._postpone(job, f"the outbox {rule.outbox} cannot be read: {existing.reason}")
            return True
        message = f"skipped: {existing} exists already"
        # The original is never deleted here: nobody has compared the two files.
        is_moving = rule.on_success is OnSuccess.MOVE
        context.journal.transition(
            job,
            State.DONE,
            message,
            output=existing,
            note=message,
            completed_at=context.clock.now(),
            original=OriginalStatus.WAITING if is_moving else OriginalStatus.PRESENT,
        )
        context.wakeups.dispose.notify()
        _log.info("job.skipped", job=job.id, rule=rule.name, path=job.source, output=existing)
        return True

    async def _handle_missing_source(self, job: Job, rule: Rule) -> None:
        """Reject the job if its file was removed; postpone its rule if the whole inbox is unavailable."""
        accepted = self._context.accepted_mount(rule.name, rule.inbox)
        reason = await self._context.executor.run(WorkerKey.source(rule.name), why_unavailable, rule.inbox, accepted)
        if reason is not None:
            note = f"the inbox {rule.inbox} is away: {reason}"
            self._context.journal.postpone_jobs(rule.name, State.QUEUED, note, self._context.clock.now() + _RETRY_DELAY)
            return
        text = f"{job.source.name} was removed from the inbox before it was submitted"
        mark_rejected(self._context, job, Problem(ErrorCode.SOURCE_MISSING, text))
        self._rescan_source(job)

    def _postpone(self, job: Job, note: str) -> None:
        later = self._context.clock.now() + _RETRY_DELAY
        self._context.journal.update(job, note if job.note != note else None, note=note, not_before=later)


def _probe_open(path: Path, *, follow_symlinks: bool) -> None:
    opened = open_file(path, follow_symlinks=follow_symlinks)
    if isinstance(opened, OpenFile):
        os.close(opened.fd)


def _exceeds_limits(job: Job, limits: ImageLimits) -> bool:
    return job.kind is SourceKind.FILE and limits.is_exceeded_by(job.stamp.size, job.width or 0, job.height or 0)
