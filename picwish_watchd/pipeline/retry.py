"""``retry``: put a job back to the furthest state that the facts prove; only jobs that become `queued` pay again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from picwish_watchd.job import ErrorCode, Job, OriginalStatus, State
from picwish_watchd.journal.rows import JobChanges
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.pricing import PRICES


class RetryAction(StrEnum):
    """How a job goes on after `retry`."""

    #: Its paid result is in the spool: it costs nothing.
    DELIVER = "deliver"
    #: PicWish is asked for the old task first; it is submitted and paid again only if that is gone.
    QUERY = "ask"
    #: It is submitted and paid.
    SUBMIT = "submit"
    #: It is a copy that was held only with its first: it continues with that one, at no cost of its own.
    WAIT = "wait"
    #: It was never submitted: the file is validated again, and submitted if it is valid now.
    REVALIDATE = "look"


@dataclass(frozen=True, slots=True)
class RetryResult:
    """A job that was put back, how it continues, and the credits that it may cost from here."""

    job: Job
    action: RetryAction
    credits: int


def retry_plan(job: Job, spool: Spool) -> RetryAction | None:
    """Return how a job can be put back, or None where there is nothing to retry."""
    if job.state is State.REJECTED:
        return RetryAction.REVALIDATE
    if job.state not in (State.FAILED, State.HELD):
        return None
    if job.result is not None and spool.result_path(job.id).exists():
        return RetryAction.DELIVER
    if job.task_id is not None and job.state is State.HELD:
        return RetryAction.QUERY
    return RetryAction.SUBMIT


def retry_jobs(
    journal: Journal, spool: Spool, jobs: Sequence[Job], prices: Mapping[str, int] = MappingProxyType({})
) -> list[RetryResult]:
    """Put jobs back and return one result for each; jobs that cannot be retried are left out.

    The copies that were held only with a job continue with it, and are in the answer as well. ``prices`` are credits
    by rule: a rule's type may have changed since its jobs were made.
    """
    results: list[RetryResult] = []
    for job in jobs:
        action = retry_plan(job, spool)
        current = journal.get(job.id)
        # A copy may have been put back with its first meanwhile.
        if action is None or current is None or current.state is not job.state:
            continue
        copies = journal.held_duplicates(job) if job.state is State.HELD else []
        price = 0 if action is RetryAction.DELIVER else prices.get(job.rule, PRICES[job.type])
        results.append(RetryResult(_restore_job(journal, job, action), action, price))
        if not _is_copy(job):
            results += [
                RetryResult(_restore_job(journal, copy, RetryAction.WAIT), RetryAction.WAIT, 0) for copy in copies
            ]
    return results


def _is_copy(job: Job) -> bool:
    return job.problem is not None and job.problem.code is ErrorCode.DUPLICATE_OF_HELD


def _restore_job(journal: Journal, job: Job, action: RetryAction) -> Job:
    state, message = _TRANSITIONS[action]
    changes = JobChanges(problem=None, note=None, not_before=None, completed_at=None, attempts=0, refusals=0)
    changes["pay_again"] = action is RetryAction.QUERY or (action is RetryAction.SUBMIT and _is_copy(job))
    if state is State.QUEUED:
        changes |= JobChanges(task_id=None, result=None, output=None)
    if action is RetryAction.REVALIDATE:
        changes |= JobChanges(sha256=None, format=None)
        if job.original in (OriginalStatus.GONE, OriginalStatus.REPLACED):
            # The job is about the file that is there now.
            changes["original"] = OriginalStatus.PRESENT
    return journal.transition(job, state, message, **changes)


#: The state that each action puts a job into, and the line in its history.
_TRANSITIONS = {
    RetryAction.DELIVER: (State.DELIVERING, "retry: its result is in the spool and is delivered at no cost"),
    RetryAction.QUERY: (
        State.PENDING,
        "retry: PicWish is asked for the old task first; it is paid again only if that is gone",
    ),
    RetryAction.SUBMIT: (State.QUEUED, "retry: submitted again, and paid again"),
    RetryAction.WAIT: (State.QUEUED, "retry of the first job of this image: this copy waits for it"),
    RetryAction.REVALIDATE: (State.QUEUED, "retry: the file is validated again"),
}
