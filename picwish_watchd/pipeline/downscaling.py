"""Downscale images that are too large for PicWish (`oversize: downscale`), and keep the results for another try."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.safe_open import stamp_of, stat_file
from picwish_watchd.fs.verdicts import Changed, Missing, Unreadable
from picwish_watchd.images.downscale import (
    DownscaleDeferred,
    DownscaleFailed,
    DownscaleRequest,
    copy_source,
    downscale_image,
)
from picwish_watchd.images.inspect import ImageLimits, ValidImage, read_verified
from picwish_watchd.job import Job, State
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.worker_key import WorkerKey

# Downscaled images that are kept in the spool for another try: 120 MB by PicWish's limits.
_MAX_CACHED = 4


@dataclass(frozen=True, slots=True)
class DownscaledImage:
    """A smaller image made of a job's source: its bytes, and what they were inspected as."""

    data: bytearray
    image: ValidImage


class Downscaling:
    """Makes smaller images of sources, and keeps them in the spool until they are accepted or too many."""

    def __init__(self, context: StepContext) -> None:
        self._context = context
        # Job id -> what was asked for and what was made, the least recently used first.
        self._cache: dict[int, tuple[DownscaleRequest, ValidImage]] = {}

    async def load(
        self, job: Job, rule: Rule, limits: ImageLimits
    ) -> DownscaledImage | DownscaleFailed | DownscaleDeferred | Changed | Missing | Unreadable:
        """Return a smaller image of the job's source that is within ``limits``, or why there is none.

        An image that an earlier try made of the same source is used again.
        """
        assert job.sha256 is not None
        request = DownscaleRequest(
            job.source,
            job.sha256,
            job.stamp.size,
            job.width or 0,
            job.height or 0,
            replace(limits, allow_downscale=False),
        )
        result = await self._find_cached(job, rule, request) or await self._downscale(job, rule, request)
        if not isinstance(result, ValidImage):
            return result
        data = await self._context.executor.run(
            WorkerKey.downscale(), read_verified, self._cache_path(job.id), result.sha256, result.size
        )
        if not isinstance(data, bytearray):
            self._evict(job.id)
            return DownscaleDeferred("the smaller image is missing from the spool or was changed there")
        self._add_to_cache(job.id, request, result)
        return DownscaledImage(data, result)

    def release(self, job_id: int) -> None:
        """Remove the image that was made for a job, unless the job is still queued for another try."""
        if job_id in self._cache:
            job = self._context.journal.get(job_id)
            if job is None or job.state is not State.QUEUED:
                self._evict(job_id)

    async def _downscale(
        self, job: Job, rule: Rule, request: DownscaleRequest
    ) -> ValidImage | DownscaleFailed | DownscaleDeferred | Changed | Missing | Unreadable:
        """Downscale in a child process, one image at a time whatever its rule: each may take a gigabyte."""
        context = self._context
        copy, target = context.spool.new_part_path(job.id, "source"), context.spool.new_part_path(job.id, "fitted")

        def give_up() -> bool:
            return context.stopping

        failure = await context.executor.run(
            WorkerKey.source(rule.name),
            copy_source,
            request,
            copy,
            give_up=give_up,
            follow_symlinks=rule.follow_symlinks,
        )
        if failure is not None:
            return failure
        return await context.executor.run(
            WorkerKey.downscale(), downscale_image, request, copy=copy, target=target, give_up=give_up
        )

    async def _find_cached(self, job: Job, rule: Rule, request: DownscaleRequest) -> ValidImage | None:
        """Return the image that an earlier try made for the same request, if the source is unchanged since."""
        cached_request, image = self._cache.get(job.id, (None, None))
        if image is None or cached_request != request:
            return None
        found = await self._context.executor.run(
            WorkerKey.source(rule.name), stat_file, job.source, follow_symlinks=rule.follow_symlinks
        )
        if isinstance(found, os.stat_result) and stamp_of(found) == job.stamp:
            # It is about to be read, so it becomes the most recently used.
            self._add_to_cache(job.id, request, image)
            return image
        self._evict(job.id)
        return None

    def _add_to_cache(self, job_id: int, request: DownscaleRequest, image: ValidImage) -> None:
        """Keep the image in the spool, not in memory; remove the oldest ones beyond `_MAX_CACHED`.

        A removed image is only made once more.
        """
        self._cache.pop(job_id, None)
        self._cache[job_id] = (request, image)
        while len(self._cache) > _MAX_CACHED:
            self._evict(next(iter(self._cache)))

    def _evict(self, job_id: int) -> None:
        self._cache.pop(job_id, None)
        self._cache_path(job_id).unlink(missing_ok=True)

    def _cache_path(self, job_id: int) -> Path:
        return self._context.spool.folder / f"{job_id}.fitted.part"
