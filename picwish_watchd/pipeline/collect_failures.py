"""What follows when a query or a download of `Collect` brings no result."""

from contextlib import suppress

import structlog

from picwish_watchd.job import ErrorCode, Job, Problem, State
from picwish_watchd.journal.writer import ChargeState
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.transitions import mark_in_doubt
from picwish_watchd.scheduling.poll_queue import TrackedTask
from picwish_watchd.scheduling.task_tracker import TaskTracker

_log = structlog.get_logger()

# Unusable results of one task before a paid result counts as lost.
_MAX_BAD_RESULTS = 3
# Seconds. A paid result cannot wait longer than this, whatever Retry-After says.
_RETRY_AFTER_MAX = 60.0
# Seconds.
_BACKOFF_MAX = 30.0


class CollectFailures:
    """The journal entries, pauses and gate closures that follow from failures."""

    def __init__(self, context: StepContext, gate: Gate, tracker: TaskTracker) -> None:
        self._context = context
        self._gate = gate
        self._tracker = tracker

    def back_off(self, task: TrackedTask, retry_after: float | None) -> float:
        """Postpone the next query, for longer after each failure in a row; return the pause in seconds."""
        backoff = min(_BACKOFF_MAX, self._context.backoff_delay(task.failure_count))
        pause = backoff if retry_after is None else min(retry_after, _RETRY_AFTER_MAX)
        task.failure_count += 1
        self._tracker.schedule(task, pause)
        return pause

    def return_to_pending(self, job: Job, message: str, pause: float) -> None:
        """Let the task of a `fetching` job be queried again after ``pause`` seconds."""
        _log.warning("result.asked_again", job=job.id, rule=job.rule, path=job.source, reason=message)
        not_before = self._context.clock.now() + pause
        self._context.journal.transition(job, State.PENDING, message, not_before=not_before)
        self._context.wakeups.collect.notify()

    def handle_unusable_result(self, job: Job, code: ErrorCode, reason: str) -> None:
        """Query a result afresh that cannot be downloaded or used, up to `_MAX_BAD_RESULTS` times."""
        task = self._tracker.get_or_track(job)
        task.bad_result_count += 1
        if task.bad_result_count < _MAX_BAD_RESULTS:
            # The tries are minutes apart, because the server of the results may be out of order for a while.
            pause = self._context.backoff_delay(2 * task.bad_result_count)
            self._tracker.schedule(task, pause)
            self.return_to_pending(job, f"{reason}; PicWish is queried again", pause)
        elif code is ErrorCode.RESULT_INVALID:
            text = (
                f"{reason} ({task.bad_result_count} tries). The result is paid; "
                f"`picwish-watchd retry {job.id}` queries PicWish for it again"
            )
            _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=text)
            self._context.journal.transition(job, State.HELD, text, problem=Problem(code, text))
            self._tracker.drop(job.id)
        else:
            self.handle_lost_task(job, code, f"{reason} ({task.bad_result_count} tries)")

    def handle_spool_failure(self, job: Job, task: TrackedTask, reason: str) -> None:
        """Close the gate because the spool did not accept the result, which stays at PicWish for up to an hour."""
        pause = self.back_off(task, None)
        message = f"the result could not be stored in the spool ({reason}); it is downloaded again"
        _log.error("spool.failed", job=job.id, rule=job.rule, path=job.source, reason=reason)
        text = f"results cannot be stored in {self._context.spool.folder}: {reason}"
        self._gate.close(CloseReason.SPOOL, text, trial=True, job_id=job.id)
        with suppress(OSError):
            self._context.spool.ensure_folder()
        if job.state is State.FETCHING:
            self.return_to_pending(job, message, pause)

    def handle_lost_task(self, job: Job, code: ErrorCode, message: str) -> None:
        """Give up a task that will bring no result: submit anew if `retry` permitted that, else mark it in doubt."""
        self._tracker.drop(job.id)
        if job.pay_again:
            text = f"{message}; submitted anew, as permitted by `retry`"
            charge = ChargeState.SPENT if job.paid else ChargeState.DOUBTFUL
            self._context.journal.transition(job, State.QUEUED, text, charge=charge, task_id=None, pay_again=False)
            self._context.wakeups.submit.notify()
        else:
            mark_in_doubt(self._context, job, code, message, paid=job.paid)
