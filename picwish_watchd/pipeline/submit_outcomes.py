"""Write the outcome of a POST into the journal: from `submitting` to the state that PicWish's answer proves."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.job import ErrorCode, Job, State
from picwish_watchd.journal.writer import ChargeState
from picwish_watchd.picwish import (
    Accepted,
    CreateOutcome,
    Finished,
    InDoubt,
    NotAccepted,
    NotSent,
    Refused,
    TaskFailed,
    TaskInfo,
    Unauthorized,
)
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.transitions import handle_task_failure, mark_failed, mark_in_doubt
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.scheduling.task_tracker import TaskTracker

_log = structlog.get_logger()

# Seconds. No Retry-After keeps a job back for longer.
_RETRY_AFTER_MAX = 300.0
# Seconds. The rate limiter slows down as well, so a job need not wait for long.
_BUSY_DELAY_MAX = 10.0
# Seconds between two tries to write an outcome into a journal that is locked or whose disk is full.
_JOURNAL_RETRY_DELAY = 1.0

#: Stores the result of a task that is done. It takes the `pending` job, PicWish's fields of the task, the URL of the
#: image, and the path of the image if the response itself contained it.
ResultHandler = Callable[[Job, TaskInfo, str | None, Path | None], Awaitable[None]]


class SubmitOutcomes:
    """The journal entries and the gate's reactions that follow from the outcomes of POSTs."""

    def __init__(
        self,
        context: StepContext,
        *,
        gate: Gate,
        rate_limiter: RateLimiter,
        tracker: TaskTracker,
        handle_result: ResultHandler,
    ) -> None:
        self._context = context
        self._gate = gate
        self._rate_limiter = rate_limiter
        self._tracker = tracker
        self._handle_result = handle_result

    async def record(self, job_id: int, outcome: CreateOutcome, sink: Path) -> None:
        """Record the outcome of a job's POST; retry while the journal's disk is full or another program locks it.

        ``sink`` is the file that holds the image where PicWish's answer contained it (``sync: 1``).
        """
        context = self._context
        while True:
            try:
                await self._handle_outcome(job_id, outcome, sink)
                return
            except JournalTemporaryError as error:
                job = context.journal.get(job_id)
                if job is None or job.state is not State.SUBMITTING:
                    raise
                context.journal_outage.report(error, job=job_id)
                await context.clock.sleep(_JOURNAL_RETRY_DELAY)

    async def _handle_outcome(self, job_id: int, outcome: CreateOutcome, sink: Path) -> None:
        """Write the outcome into the journal before anything else happens."""
        context = self._context
        job = context.journal.get(job_id)
        assert job is not None
        match outcome:
            case Accepted(task_id=str(task_id)) | Finished(task_id=str(task_id)) if self._belongs_to_other_job(
                job, task_id
            ):
                self._mark_in_doubt(job, f"PicWish answered with task {task_id}, which belongs to another image")
            case Accepted(task_id=task_id, task_info=answer):
                self._tracker.track_new_task(self._move_to_pending(job, task_id, answer.to_json()))
            case Finished(task_id=task_id, task_info=answer, image_url=image, spooled_bytes=spooled):
                job = self._move_to_pending(job, task_id, answer.to_json())
                await self._handle_result(job, answer, image, sink if spooled is not None else None)
            case TaskFailed():
                handle_task_failure(context, context.journal.update(job, attempts=job.attempts + 1), outcome)
            case Refused(problem=problem):
                mark_failed(context, job, problem, charge=ChargeState.RELEASED)
            case NotSent(reason=reason):
                self._defer_unsent(job, f"PicWish could not be reached: {reason}")
            case NotAccepted():
                self._handle_not_accepted(job, outcome)
            case Unauthorized(message=message):
                self._gate.close(CloseReason.UNAUTHORIZED, message, trial=True)
                self._requeue(job, message, pause=context.backoff_delay(job.refusals) if job.refusals else 0.0)
            case InDoubt(reason=reason):
                self._mark_in_doubt(
                    job, f"PicWish may have accepted this image, but its answer did not arrive complete: {reason}"
                )
                self._gate.close(CloseReason.API_DOWN, reason, trial=True)
            case _:
                assert_never(outcome)

    def _handle_not_accepted(self, job: Job, outcome: NotAccepted) -> None:
        """Queue the job again; slow down where PicWish limits the rate, otherwise close the gate."""
        backoff = self._context.backoff_delay(job.refusals)
        if outcome.rate_limited:
            self._rate_limiter.throttle(outcome.retry_after)
            pause = min(backoff, _BUSY_DELAY_MAX)
            self._requeue(job, f"PicWish asked for fewer requests: {outcome.reason}", pause=pause)
        else:
            self._gate.close(CloseReason.API_DOWN, outcome.reason, trial=True, retry_after=outcome.retry_after)
            pause = max(backoff, min(outcome.retry_after or 0.0, _RETRY_AFTER_MAX))
            self._requeue(job, f"not accepted: {outcome.reason}", pause=pause)

    def _belongs_to_other_job(self, job: Job, task_id: str) -> bool:
        owner = self._context.journal.find_task_owner(task_id)
        return owner is not None and owner.id != job.id

    def _mark_in_doubt(self, job: Job, message: str) -> None:
        job = self._context.journal.update(job, attempts=job.attempts + 1)
        mark_in_doubt(self._context, job, ErrorCode.SUBMIT_OUTCOME_UNKNOWN, message)

    def _move_to_pending(self, job: Job, task_id: str | None, answer: str) -> Job:
        """Record that PicWish accepted the image; ``answer`` is its answer as JSON."""
        # In the log first: should the journal fail at this very moment, a person can still find the task.
        _log.info("task.accepted", job=job.id, rule=job.rule, path=job.source, task=task_id)
        self._gate.clear_reasons(CloseReason.API_DOWN, CloseReason.UNAUTHORIZED)
        return self._context.journal.transition(
            job,
            State.PENDING,
            f"PicWish accepted it as task {task_id}" if task_id else "PicWish accepted it",
            task_id=task_id,
            answer=answer,
            attempts=job.attempts + 1,
            refusals=0,
            not_before=None,
        )

    def _requeue(self, job: Job, message: str, *, pause: float) -> None:
        """Queue a job again, at no cost, that PicWish provably did not accept; ``pause`` is in seconds."""
        _log.warning("submit.not_accepted", job=job.id, rule=job.rule, path=job.source, reason=message)
        self._context.journal.transition(
            job,
            State.QUEUED,
            message,
            charge=ChargeState.RELEASED,
            refusals=job.refusals + 1,
            not_before=self._context.clock.now() + pause,
        )

    def _defer_unsent(self, job: Job, message: str) -> None:
        """Postpone a job of which no byte was sent, so it is still `queued`; close the gate until a probe succeeds."""
        context = self._context
        self._gate.close(CloseReason.API_DOWN, message)
        pause = context.backoff_delay(job.refusals)
        context.journal.update(job, refusals=job.refusals + 1, not_before=context.clock.now() + pause)
