"""From `pending` to `delivering`: query each task when it is probably done, and bring its result into the spool.

Queries cost no credits but count as requests. Downloads cost neither, because they go to another host. Both may be
repeated, so nothing here can be in doubt, but PicWish deletes a result one hour after it was made.
"""

import asyncio
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.images.inspect import inspect_result
from picwish_watchd.job import ErrorCode, Job, Problem, Result, State
from picwish_watchd.journal.writer import ChargeState
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.picwish import (
    DeadUrl,
    Downloaded,
    DownloadOutcome,
    InvalidResult,
    NotStored,
    Processing,
    QueryOutcome,
    RateLimited,
    Succeeded,
    TaskFailed,
    TaskInfo,
    TaskNotFound,
    Unauthorized,
    Unavailable,
)
from picwish_watchd.pipeline.collect_failures import CollectFailures
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.error_boundary import job_error_boundary
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.transitions import handle_task_failure
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.scheduling.download_slots import DownloadSlots
from picwish_watchd.scheduling.poll_queue import TrackedTask
from picwish_watchd.scheduling.rate_limiter import Permit, RateLimiter, RequestKind
from picwish_watchd.scheduling.task_tracker import TaskTracker

_log = structlog.get_logger()

# 404s in a row before a task counts as lost; a service out of order may answer 404 to every query.
_MAX_NOT_FOUND = 4
# Seconds between 404s of a task whose result PicWish no longer keeps.
_NOT_FOUND_DELAY = 2.0
# Seconds to wait for a permit, before the most urgent task is chosen anew.
_PERMIT_TIMEOUT = 2.0
# Downloads of any tasks that failed in a row, before nothing more is bought.
_MAX_FAILED_DOWNLOADS = 3
# Seconds between looks for due tasks.
_IDLE_SECONDS = 1.0


