"""``retry``: a job that ended badly goes back to the furthest state that the facts prove; only `queued` pays again."""

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

    #: what was paid for lies in the spool: it costs nothing
    DELIVER = "deliver"
    #: PicWish is asked for the old task first; only if that is gone it is submitted and paid again
    QUERY = "ask"
    #: submitted, and paid
    SUBMIT = "submit"
    #: a copy, held only with its first: it goes on with that one, at no cost of its own
    WAIT = "wait"
    #: never submitted so far: the file is judged again, and submitted if it is well now
    REVALIDATE = "look"


@dataclass(frozen=True, slots=True)
class RetryResult:
    """A job that goes on, and the credits that it may cost from here."""

    job: Job
    action: RetryAction
    credits: int


def retry_plan(job: Job, spool: Spool) -> RetryAction | None:
    """The way back for a job, or None where there is nothing to retry."""
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
    """Puts jobs back; those that cannot be retried are left out of the answer.

    ``prices``: credits, by rule: the type of a rule may be another one by now than that of its jobs.
    """
    done: list[RetryResult] = []
    for job in jobs:
        way = retry_plan(job, spool)
        current = journal.get(job.id)
        # released with its first, meanwhile
        if way is None or current is None or current.state is not job.state:
            continue
        copies = journal.held_duplicates(job) if job.state is State.HELD else []
        price = 0 if way is RetryAction.DELIVER else prices.get(job.rule, PRICES[job.type])
        done.append(RetryResult(_restore_job(journal, job, way), way, price))
        if not _is_copy(job):
            done += [RetryResult(_restore_job(journal, copy, RetryAction.WAIT), RetryAction.WAIT, 0) for copy in copies]
    return done


def _is_copy(job: Job) -> bool:
    return job.problem is not None and job.problem.code is ErrorCode.DUPLICATE_OF_HELD


def _restore_job(journal: Journal, job: Job, way: RetryAction) -> Job:
    to, words = _TRANSITIONS[way]
    fresh = JobChanges(problem=None, note=None, not_before=None, completed_at=None, attempts=0, refusals=0)
    fresh["pay_again"] = way is RetryAction.QUERY or (way is RetryAction.SUBMIT and _is_copy(job))
    if to is State.QUEUED:
        fresh |= JobChanges(task_id=None, result=None, output=None)
    if way is RetryAction.REVALIDATE:
        fresh |= JobChanges(sha256=None, format=None)
        if job.original in (OriginalStatus.GONE, OriginalStatus.REPLACED):
            # what lies there now is what this job is about
            fresh["original"] = OriginalStatus.PRESENT
    return journal.transition(job, to, words, **fresh)


_TRANSITIONS = {
    RetryAction.DELIVER: (State.DELIVERING, "retry: its result lies in the spool and is delivered at no cost"),
    RetryAction.QUERY: (
        State.PENDING,
        "retry: PicWish is asked for the old task first, and paid again only if that is gone",
    ),
    RetryAction.SUBMIT: (State.QUEUED, "retry: submitted again, and paid again"),
    RetryAction.WAIT: (State.QUEUED, "retry of the first of this picture: this copy waits for it"),
    RetryAction.REVALIDATE: (State.QUEUED, "retry: the file is looked at again"),
}
