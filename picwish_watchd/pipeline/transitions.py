"""State changes that several steps make."""

import structlog

from picwish_watchd.config.schema import Charging, OnFailure
from picwish_watchd.job import ErrorCode, Job, OriginalStatus, Problem, State
from picwish_watchd.journal.writer import ChargeState
from picwish_watchd.picwish import TaskFailed
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pricing import PRICES
from picwish_watchd.wording import pluralize

_log = structlog.get_logger()

# The original is no longer there. A file that appears under its name later is another file and must not be moved.
_ORIGINAL_BY_ERROR = {ErrorCode.SOURCE_MISSING: OriginalStatus.GONE, ErrorCode.SOURCE_CHANGED: OriginalStatus.REPLACED}


def mark_failed(context: StepContext, job: Job, problem: Problem, *, charge: ChargeState | None = None) -> Job:
    """End a job as `failed`; its original is moved if the rule says so."""
    return _end_job(context, job, State.FAILED, problem, charge)


def mark_rejected(context: StepContext, job: Job, problem: Problem) -> Job:
    """End a job as `rejected`: the file is at fault and was never submitted."""
    return _end_job(context, job, State.REJECTED, problem, None)


def mark_in_doubt(context: StepContext, job: Job, code: ErrorCode, message: str, *, paid: bool = False) -> Job:
    """Hold a job or queue it again, as `charging` says, that PicWish may have charged for without a result.

    at-most-once holds it until a person uses `retry`; at-least-once queues it again, up to `max_attempts`.
    ``paid``: whether the credits are known to be spent; otherwise they are counted as in doubt.
    """
    charge = ChargeState.SPENT if paid else ChargeState.DOUBTFUL
    if context.config.charging is Charging.AT_LEAST_ONCE and job.attempts < context.config.max_attempts:
        _log.warning("job.doubt_queued_again", job=job.id, rule=job.rule, path=job.source, reason=message)
        job = context.journal.transition(
            job,
            State.QUEUED,
            f"{message}; queued again, because of charging: at-least-once",
            charge=charge,
            not_before=context.clock.now() + context.backoff_delay(job.attempts),
            task_id=None,
        )
        context.wakeups.submit.notify()
        return job
    price = PRICES[job.type]
    effect = (
        f"asks PicWish for the old task first and may cost {price} credits again"
        if job.task_id
        else f"costs {price} credits again"
    )
    message = f"{message}. `picwish-watchd retry {job.id}` {effect}"
    problem = Problem(code, message)
    _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=message, credits=price)
    return context.journal.transition(job, State.HELD, message, charge=charge, problem=problem, not_before=None)


def handle_task_failure(context: StepContext, job: Job, outcome: TaskFailed) -> Job:
    """Handle a task that PicWish gave up: queue the job again after a pause if that may help, up to `max_attempts`."""
    message = outcome.problem.message
    if job.paid:
        text = f"PicWish had finished this task and charged for it; now it says: {message}"
        return mark_in_doubt(context, job, ErrorCode.RESULT_EXPIRED, text, paid=True)
    answer = outcome.task_info.to_json()
    if not outcome.is_retryable:
        context.journal.update(job, answer=answer)
        return mark_failed(context, job, outcome.problem, charge=ChargeState.RELEASED)
    if job.attempts >= context.config.max_attempts:
        context.journal.update(job, answer=answer)
        text = f"PicWish failed {pluralize(job.attempts, 'time')}; its last message: {message}"
        return mark_failed(context, job, Problem(ErrorCode.ATTEMPTS_EXHAUSTED, text), charge=ChargeState.RELEASED)
    pause = context.backoff_delay(job.attempts - 1)
    _log.warning("task.failed", job=job.id, rule=job.rule, path=job.source, reason=message, again_in=pause)
    job = context.journal.transition(
        job,
        State.QUEUED,
        f"{message} Tried again in {pause:.0f} s (try {job.attempts + 1} of {context.config.max_attempts}).",
        charge=ChargeState.RELEASED,
        answer=answer,
        not_before=context.clock.now() + pause,
    )
    context.wakeups.submit.notify()
    return job


def _end_job(context: StepContext, job: Job, state: State, problem: Problem, charge: ChargeState | None) -> Job:
    _log.warning(f"job.{state}", job=job.id, rule=job.rule, path=job.source, code=problem.code, reason=problem.message)
    staying = OriginalStatus.WAITING if context.rule_of(job).on_failure is OnFailure.MOVE else OriginalStatus.PRESENT
    job = context.journal.transition(
        job,
        state,
        problem.message,
        charge=charge,
        problem=problem,
        completed_at=context.clock.now(),
        not_before=None,
        original=_ORIGINAL_BY_ERROR.get(problem.code, staying),
    )
    context.wakeups.dispose.notify()
    return job