class Collect:
    """The step that queries tasks and downloads their results."""

    def __init__(
        self,
        context: StepContext,
        *,
        gate: Gate,
        rate_limiter: RateLimiter,
        tracker: TaskTracker,
        download_slots: DownloadSlots,
    ) -> None:
        self._context = context
        self._gate = gate
        self._rate_limiter = rate_limiter
        self._tracker = tracker
        self._download_slots = download_slots
        self._failures = CollectFailures(context, gate, tracker)
        # In a row.
        self._failed_downloads = 0

    async def run(self) -> None:
        """Query tasks until the daemon stops, then return when the running requests have ended."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.heartbeat.beat("collect")
                self._tracker.adopt_running_tasks()
                wait = self._tracker.seconds_until_due()
                if wait is None or wait > 0:
                    usual = self._context.wait_timeout(_IDLE_SECONDS)
                    await self._context.wakeups.collect.wait(usual if wait is None else min(wait, usual))
                    continue
                try:
                    async with asyncio.timeout(_PERMIT_TIMEOUT):
                        permit = await self._acquire_permit()
                except TimeoutError:
                    # Meanwhile a result may have begun to expire, or the daemon to stop.
                    continue
                job = self._tracker.choose_due_task()
                if job is not None and not self._context.stopping:
                    group.create_task(job_error_boundary(self._context, job.id, self.query_task(job, permit)))
                else:
                    permit.release()

    async def _acquire_permit(self) -> Permit:
        """Wait for a permit for the most urgent query; one of a higher priority goes before creates of a lower one."""
        if self._tracker.has_expiring_tasks():
            return await self._rate_limiter.acquire(RequestKind.EXPIRING)
        return await self._rate_limiter.acquire(RequestKind.QUERY, self._tracker.next_priority())

    async def query_task(self, job: Job, permit: Permit) -> None:
        """Query the task of a `pending` job and handle the outcome. ``permit`` is used up or released."""
        task = self._tracker.get_or_track(job)
        sink = self._context.spool.new_part_path(job.id, "query")
        try:
            if job.task_id is None:
                self._failures.handle_lost_task(
                    job, ErrorCode.TASK_UNKNOWN, "PicWish gave no task_id, so the result cannot be queried"
                )
                return
            outcome = await self._context.client.query(job.task_id, sink=sink, on_send_start=permit.mark_sent)
            permit.release()
            await self._handle_query_outcome(job, task, outcome, sink)
        finally:
            permit.release()
            self._tracker.ensure_scheduled(task)
            self._context.wakeups.collect.notify()

    async def handle_task_success(
        self, job: Job, task_info: TaskInfo, image_url: str | None, spooled: Path | None
    ) -> None:
        """Record that the task of a `pending` job is done and its credits are spent, and store its result.

        The result is in the file ``spooled``, or else at ``image_url``.
        """
        context = self._context
        task = self._tracker.get_or_track(job)
        seconds = self._tracker.estimate_duration(task, task_info.duration)
        job = context.journal.transition(
            job,
            State.FETCHING,
            "PicWish finished the task",
            charge=ChargeState.SPENT,
            answer=task_info.to_json(),
            task_seconds=seconds,
        )
        self._tracker.record_success(task, seconds)
        context.wakeups.submit.notify()
        if spooled is not None:
            await self._store_result(job, spooled)
        elif image_url is not None:
            await self._download_result(job, image_url)
        else:
            self._failures.handle_unusable_result(
                job, ErrorCode.RESULT_INVALID, "PicWish's response has no usable image"
            )

    async def _handle_query_outcome(self, job: Job, task: TrackedTask, outcome: QueryOutcome, sink: Path) -> None:
        if not isinstance(outcome, (Unavailable, RateLimited)):
            task.failure_count = 0
        match outcome:
            case Processing(task_info=task_info):
                self._handle_processing(job, task, task_info)
            case Succeeded(task_info=task_info, image_url=image_url, spooled_bytes=spooled):
                await self.handle_task_success(job, task_info, image_url, sink if spooled is not None else None)
            case TaskFailed():
                self._tracker.drop(job.id)
                handle_task_failure(self._context, job, outcome)
            case TaskNotFound(message=message):
                self._handle_not_found(job, task, message)
            case RateLimited(retry_after=retry_after):
                self._rate_limiter.throttle(retry_after)
            case Unauthorized(message=message):
                self._gate.close(CloseReason.UNAUTHORIZED, message)
                self._failures.back_off(task, None)
            case Unavailable():
                self._handle_unavailable(job, task, outcome)
            case NotStored(reason=reason):
                self._failures.handle_spool_failure(job, task, reason)
            case _:
                assert_never(outcome)

    def _handle_processing(self, job: Job, task: TrackedTask, task_info: TaskInfo) -> None:
        """Schedule the next query, or hold the job after `task_timeout`: the task may still end and cost credits."""
        if not self._tracker.record_processing(task):
            return
        self._tracker.drop(job.id)
        text = (
            f"PicWish has not finished task {job.task_id} in {self._context.config.api.task_timeout:.0f} s "
            f"(state {task_info.state}, {task_info.progress or 0} %)"
        )
        code = ErrorCode.TASK_TIMEOUT
        _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=text)
        self._context.journal.transition(
            job, State.HELD, text, charge=ChargeState.DOUBTFUL, problem=Problem(code, text)
        )

    def _handle_not_found(self, job: Job, task: TrackedTask, message: str) -> None:
        task.not_found_count += 1
        if task.not_found_count >= _MAX_NOT_FOUND:
            text = f"PicWish does not know task {job.task_id}: {message}"
            self._failures.handle_lost_task(job, ErrorCode.TASK_UNKNOWN, text)
        elif self._tracker.is_past_lifetime(task):
            self._tracker.schedule(task, _NOT_FOUND_DELAY)
        else:
            self._tracker.schedule(task, self._context.backoff_delay(2 * task.not_found_count))

    def _handle_unavailable(self, job: Job, task: TrackedTask, outcome: Unavailable) -> None:
        self._gate.close(CloseReason.API_DOWN, f"PicWish does not answer: {outcome.reason}")
        self._failures.back_off(task, outcome.retry_after)
        if self._tracker.is_lost(task):
            text = f"task {job.task_id} could not be queried ({outcome.reason})"
            self._failures.handle_lost_task(job, ErrorCode.TASK_TIMEOUT, text)

    async def _download_result(self, job: Job, url: str) -> None:
        sink = self._context.spool.new_part_path(job.id, "result")
        async with self._download_slots.acquire():
            outcome: DownloadOutcome = await self._context.client.download(url, sink=sink)
        self._count_failed_download(job, outcome)
        match outcome:
            case Downloaded():
                await self._store_result(job, sink)
            case DeadUrl(reason=reason):
                text = f"the result can no longer be downloaded: {reason}"
                self._failures.handle_unusable_result(job, ErrorCode.RESULT_EXPIRED, text)
            case InvalidResult(reason=reason):
                text = f"PicWish's result is not an image: {reason}"
                self._failures.handle_unusable_result(job, ErrorCode.RESULT_INVALID, text)
            case Unavailable(reason=reason, retry_after=retry_after):
                pause = self._failures.back_off(self._tracker.get_or_track(job), retry_after)
                text = f"the result could not be downloaded ({reason}); PicWish is queried for a fresh URL"
                self._failures.return_to_pending(job, text, pause)
            case NotStored(reason=reason):
                self._failures.handle_spool_failure(job, self._tracker.get_or_track(job), reason)
            case _:
                assert_never(outcome)

    async def _store_result(self, job: Job, sink: Path) -> None:
        """Validate a result and keep it, first synced in the spool, then in the journal. This ends its hour."""
        context = self._context
        try:
            result = await context.executor.run(WorkerKey.spool(), _validate_and_store, context.spool, sink, job.id)
        except OSError as error:
            self._failures.handle_spool_failure(job, self._tracker.get_or_track(job), error.strerror or str(error))
            return
        if not isinstance(result, Result):
            self._failed_downloads += 1
            text = f"PicWish's result is unusable: {result}"
            self._failures.handle_unusable_result(job, ErrorCode.RESULT_INVALID, text)
            return
        self._gate.clear_reasons(CloseReason.RESULTS_UNREACHABLE, CloseReason.SPOOL)
        self._failed_downloads = 0
        self._download_slots.record_result()
        size = f"{result.width} x {result.height} {result.format}"
        context.journal.transition(
            job, State.DELIVERING, f"the result is in the spool: {size}", result=result, note=None, not_before=None
        )
        task = self._tracker.get_or_track(job)
        context.counters.observe_result_saved(self._tracker.remaining_lifetime(task))
        self._tracker.drop(job.id)
        context.wakeups.deliver.notify()

    def _count_failed_download(self, job: Job, outcome: DownloadOutcome) -> None:
        """Close the gate after several failed downloads in a row: no result can be downloaded at present."""
        if isinstance(outcome, Downloaded):
            return
        self._failed_downloads += 1
        if self._failed_downloads >= _MAX_FAILED_DOWNLOADS:
            text = f"{self._failed_downloads} results in a row could not be downloaded: {outcome.reason}"
            self._gate.close(CloseReason.RESULTS_UNREACHABLE, text, trial=True, job_id=job.id)


def _validate_and_store(spool: Spool, sink: Path, job_id: int) -> Result | str:
    """Return the result, synced in the spool, or why the file is no usable result. Runs in a thread."""
    result = inspect_result(sink)
    if isinstance(result, Result):
        spool.commit_result(sink, job_id)
    else:
        sink.unlink(missing_ok=True)
    return result
