"""The first step of every start: bring jobs that were interrupted into a state from which they can continue."""

from contextlib import suppress

import structlog

from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.images.inspect import inspect_result
from picwish_watchd.job import ErrorCode, Result, State
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.transitions import mark_in_doubt
from picwish_watchd.wording import describe_orphaned_jobs

_log = structlog.get_logger()


def recover(context: StepContext) -> None:
    """Bring interrupted jobs and the spool into order. Nothing is sent; the steps then continue, paid work first."""
    journal = context.journal
    for job in journal.jobs(states=[State.SUBMITTING], oldest_first=True):
        message = (
            "picwish-watchd was stopped while it sent this image: PicWish may have accepted it, and cannot be asked"
        )
        mark_in_doubt(
            context, journal.update(job, attempts=job.attempts + 1), ErrorCode.SUBMIT_OUTCOME_UNKNOWN, message
        )
    for job in journal.jobs(states=[State.FETCHING], oldest_first=True):
        path = context.spool.result_path(job.id)
        result = inspect_result(path) if path.exists() else None
        # The result was saved and synced, but the journal was not updated any more.
        if isinstance(result, Result):
            journal.transition(
                job, State.DELIVERING, "its result was found in the spool", result=result, note=None, not_before=None
            )
        else:
            journal.transition(
                job, State.PENDING, "the download was interrupted; PicWish is asked again", not_before=None
            )
    journal.clear_pauses()
    keep = set()
    for job in journal.jobs(states=[State.DELIVERING], oldest_first=True):
        if context.spool.result_path(job.id).exists():
            keep.add(job.id)
            journal.update(job, not_before=None)
        else:
            _log.error("spool.lost", job=job.id, rule=job.rule, path=job.source)
            message = "its result is gone from the spool; PicWish is asked again"
            journal.transition(job, State.PENDING, message, result=None, note=None, not_before=None)
    # Paid results that could not be delivered stay: `retry` delivers them at no cost.
    keep |= {job.id for job in journal.jobs(states=[State.HELD, State.FAILED]) if job.result is not None}
    context.spool.remove_orphans(keep)
    warn_orphaned_jobs(context)


def warn_orphaned_jobs(context: StepContext) -> None:
    """Log each rule that was removed from the configuration, or renamed, while it still has unfinished images."""
    with suppress(JournalTemporaryError):
        for reason in describe_orphaned_jobs(
            [rule.name for rule in context.config.rules], context.journal.counts_by_rule()
        ):
            _log.warning("config.warning", reason=reason)
