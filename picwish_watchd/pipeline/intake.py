"""Turn a file in an inbox into a job: wait until it no longer changes, validate it, add it to the journal.

The new job is `queued` or `rejected`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import assert_never

import structlog

from picwish_watchd.config.schema import Rule
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.fs.mounts import Mount, detect_mount_change
from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.inspect import ValidImage
from picwish_watchd.images.link_files import ValidLink
from picwish_watchd.images.validate import ValidationRequest
from picwish_watchd.images.validation_process import validate_requests
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.inbox.settling import ReadyFile, SettleTracker
from picwish_watchd.job import Job, NewJob, OriginalStatus, Stamp
from picwish_watchd.pipeline.admission import build_new_job, image_limits, is_unchanged
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.duplicates import mark_own_results
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.runtime.worker_key import WorkerKey

_log = structlog.get_logger()

#: The outcome for one file: a job; the reason why there is no job yet; or its new stamp if it has changed.
IntakeVerdict = NewJob | Incomplete | Changed | Missing | Unreadable | Stamp

# Files in a batch. Adding them to the journal blocks the event loop for 8 ms, and two batches may follow each other.
_BATCH_SIZE = 32
# Number of waiting files from which on the validation process validates them.
_SUBPROCESS_THRESHOLD = 500
# Seconds without work until the validation process is stopped, and the longest wait for a wake-up.
_IDLE_SECONDS = 30.0
_JOB_VERDICTS = (ValidImage, ValidLink, Rejected)


class Intake:
    """Takes in the files of one rule. Its methods are to be called in the event loop's thread."""

    def __init__(
        self, context: StepContext, rule: Rule, *, on_missing: Callable[[str], None] = lambda _relative: None
    ) -> None:
        """``on_missing`` is called with the path, relative to the inbox, of a file that disappeared.

        If the file comes back, it must count as new.
        """
        self._context = context
        self._on_missing = on_missing
        self._rule = rule
        self._settle_tracker = SettleTracker(rule.settle, rule.settle_timeout)
        self._wakeup = Wakeup()
        self._unreadable_files: set[str] = set()
        self._worker_key = WorkerKey.intake(rule.name, rule.inbox)

    @property
    def settling_count(self) -> int:
        """Return the number of files that are not yet jobs, without those that cannot be read."""
        return len(self._settle_tracker) - len(self._unreadable_files)

    @property
    def unreadable_count(self) -> int:
        """Return the number of files that could not be read at the last attempt. They are tried again."""
        return len(self._unreadable_files)

    @property
    def validation_seconds(self) -> float:
        """Return for how many seconds the current validation has been running; 0 if there is none."""
        return self._context.executor.running_seconds(self._worker_key)

    def record_sightings(self, sightings: Sequence[FileSeen]) -> None:
        """Record files that the watcher saw and that are new or have changed."""
        now = self._context.clock.monotonic()
        for sighting in sightings:
            self._settle_tracker.record_sighting(sighting.relative, sighting.stamp, now)
        self._wakeup.notify()

    async def run(self) -> None:
        """Take in files until cancelled or until the daemon stops."""
        while not self._context.stopping:
            if await self.process_due_files():
                continue
            self._context.validator.stop_if_idle(_IDLE_SECONDS)
            ready_at = self._settle_tracker.next_ready_at()
            await self._wakeup.wait(
                _IDLE_SECONDS if ready_at is None else min(_IDLE_SECONDS, ready_at - self._context.clock.monotonic())
            )

    async def process_due_files(self) -> bool:
        """Validate the files that are ready now and record the verdicts; return whether there were any files.

        One batch is recorded while the next one is validated.
        """
        ready, validated, had_files = list[ReadyFile](), list[tuple[ReadyFile, IntakeVerdict]](), False
        while True:
            ready = ready or self._settle_tracker.pop_ready(self._context.clock.monotonic(), _BATCH_SIZE)
            in_subprocess = len(self._settle_tracker) >= _SUBPROCESS_THRESHOLD
            next_batch = None
            if ready and not self._context.stopping:
                mount = self._context.journal.folder_mount(self._rule.inbox)
                next_batch = self._context.executor.submit(
                    self._worker_key, self._validate_batch, ready, mount, in_subprocess
                )
            try:
                self._record_or_retry(validated)
            except BaseException:
                if next_batch is not None:
                    next_batch.cancel()
                raise
            if next_batch is None:
                return had_files
            validated, had_files = await next_batch, True
            ready = ready[len(validated) :]

    def _validate_batch(
        self, ready: list[ReadyFile], mount: Mount | None, in_subprocess: bool
    ) -> list[tuple[ReadyFile, IntakeVerdict]]:
        """Return the verdicts on as many of the first files as fit into a time slice. Runs in the rule's thread."""
        if detect_mount_change(self._rule.inbox, mount) is not None:
            # The mount is missing: files in the folder below it do not belong to the inbox.
            return [(file, Missing()) for file in ready]
        validator, requests = self._context.validator, [self._build_request(file) for file in ready]
        if requests[0].final:
            verdicts = [validator.validate_final(requests[0])]
        else:
            requests = list(takewhile(lambda request: not request.final, requests))
            verdicts = validator.validate_batch(requests) if in_subprocess else validate_requests(requests)
        return [
            (
                file,
                build_new_job(self._rule, request.path, file.stamp, verdict)
                if isinstance(verdict, _JOB_VERDICTS)
                else verdict,
            )
            for file, request, verdict in zip(ready, requests, verdicts, strict=False)
        ]

    def _build_request(self, file: ReadyFile) -> ValidationRequest:
        limits = image_limits(self._context.config.api, self._rule)
        return ValidationRequest(
            self._rule.inbox / file.relative, file.stamp, limits, self._rule.follow_symlinks, final=file.decode
        )

    def _record_or_retry(self, validated: list[tuple[ReadyFile, IntakeVerdict]]) -> None:
        try:
            self._record_verdicts(validated)
        except JournalTemporaryError as error:
            self._context.journal_outage.report(error, rule=self._rule.name)
            for file, _ in validated:
                self._settle_tracker.retry_later(file, self._context.clock.monotonic())

    def _record_verdicts(self, validated: list[tuple[ReadyFile, IntakeVerdict]]) -> None:
        new: list[NewJob] = []
        now = self._context.clock.monotonic()
        for file, verdict in validated:
            if not isinstance(verdict, Unreadable):
                self._unreadable_files.discard(file.relative)
            match verdict:
                case NewJob():
                    self._settle_tracker.remove(file.relative, file.stamp)
                    new.append(verdict)
                case Stamp():
                    self._settle_tracker.record_sighting(file.relative, verdict, now)
                case Incomplete() | Changed():
                    self._settle_tracker.postpone(file.relative, now)
                case Unreadable(reason=reason):
                    self._settle_tracker.postpone(file.relative, now)
                    self._warn_unreadable(file.relative, reason)
                case Missing():
                    self._on_missing(file.relative)
                    self._settle_tracker.remove(file.relative, file.stamp)
                case _:
                    assert_never(verdict)
        self._add_jobs(self._filter_new(new))

    def _add_jobs(self, new: list[NewJob]) -> None:
        if not new:
            return
        new = self._apply_burst_limit(mark_own_results(new, self._context.journal))
        # Bind the logger once: an unbound one binds itself for each line.
        log = _log.bind()
        for job_id, job in zip(self._context.journal.add_jobs(new), new, strict=True):
            if job.result_of is not None:
                log.info("job.own_result", job=job_id, rule=job.rule, path=job.source, output=job.result_of)
            elif job.problem is None:
                log.info("job.queued", job=job_id, rule=job.rule, path=job.source)
            else:
                log.warning(
                    "job.rejected",
                    job=job_id,
                    rule=job.rule,
                    path=job.source,
                    code=job.problem.code,
                    reason=job.problem.message,
                )
        self._context.wakeups.submit.notify()
        self._context.wakeups.dispose.notify()

    def _apply_burst_limit(self, new: list[NewJob]) -> list[NewJob]:
        """Mark images beyond ``budget.burst``, and copies of images that are held by it: they wait for `approve`."""
        journal, burst = self._context.journal, self._context.config.budget.burst
        arrivals, limit = 0, math.inf
        if burst is not None:
            limit = burst.images
            arrivals = journal.count_arrivals(self._rule.name, self._context.clock.now() - burst.per, burst.images)
        held_contents = journal.flood_held_contents(
            self._rule.name, [job.sha256 for job in new if job.sha256 is not None]
        )
        result = []
        for job in new:
            counts = job.problem is None and job.result_of is None
            flood = counts and (arrivals >= limit or job.sha256 in held_contents)
            arrivals += counts and not flood
            result.append(replace(job, flood=True) if flood else job)
        held = sum(job.flood for job in result)
        if held:
            _log.warning(
                "flood.held", rule=self._rule.name, images=held, approve=f"picwish-watchd approve {self._rule.name}"
            )
        return result

    def _filter_new(self, new: Sequence[NewJob]) -> list[NewJob]:
        """Return the jobs of ``new`` whose file, with this content, does not have a job yet."""
        latest = self._context.journal.find_latest_jobs([job.source for job in new])
        return [
            job for job in new if job.source not in latest or not self._update_if_unchanged(latest[job.source], job)
        ]

    def _update_if_unchanged(self, last: Job, new: NewJob) -> bool:
        """Update the stamp of ``last`` if ``new`` has the same content; return whether it has."""
        if not is_unchanged(last, new, self._context.config.rules):
            return False
        self._context.journal.update_stamp(last, new.stamp)
        # The folder of the file was missing for a while.
        if last.original is OriginalStatus.GONE:
            self._context.journal.update(last, "the original is back", original=OriginalStatus.WAITING)
        return True

    def _warn_unreadable(self, relative: str, reason: str) -> None:
        if relative not in self._unreadable_files:
            self._unreadable_files.add(relative)
            _log.warning("file.unreadable", rule=self._rule.name, path=self._rule.inbox / relative, reason=reason)
