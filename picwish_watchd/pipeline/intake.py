"""From a file seen to a job `queued` or `rejected`: waits until it stands still, judges it, writes it down."""

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

#: What came of looking at a file: a job, no job yet and why, or its stamp where it has changed.
IntakeVerdict = NewJob | Incomplete | Changed | Missing | Unreadable | Stamp

# files a turn: to write them down keeps the loop for 8 ms, and two turns may come at once
_BATCH_SIZE = 32
# files that wait, from which on they are judged by a process of its own
_SUBPROCESS_THRESHOLD = 500
_IDLE_SECONDS = 30.0
_JOB_VERDICTS = (ValidImage, ValidLink, Rejected)


class Intake:
    """The intake of one rule. All methods belong to the event loop's thread."""

    def __init__(
        self, context: StepContext, rule: Rule, *, gone: Callable[[str], None] = lambda _relative: None
    ) -> None:
        """``gone`` hears of files (below the inbox) that vanished: if they come back, they are news."""
        self._context = context
        self._on_missing = gone
        self._rule = rule
        self._settle_tracker = SettleTracker(rule.settle, rule.settle_timeout)
        self._wakeup = Wakeup()
        self._unreadable_files: set[str] = set()
        self._worker_key = WorkerKey.intake(rule.name, rule.inbox)

    @property
    def settling_count(self) -> int:
        """Number of files that are not yet a job, less those that cannot be read."""
        return len(self._settle_tracker) - len(self._unreadable_files)

    @property
    def unreadable_count(self) -> int:
        """Number of files that could not be read when last looked at; they are tried again."""
        return len(self._unreadable_files)

    @property
    def validation_seconds(self) -> float:
        """For how long (seconds) the files have been looked at that are being judged; 0 if none are."""
        return self._context.executor.running_seconds(self._worker_key)

    def record_sightings(self, found: Sequence[FileSeen]) -> None:
        """The watcher saw files that are new or have changed."""
        now = self._context.clock.monotonic()
        for sighting in found:
            self._settle_tracker.record_sighting(sighting.relative, sighting.stamp, now)
        self._wakeup.notify()

    async def run(self) -> None:
        """Takes files in until cancelled or the daemon stops."""
        while not self._context.stopping:
            if await self.process_due_files():
                continue
            self._context.validator.stop_if_idle(_IDLE_SECONDS)
            due = self._settle_tracker.next_ready_at()
            await self._wakeup.wait(
                _IDLE_SECONDS if due is None else min(_IDLE_SECONDS, due - self._context.clock.monotonic())
            )

    async def process_due_files(self) -> bool:
        """Judges the files that are due now, and writes some down while the next are judged; whether there were any."""
        rest, judged, some = list[ReadyFile](), list[tuple[ReadyFile, IntakeVerdict]](), False
        while True:
            rest = rest or self._settle_tracker.pop_ready(self._context.clock.monotonic(), _BATCH_SIZE)
            flood = len(self._settle_tracker) >= _SUBPROCESS_THRESHOLD
            ahead = None
            if rest and not self._context.stopping:
                home = self._context.journal.folder_mount(self._rule.inbox)
                ahead = self._context.executor.submit(self._worker_key, self._validate_batch, rest, home, flood)
            try:
                self._record_or_retry(judged)
            except BaseException:
                if ahead is not None:
                    ahead.cancel()
                raise
            if ahead is None:
                return some
            judged, some = await ahead, True
            rest = rest[len(judged) :]

    def _validate_batch(
        self, due: list[ReadyFile], home: Mount | None, flood: bool
    ) -> list[tuple[ReadyFile, IntakeVerdict]]:
        """In the rule's thread: as many as fit into a slice of time."""
        if detect_mount_change(self._rule.inbox, home) is not None:
            # what lies under a mount that is away is none of ours
            return [(one, Missing()) for one in due]
        inspector, questions = self._context.validator, [self._build_request(one) for one in due]
        if questions[0].final:
            answers = [inspector.validate_final(questions[0])]
        else:
            questions = list(takewhile(lambda question: not question.final, questions))
            answers = inspector.validate_batch(questions) if flood else validate_requests(questions)
        return [
            (
                one,
                build_new_job(self._rule, asked.path, one.stamp, found) if isinstance(found, _JOB_VERDICTS) else found,
            )
            for one, asked, found in zip(due, questions, answers, strict=False)
        ]

    def _build_request(self, due: ReadyFile) -> ValidationRequest:
        limits = image_limits(self._context.config.api, self._rule)
        return ValidationRequest(
            self._rule.inbox / due.relative, due.stamp, limits, self._rule.follow_symlinks, final=due.decode
        )

    def _record_or_retry(self, judged: list[tuple[ReadyFile, IntakeVerdict]]) -> None:
        try:
            self._record_verdicts(judged)
        except JournalTemporaryError as error:
            self._context.journal_outage.report(error, rule=self._rule.name)
            for one, _ in judged:
                self._settle_tracker.retry_later(one, self._context.clock.monotonic())

    def _record_verdicts(self, judged: list[tuple[ReadyFile, IntakeVerdict]]) -> None:
        new: list[NewJob] = []
        now = self._context.clock.monotonic()
        for due, verdict in judged:
            if not isinstance(verdict, Unreadable):
                self._unreadable_files.discard(due.relative)
            match verdict:
                case NewJob():
                    self._settle_tracker.remove(due.relative, due.stamp)
                    new.append(verdict)
                case Stamp():
                    self._settle_tracker.record_sighting(due.relative, verdict, now)
                case Incomplete() | Changed():
                    self._settle_tracker.postpone(due.relative, now)
                case Unreadable(reason=reason):
                    self._settle_tracker.postpone(due.relative, now)
                    self._warn_unreadable(due.relative, reason)
                case Missing():
                    self._on_missing(due.relative)
                    self._settle_tracker.remove(due.relative, due.stamp)
                case _:
                    assert_never(verdict)
        self._add_jobs(self._filter_new(new))

    def _add_jobs(self, new: list[NewJob]) -> None:
        if not new:
            return
        new = self._apply_burst_limit(mark_own_results(new, self._context.journal))
        # once for all of them: a logger that is not bound binds itself for each line
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
        """The surge brake: more images than `budget.burst` allows wait for a person, and copies of what waits so."""
        journal, burst = self._context.journal, self._context.config.budget.burst
        arrived, most = 0, math.inf
        if burst is not None:
            most = burst.images
            arrived = journal.count_arrivals(self._rule.name, self._context.clock.now() - burst.per, burst.images)
        waiting = journal.flood_held_contents(self._rule.name, [job.sha256 for job in new if job.sha256 is not None])
        braked = []
        for job in new:
            counts = job.problem is None and job.result_of is None
            flood = counts and (arrived >= most or job.sha256 in waiting)
            arrived += counts and not flood
            braked.append(replace(job, flood=True) if flood else job)
        held = sum(job.flood for job in braked)
        if held:
            _log.warning(
                "flood.held", rule=self._rule.name, images=held, approve=f"picwish-watchd approve {self._rule.name}"
            )
        return braked

    def _filter_new(self, new: Sequence[NewJob]) -> list[NewJob]:
        """Those that are no news of a file whose job there is already."""
        last = self._context.journal.find_latest_jobs([job.source for job in new])
        return [job for job in new if job.source not in last or not self._update_if_unchanged(last[job.source], job)]

    def _update_if_unchanged(self, last: Job, new: NewJob) -> bool:
        if not is_unchanged(last, new, self._context.config.rules):
            return False
        self._context.journal.update_stamp(last, new.stamp)
        # its folder was away for a while
        if last.original is OriginalStatus.GONE:
            self._context.journal.update(last, "the original is back", original=OriginalStatus.WAITING)
        return True

    def _warn_unreadable(self, relative: str, reason: str) -> None:
        if relative not in self._unreadable_files:
            self._unreadable_files.add(relative)
            _log.warning("file.unreadable", rule=self._rule.name, path=self._rule.inbox / relative, reason=reason)
