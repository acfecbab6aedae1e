"""What is looked at before paying: is the file still what was judged, was the same picture paid for already?"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config.schema import IfExists, OnSuccess, Rule
from picwish_watchd.fs.atomic_write import FolderUnavailable, find_obstacle
from picwish_watchd.fs.safe_open import OpenFile, open_file, stamp_of, stat_file
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.downscale import (
    DownscaleDeferred,
    DownscaleFailed,
    DownscaleRequest,
    copy_source,
    downscale_image,
)
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import ImageLimits, ValidImage, read_verified
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.job import ErrorCode, Job, OriginalStatus, Problem, SentImage, SourceKind, State
from picwish_watchd.outbox.availability import why_unavailable
from picwish_watchd.pipeline.admission import image_limits, validate_file
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.result_names import find_existing_result, result_name
from picwish_watchd.pipeline.target_folders import why_unusable
from picwish_watchd.pipeline.transitions import mark_rejected
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()

# seconds for which an outbox that was well counts as well
_OUTBOX_CHECK_TTL = 2.0
# smaller images that wait in the spool for another try: 120 MB as PicWish's limits are
_MAX_CACHED = 4
# seconds until a file or folder that could not be read is tried again
_RETRY_DELAY = 30.0


@dataclass(frozen=True, slots=True)
class Upload:
    """The image that is sent."""

    data: bytearray
    format: Format
    #: set where it is not the source itself
    sent: SentImage | None = None


class Prepare:
    """The last looks at a queued job. Whatever they find is in the journal when a method answers None or True."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # outboxes that were well, and when (monotonic)
        self._outbox_checked_at: dict[Path, float] = {}
        # made smaller, and refused so far
        self._downscaled_images: dict[int, tuple[DownscaleRequest, ValidImage]] = {}

    async def prepare(self, job: Job, rule: Rule) -> Job | None:
        """The job as it is to be submitted, or None: it has been dealt with, or waits."""
        if job.sha256 is None or self._is_too_large(job, rule):
            judged = await self._revalidate(job, rule)
            if judged is None or judged.sha256 != job.sha256:
                # with what it turned out to hold it takes its turn among its copies
                return None
            job = judged
        if await self._postpone_if_unusable(rule) or await self._postpone_if_obstructed(job, rule):
            return None
        if await self._resolve_duplicate(job, rule) or await self._skip_if_exists(job, rule):
            return None
        return job

    async def _postpone_if_obstructed(self, job: Job, rule: Rule) -> bool:
        """Whether a file or a link stands where the result's subfolder must be: it could not be delivered."""
        kind = Format(job.format) if job.format else Format.JPEG
        folder = result_name(job, rule, kind, job.width or 0, job.height or 0, self._context.clock.now()).parent
        found = await self._context.executor.run(WorkerKey.outbox(rule.name), find_obstacle, rule.outbox, folder)
        if found is None:
            return False
        self._postpone(job, f"{found} stands where a folder for results must be; rename or remove it, and it goes on")
        return True

    async def _postpone_if_unusable(self, rule: Rule, *, afresh: bool = False) -> bool:
        """Nothing is bought that cannot be kept: whether the outbox cannot be written to; then the rule is put off.

        Looked at every few seconds, or ``afresh``: what an outbox lacks may stand on a mount that has just gone.
        """
        now = self._context.clock.monotonic()
        if not afresh and now - self._outbox_checked_at.get(rule.outbox, -_OUTBOX_CHECK_TTL) < _OUTBOX_CHECK_TTL:
            return False
        trouble = await why_unusable(self._context, rule, rule.outbox)
        if trouble is None:
            self._outbox_checked_at[rule.outbox] = now
            return False
        self._outbox_checked_at.pop(rule.outbox, None)
        self._context.journal.postpone_jobs(rule.name, State.QUEUED, trouble, self._context.clock.now() + _RETRY_DELAY)
        _log.warning("submit.waits", rule=rule.name, reason=trouble)
        return True

    def _is_too_large(self, job: Job, rule: Rule) -> bool:
        """It was queued to be made smaller, and the rule does not want that any more: it is judged anew."""
        limits = image_limits(self._context.config.api, rule)
        return not limits.allow_downscale and _exceeds_limits(job, limits)

    def needs_downscale(self, job: Job, rule: Rule) -> bool:
        """Whether another image is made of it first: that takes long, and one at a time is made."""
        limits = image_limits(self._context.config.api, rule)
        return limits.allow_downscale and _exceeds_limits(job, limits)

    def memory_needed(self, job: Job, rule: Rule) -> int:
        """The bytes that `read` brings into memory, at most."""
        limits = image_limits(self._context.config.api, rule)
        return limits.max_bytes if _exceeds_limits(job, limits) else job.stamp.size

    async def probe_source(self, job: Job, rule: Rule) -> None:
        """Opens the image and no more: where its mount hangs it shall hang here, before it holds memory."""
        follow = rule.follow_symlinks
        await self._context.executor.run(WorkerKey.source(rule.name), _probe_open, job.source, follow_symlinks=follow)

    async def read_upload(self, job: Job, rule: Rule) -> Upload | None:
        """What is sent: the bytes that were hashed, or what is made of them where they are too many.

        None: the job has been told what is wrong with its file, or waits.
        """
        assert job.sha256 is not None
        limits = image_limits(self._context.config.api, rule)
        if _exceeds_limits(job, limits):
            return await self._load_downscaled(job, rule, limits)
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

    async def _load_downscaled(self, job: Job, rule: Rule, limits: ImageLimits) -> Upload | None:
        """A smaller one, made of the source's own bytes; what an earlier try made of the same source is good still."""
        assert job.sha256 is not None
        context = self._context
        order = DownscaleRequest(
            job.source,
            job.sha256,
            job.stamp.size,
            job.width or 0,
            job.height or 0,
            replace(limits, allow_downscale=False),
        )
        made: ValidImage | DownscaleFailed | DownscaleDeferred | Changed | Missing | Unreadable | None
        made = await self._find_cached(job, rule, order) or await self._downscale(job, rule, order)
        match made:
            case DownscaleFailed(problem=problem):
                mark_rejected(context, job, problem)
                return None
            case DownscaleDeferred(reason=reason):
                self._postpone(job, f"{job.source.name} could not be made smaller yet: {reason}; tried again")
                return None
            case ValidImage(format=kind, width=width, height=height, size=size, sha256=sha256):
                data = await context.executor.run(
                    WorkerKey.downscale(), read_verified, self._cache_path(job.id), sha256, size
                )
                if isinstance(data, bytearray):
                    self._cache_downscaled(job.id, order, made)
                    return Upload(data, kind, SentImage(kind.value, width, height, size))
                self._evict_cached(job.id)
                self._postpone(job, f"the smaller {job.source.name} did not stay in the spool; tried again")
                return None
        await self._handle_read_failure(job, rule, made)
        return None

    async def _downscale(
        self, job: Job, rule: Rule, order: DownscaleRequest
    ) -> ValidImage | DownscaleFailed | DownscaleDeferred | Changed | Missing | Unreadable:
        """One after the other, whatever the rule: each may take a gigabyte, in a process of its own."""
        context = self._context
        copy, target = context.spool.new_part_path(job.id, "source"), context.spool.new_part_path(job.id, "fitted")

        def give_up() -> bool:
            return context.stopping

        missing = await context.executor.run(
            WorkerKey.source(rule.name), copy_source, order, copy, give_up=give_up, follow_symlinks=rule.follow_symlinks
        )
        if missing is not None:
            return missing
        return await context.executor.run(
            WorkerKey.downscale(), downscale_image, order, copy=copy, target=target, give_up=give_up
        )

    async def _find_cached(self, job: Job, rule: Rule, order: DownscaleRequest) -> ValidImage | None:
        """What was made for an earlier try, if the source lies there as it did."""
        before, made = self._downscaled_images.get(job.id, (None, None))
        if made is None or before != order:
            return None
        found = await self._context.executor.run(
            WorkerKey.source(rule.name), stat_file, job.source, follow_symlinks=rule.follow_symlinks
        )
        if isinstance(found, os.stat_result) and stamp_of(found) == job.stamp:
            # as the newest: it is about to be read
            self._cache_downscaled(job.id, order, made)
            return made
        self._evict_cached(job.id)
        return None

    def _cache_downscaled(self, job_id: int, order: DownscaleRequest, made: ValidImage) -> None:
        """In the spool, not in memory; the oldest goes if there are too many: it is only made once more."""
        self._downscaled_images.pop(job_id, None)
        self._downscaled_images[job_id] = (order, made)
        while len(self._downscaled_images) > _MAX_CACHED:
            self._evict_cached(next(iter(self._downscaled_images)))

    def _evict_cached(self, job_id: int) -> None:
        self._downscaled_images.pop(job_id, None)
        self._cache_path(job_id).unlink(missing_ok=True)

    def _cache_path(self, job_id: int) -> Path:
        return self._context.spool.folder / f"{job_id}.fitted.part"

    def release_cached(self, job_id: int) -> None:
        """A try is over: what was made smaller for it goes, unless the job is queued for another one."""
        if job_id in self._downscaled_images:
            job = self._context.journal.get(job_id)
            if job is None or job.state is not State.QUEUED:
                self._evict_cached(job_id)

    async def _handle_read_failure(self, job: Job, rule: Rule, found: Changed | Missing | Unreadable) -> None:
        """Tells the job why its bytes are not those that were judged."""
        match found:
            case Changed():
                text = f"{job.source.name} changed while it waited; its new content becomes a job of its own"
                mark_rejected(self._context, job, Problem(ErrorCode.SOURCE_CHANGED, text))
                self._context.rescan_source(job)
            case Missing():
                await self._handle_missing_source(job, rule)
            case Unreadable(reason=reason):
                self._postpone(job, f"{job.source.name} cannot be read ({reason}); tried again")
            case _:
                assert_never(found)

    async def _revalidate(self, job: Job, rule: Rule) -> Job | None:
        """Judges a file anew that was rejected before and that a person said `retry` for."""
        context = self._context
        verdict = await context.executor.run(
            WorkerKey.source(rule.name), validate_file, job.source, context.config.api, rule, final=True
        )
        match verdict:
            case ValidImage(format=kind, width=width, height=height, sha256=sha256, stamp=stamp):
                return context.journal.update(
                    job, kind=SourceKind.FILE, format=kind, width=width, height=height, sha256=sha256, stamp=stamp
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
                self._postpone(job, f"{job.source.name} is just being changed; tried again")
            case _:
                assert_never(verdict)
        return None

    async def _resolve_duplicate(self, job: Job, rule: Rule) -> bool:
        """One content, one charge: delivered from the result of an earlier job, held with that one, or put off."""
        context = self._context
        for twin in context.journal.find_duplicates(job, rule.type):
            if twin.state is State.HELD:
                if job.pay_again:
                    continue
                text = f"the same picture as job {twin.id}, which is held; it goes on with that one"
                problem = Problem(ErrorCode.DUPLICATE_OF_HELD, text)
                context.journal.transition(job, State.HELD, text, problem=problem)
                return True
            if twin.output is None or twin.result is None:
                continue
            stands = await context.executor.run(
                WorkerKey.outbox(rule.name), context.spool.copy_from_outbox, twin.output, job.id, twin.result.sha256
            )
            if stands:
                text = f"the same picture as job {twin.id}: delivered from its result, at no cost"
                context.journal.transition(job, State.DELIVERING, text, result=twin.result, note=text, not_before=None)
                _log.info("job.copied", job=job.id, rule=rule.name, path=job.source, first=twin.id)
                context.wakeups.deliver.notify()
                return True
            if await self._postpone_if_unusable(rule, afresh=True):
                return True
        return False

    async def _skip_if_exists(self, job: Job, rule: Rule) -> bool:
        """Whether `if_exists: skip` finds a result already (the job is done, at no cost), or cannot look and waits."""
        if rule.if_exists is not IfExists.SKIP:
            return False
        context = self._context
        found = await context.executor.run(
            WorkerKey.outbox(rule.name), find_existing_result, rule, job, context.clock.now()
        )
        if found is None:
            return await self._postpone_if_unusable(rule, afresh=True)
        if isinstance(found, FolderUnavailable):
            self._postpone(job, f"the outbox {rule.outbox} cannot be looked into: {found.reason}")
            return True
        message = f"skipped: {found} was there already"
        # never deleted: nobody has compared the two
        moving = rule.on_success is OnSuccess.MOVE
        context.journal.transition(
            job,
            State.DONE,
            message,
            output=found,
            note=message,
            completed_at=context.clock.now(),
            original=OriginalStatus.WAITING if moving else OriginalStatus.PRESENT,
        )
        context.wakeups.dispose.notify()
        _log.info("job.skipped", job=job.id, rule=rule.name, path=job.source, output=found)
        return True

    async def _handle_missing_source(self, job: Job, rule: Rule) -> None:
        accepted = self._context.accepted_mount(rule.name, rule.inbox)
        away = await self._context.executor.run(WorkerKey.source(rule.name), why_unavailable, rule.inbox, accepted)
        if away is not None:
            note = f"the inbox {rule.inbox} is away: {away}"
            self._context.journal.postpone_jobs(rule.name, State.QUEUED, note, self._context.clock.now() + _RETRY_DELAY)
            return
        text = f"{job.source.name} was removed from the inbox before it was submitted"
        mark_rejected(self._context, job, Problem(ErrorCode.SOURCE_MISSING, text))
        self._context.rescan_source(job)

    def _postpone(self, job: Job, note: str) -> None:
        later = self._context.clock.now() + _RETRY_DELAY
        self._context.journal.update(job, note if job.note != note else None, note=note, not_before=later)


def _probe_open(path: Path, *, follow_symlinks: bool) -> None:
    opened = open_file(path, follow_symlinks=follow_symlinks)
    if isinstance(opened, OpenFile):
        os.close(opened.fd)


def _exceeds_limits(job: Job, limits: ImageLimits) -> bool:
    return job.kind is SourceKind.FILE and limits.is_exceeded_by(job.stamp.size, job.width or 0, job.height or 0)
