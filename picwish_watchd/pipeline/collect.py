"""From `pending` to `delivering`: asks for a task when it is likely done, and brings its result into the spool.

Queries are free of charge but not of requests; downloads are free of both, for they go to another host. All of this may
be repeated at will, so nothing here is ever in doubt, except that a result is gone an hour after it was made.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.images.inspect import inspect_result
from picwish_watchd.job import ErrorCode, Job, Problem, Result, State
from picwish_watchd.journal.rows import RunningTask
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
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.error_boundary import job_error_boundary
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.transitions import handle_task_failure, mark_in_doubt
from picwish_watchd.pricing import TaskType
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.scheduling.download_slots import DownloadSlots
from picwish_watchd.scheduling.duration_model import DurationModel, max_useful_pending
from picwish_watchd.scheduling.poll_queue import PollQueue, TrackedTask
from picwish_watchd.scheduling.rate_limiter import Permit, RateLimiter, RequestKind

_log = structlog.get_logger()

# seconds for which PicWish keeps a result (API document)
_RESULT_LIFETIME = 3600.0
# tries for a fresh URL before a paid result counts as gone
_MAX_FRESH_URLS = 3
# 404s in a row before a task counts as gone; a service that is out of order may say so of all
_MAX_NOT_FOUND = 4
# seconds between them, where the hour is over
_NOT_FOUND_DELAY = 2.0
# seconds
_PERMIT_TIMEOUT = 2.0
_TASK_LOST_AGE = (
    2 * 3600.0
    # a task of this age (seconds) that no query could tell anything of is gone: results live an hour,
)
_TASK_LOST_SILENCE = (
    # if that was tried for so long: at a start the network may come late, and the clock be wrong
    900.0
)
# seconds; a paid result cannot wait for as long as a server likes
_RETRY_AFTER_MAX = 60.0
# downloads that failed in a row, of whatever tasks, before nothing more is bought
_MAX_FAILED_DOWNLOADS = 3
# an answer that is later than it was to come by more (seconds) tells of a silence: not counted
_MAX_ANSWER_GAP = 60.0
_BACKOFF_MAX = 30.0
_IDLE_SECONDS = 1.0
# a look at all tasks takes 5 ms where there are 10,000: so much of the time between looks
_REFRESH_DIVISOR = 50


class Collect:
    """Follows the tasks at PicWish."""

    def __init__(self, context: StepContext, *, gate: Gate, rate_limiter: RateLimiter) -> None:
        self._context = context
        self._gate = gate
        self._rate_limiter = rate_limiter
        self._duration_models: dict[int, DurationModel] = {
            model: DurationModel(context.journal.recent_task_durations(model, 200)) for model in TaskType
        }
        self._prior_p99 = DurationModel().p99
        self._poll_queue = PollQueue()
        self._download_slots = DownloadSlots(context.clock)
        self._refresh_at = 0.0
        self._prefer_priority = (
            # whether the next query goes to a higher priority: every second one goes to whoever is due
            True
        )
        # in a row
        self._failed_downloads = 0

    async def run(self) -> None:
        """Asks for tasks until the daemon stops; then returns when the running requests have ended."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.heartbeat.beat("collect")
                self.adopt_running_tasks()
                wait = self._poll_queue.seconds_until_due(self._now())
                if wait is None or wait > 0:
                    usual = self._context.wait_timeout(_IDLE_SECONDS)
                    await self._context.wakeups.collect.wait(usual if wait is None else min(wait, usual))
                    continue
                try:
                    async with asyncio.timeout(_PERMIT_TIMEOUT):
                        slot = await self._acquire_permit()
                except TimeoutError:
                    # meanwhile a task may have begun to expire, or the daemon to stop
                    continue
                job = self.choose_due_task()
                if job is not None and not self._context.stopping:
                    group.create_task(job_error_boundary(self._context, job.id, self.query_task(job, slot)))
                else:
                    slot.release()

    async def _acquire_permit(self) -> Permit:
        """For the query that presses most: one for a higher priority goes before creates of a lower one."""
        if self.has_expiring_tasks():
            return await self._rate_limiter.acquire(RequestKind.EXPIRING)
        favoured = self._find_priority_task() if self._prefer_priority else None
        return await self._rate_limiter.acquire(RequestKind.QUERY, None if favoured is None else favoured[0])

    def adopt_running_tasks(self) -> None:
        """Takes up tasks that only the journal knows: those of an earlier run, and those that `retry` brought back."""
        now = self._now()
        if now < self._refresh_at:
            return
        for task in self._context.journal.running_tasks(excluding=self._poll_queue):
            self._adopt_task(task)
        self._refresh_at = now + min(_BACKOFF_MAX, max(_IDLE_SECONDS, _REFRESH_DIVISOR * (self._now() - now)))

    def pending_limit(self) -> int:
        """How many tasks may be at PicWish at once: as many as keep requests busy and the line can bring home.

        Quick tasks lower it only with ``sync: 1`` (a silence puts each in doubt): else a slow spell would stall at few.
        """
        api, rules = self._context.config.api, self._context.config.rules
        least = 0.0 if any(rule.sync for rule in rules) else self._prior_p99
        longest = max(least, *(self._duration_models[rule.type].p99 for rule in rules))
        wanted = max_useful_pending(api.qps, longest) if api.max_pending is None else api.max_pending
        return min(wanted, self._download_slots.max_in_flight(2 * max_useful_pending(api.qps, self._prior_p99)))

    def has_expiring_tasks(self) -> bool:
        """Whether a result may be lost if it is not asked for first: then no request is left for anything else."""
        return self._poll_queue.has_expiring_tasks(self._now())

    def track_new_task(self, job: Job) -> None:
        """A task was just created: its age counts from now."""
        now = self._now()
        first = self._duration_models[job.type].next_poll_age(0.0)
        self._poll_queue.track(
            TrackedTask(job.id, job.type, job.rule, born_at=now, expected_answer_age=first), now + first
        )
        self._context.wakeups.collect.notify()

    def choose_due_task(self) -> Job | None:
        """The task that is due and most likely done; every second time one of a higher priority, if it is worth it."""
        favoured = self._find_priority_task() if self._prefer_priority else None
        self._prefer_priority = favoured is None
        prefer = None if favoured is None else favoured[1]
        while (task := self._poll_queue.pop(self._now(), self._probability_done, prefer)) is not None:
            job = self._context.journal.get(task.id)
            if job is not None and job.state is State.PENDING:
                return job
            self._poll_queue.drop(task.id)
            prefer = None
        return None

    def _find_priority_task(self) -> tuple[int, TrackedTask] | None:
        ranks = {rule.name: rule.priority for rule in self._context.config.rules}
        if len(set(ranks.values())) < 2:
            return None
        return self._poll_queue.find_priority_task(self._now(), self._probability_done, lambda rule: ranks.get(rule, 0))

    def _probability_done(self, task: TrackedTask) -> float:
        return self._duration_models[task.type].probability_done(task.last_open_age, self._age(task))

    async def query_task(self, job: Job, slot: Permit) -> None:
        """One query and what follows from it."""
        followed = self._get_or_track(job)
        sink = self._context.spool.new_part_path(job.id, "query")
        try:
            if job.task_id is None:
                self._handle_lost_task(
                    job, ErrorCode.TASK_UNKNOWN, "PicWish gave no task_id to ask for the result again"
                )
                return
            outcome = await self._context.client.query(job.task_id, sink=sink, on_send_start=slot.mark_sent)
            slot.release()
            await self._handle_query_outcome(job, followed, outcome, sink)
        finally:
            slot.release()
            if followed.due_at is None and followed.id in self._poll_queue:
                self._poll_queue.schedule(followed, self._now())
            self._context.wakeups.collect.notify()

    async def handle_task_success(self, job: Job, answer: TaskInfo, image: str | None, spooled: Path | None) -> None:
        """A task is done: its credits are spent, and its result is brought home. ``job`` is `pending`."""
        context = self._context
        followed = self._get_or_track(job)
        seconds = self._estimate_duration(followed, answer)
        job = context.journal.transition(
            job,
            State.FETCHING,
            "PicWish is done with it",
            charge=ChargeState.SPENT,
            answer=answer.to_json(),
            task_seconds=seconds,
        )
        followed.result_age = seconds if followed.result_age is None else followed.result_age
        self._duration_models[job.type].observe(seconds)
        context.wakeups.submit.notify()
        if spooled is not None:
            await self._store_result(job, spooled)
        elif image is not None:
            await self._download_result(job, image)
        else:
            self._handle_unusable_result(job, ErrorCode.RESULT_INVALID, "PicWish's answer holds no usable image")

    async def _handle_query_outcome(self, job: Job, followed: TrackedTask, outcome: QueryOutcome, sink: Path) -> None:
        context = self._context
        if not isinstance(outcome, (Unavailable, RateLimited)):
            followed.failure_count = 0
        match outcome:
            case Processing(task_info=answer):
                self._handle_processing(job, followed, answer)
            case Succeeded(task_info=answer, image_url=image, spooled_bytes=spooled):
                await self.handle_task_success(job, answer, image, sink if spooled is not None else None)
            case TaskFailed():
                self._poll_queue.drop(job.id)
                handle_task_failure(context, job, outcome)
            case TaskNotFound(message=message):
                followed.not_found_count += 1
                if followed.not_found_count >= _MAX_NOT_FOUND:
                    self._handle_lost_task(
                        job, ErrorCode.TASK_UNKNOWN, f"PicWish does not know task {job.task_id}: {message}"
                    )
                else:
                    over = self._now() - followed.earliest_result_at > _RESULT_LIFETIME
                    pause = _NOT_FOUND_DELAY if over else context.backoff_delay(2 * followed.not_found_count)
                    self._poll_queue.schedule(followed, self._now() + pause)
            case RateLimited(retry_after=retry_after):
                self._rate_limiter.throttle(retry_after)
            case Unauthorized(message=message):
                self._gate.close(CloseReason.UNAUTHORIZED, message)
                self._back_off(followed, None)
            case Unavailable(reason=reason, retry_after=retry_after):
                self._gate.close(CloseReason.API_DOWN, f"PicWish does not answer: {reason}")
                self._back_off(followed, retry_after)
                if (
                    self._age(followed) > _TASK_LOST_AGE
                    and self._age(followed) - followed.last_answer_age > _TASK_LOST_SILENCE
                ):
                    self._handle_lost_task(
                        job, ErrorCode.TASK_TIMEOUT, f"task {job.task_id} could not be asked for ({reason})"
                    )
            case NotStored(reason=reason):
                self._handle_spool_failure(job, followed, reason)
            case _:
                assert_never(outcome)

    def _handle_processing(self, job: Job, followed: TrackedTask, answer: TaskInfo) -> None:
        age, limit = self._age(followed), self._context.config.api.task_timeout
        followed.answered_seconds += min(
            age - followed.last_answer_age,
            max(0.0, followed.expected_answer_age - followed.last_answer_age) + _MAX_ANSWER_GAP,
        )
        followed.last_answer_age = followed.last_open_age = age
        followed.not_found_count, followed.is_inherited = 0, False
        # then its time is over
        last = age + limit - followed.answered_seconds
        followed.expected_answer_age = max(age + 0.001, min(self._duration_models[job.type].next_poll_age(age), last))
        self._poll_queue.schedule(followed, followed.born_at + followed.expected_answer_age)
        if followed.answered_seconds >= limit:
            text = (
                f"PicWish has not finished task {job.task_id} in {limit:.0f} s "
                f"(state {answer.state}, {answer.progress or 0} %)"
            )
            self._hold(job, ErrorCode.TASK_TIMEOUT, text)

    async def _download_result(self, job: Job, url: str) -> None:
        sink = self._context.spool.new_part_path(job.id, "result")
        async with self._download_slots.acquire():
            outcome: DownloadOutcome = await self._context.client.download(url, sink=sink)
        self._count_failed_download(job, outcome)
        match outcome:
            case Downloaded():
                await self._store_result(job, sink)
            case DeadUrl(reason=reason):
                self._handle_unusable_result(
                    job, ErrorCode.RESULT_EXPIRED, f"the result can no longer be downloaded: {reason}"
                )
            case InvalidResult(reason=reason):
                self._handle_unusable_result(
                    job, ErrorCode.RESULT_INVALID, f"what PicWish gave as the result is no image: {reason}"
                )
            case Unavailable(reason=reason, retry_after=retry_after):
                followed = self._get_or_track(job)
                message = f"the result could not be downloaded ({reason}); PicWish is asked for a fresh address"
                self._return_to_pending(job, message, self._back_off(followed, retry_after))
            case NotStored(reason=reason):
                followed = self._get_or_track(job)
                self._handle_spool_failure(job, followed, reason)
            case _:
                assert_never(outcome)

    async def _store_result(self, job: Job, sink: Path) -> None:
        """Judges a result and keeps it: synced in the spool, then in the journal. Here the one-hour clock stops."""
        context = self._context
        try:
            verdict = await context.executor.run(WorkerKey.spool(), _validate_and_store, context.spool, sink, job.id)
        except OSError as error:
            self._handle_spool_failure(job, self._get_or_track(job), error.strerror or str(error))
            return
        if not isinstance(verdict, Result):
            self._failed_downloads += 1
            self._handle_unusable_result(
                job, ErrorCode.RESULT_INVALID, f"what PicWish gave as the result is unusable: {verdict}"
            )
            return
        self._gate.clear_reasons(CloseReason.RESULTS_UNREACHABLE, CloseReason.SPOOL)
        self._failed_downloads = 0
        self._download_slots.record_result()
        size = f"{verdict.width} x {verdict.height} {verdict.format}"
        context.journal.transition(
            job, State.DELIVERING, f"the result is in the spool: {size}", result=verdict, note=None, not_before=None
        )
        followed = self._get_or_track(job)
        context.counters.observe_result_saved(_RESULT_LIFETIME - self._age(followed) + (followed.result_age or 0.0))
        self._poll_queue.drop(job.id)
        context.wakeups.deliver.notify()

    def _handle_unusable_result(self, job: Job, code: ErrorCode, reason: str) -> None:
        """A result that cannot be had or used: asked for afresh, at most `_FRESH_URLS` times."""
        followed = self._get_or_track(job)
        followed.bad_result_count += 1
        if followed.bad_result_count < _MAX_FRESH_URLS:
            # spread over minutes: what serves the results may be out of order for a while
            pause = self._context.backoff_delay(2 * followed.bad_result_count)
            self._poll_queue.schedule(followed, self._now() + pause)
            self._return_to_pending(job, f"{reason}; PicWish is asked again", pause)
        elif code is ErrorCode.RESULT_INVALID:
            text = f"{reason} (asked {followed.bad_result_count} times); it was paid for: `retry` asks PicWish again"
            _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=text)
            self._context.journal.transition(job, State.HELD, text, problem=Problem(code, text))
            self._poll_queue.drop(job.id)
        else:
            self._handle_lost_task(job, code, f"{reason} (asked {followed.bad_result_count} times)")

    def _count_failed_download(self, job: Job, outcome: DownloadOutcome) -> None:
        """Several failed downloads in a row say that no result can be had at present: then nothing more is bought."""
        if isinstance(outcome, Downloaded):
            return
        self._failed_downloads += 1
        if self._failed_downloads >= _MAX_FAILED_DOWNLOADS:
            text = f"{self._failed_downloads} results in a row could not be downloaded: {outcome.reason}"
            self._gate.close(CloseReason.RESULTS_UNREACHABLE, text, trial=True, job_id=job.id)

    def _handle_spool_failure(self, job: Job, followed: TrackedTask, reason: str) -> None:
        """The spool did not take the result: it stays at PicWish for up to an hour."""
        pause = self._back_off(followed, None)
        message = f"the result could not be kept in the spool ({reason}); it is fetched again"
        _log.error("spool.failed", job=job.id, rule=job.rule, path=job.source, reason=reason)
        told = f"results cannot be kept in {self._context.spool.folder}: {reason}"
        self._gate.close(CloseReason.SPOOL, told, trial=True, job_id=job.id)
        with suppress(OSError):
            self._context.spool.ensure_folder()
        if job.state is State.FETCHING:
            self._return_to_pending(job, message, pause)

    def _return_to_pending(self, job: Job, message: str, pause: float) -> None:
        _log.warning("result.asked_again", job=job.id, rule=job.rule, path=job.source, reason=message)
        later = self._context.clock.now() + pause
        self._context.journal.transition(job, State.PENDING, message, not_before=later)
        self._context.wakeups.collect.notify()

    def _hold(self, job: Job, code: ErrorCode, text: str) -> None:
        """A task that may still end: held in both ways of charging."""
        self._poll_queue.drop(job.id)
        _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=text)
        self._context.journal.transition(
            job, State.HELD, text, charge=ChargeState.DOUBTFUL, problem=Problem(code, text)
        )

    def _handle_lost_task(self, job: Job, code: ErrorCode, message: str) -> None:
        self._poll_queue.drop(job.id)
        paid = job.paid
        if job.pay_again:
            words = f"{message}; submitted anew, as `retry` said"
            charge = ChargeState.SPENT if paid else ChargeState.DOUBTFUL
            self._context.journal.transition(job, State.QUEUED, words, charge=charge, task_id=None, pay_again=False)
            self._context.wakeups.submit.notify()
        else:
            mark_in_doubt(self._context, job, code, message, paid=paid)

    def _back_off(self, followed: TrackedTask, retry_after: float | None) -> float:
        """Puts the next query off, the longer the more failed in a row; answers the pause in seconds."""
        backoff = min(_BACKOFF_MAX, self._context.backoff_delay(followed.failure_count))
        pause = backoff if retry_after is None else min(retry_after, _RETRY_AFTER_MAX)
        followed.failure_count += 1
        self._poll_queue.schedule(followed, self._now() + pause)
        return pause

    def _adopt_task(self, task: RunningTask) -> None:
        now, wall = self._now(), self._context.clock.now()
        age = max(0.0, wall - task.submitted_at)
        due = now + max(
            0.0, min(task.not_before - wall, 300.0), self._duration_models[task.type].next_poll_age(0.0) - age
        )
        followed = TrackedTask(task.id, task.type, task.rule, born_at=now - age, last_answer_age=age, is_inherited=True)
        self._poll_queue.track(followed, due)

    def _get_or_track(self, job: Job) -> TrackedTask:
        """What is known of a task; one that came by another way than `accepted` is as old as the wall clock says."""
        task = self._poll_queue.get(job.id)
        if task is None:
            now = self._now()
            age = max(0.0, self._context.clock.now() - (job.submitted_at or 0.0))
            task = TrackedTask(job.id, job.type, job.rule, born_at=now - age, last_answer_age=age)
            self._poll_queue.track(
                task,
                now + _BACKOFF_MAX,
                # its answer is here: not to be asked for unless that is lost
            )
        return task

    def _now(self) -> float:
        """PicWish works on while this machine sleeps, and its hours pass."""
        return self._context.clock.since_boot()

    def _age(self, followed: TrackedTask) -> float:
        return self._now() - followed.born_at

    def _estimate_duration(self, followed: TrackedTask, answer: TaskInfo) -> float:
        """How long PicWish worked: what it says itself, as far as that agrees with what was seen from here.

        Seen from here it took longer than until the last query that found it open, and no longer than until now. In a
        backlog that says little, for a task is asked for long after its end: then the law itself says what is likely.
        """
        seen = max(followed.last_open_age, self._age(followed))
        return self._duration_models[followed.type].estimate_duration(followed.last_open_age, seen, answer.duration)


def _validate_and_store(spool: Spool, sink: Path, job_id: int) -> Result | str:
    """In a thread: the result, synced in the spool, or why it is none."""
    verdict = inspect_result(sink)
    if isinstance(verdict, Result):
        spool.commit_result(sink, job_id)
    else:
        sink.unlink(missing_ok=True)
    return verdict
