"""The border of one job: a bad job is parked, and the daemon goes on with the others."""

from collections.abc import Awaitable

import structlog

from picwish_watchd.errors import JournalTemporaryError, WatchdError
from picwish_watchd.job import ALLOWED_TRANSITIONS, ErrorCode, Problem, State
from picwish_watchd.journal.writer import ChargeState
from picwish_watchd.pipeline.context import StepContext

_log = structlog.get_logger()

# seconds
_RETRY_DELAY = 1.0


async def job_error_boundary(context: StepContext, job_id: int, work: Awaitable[None]) -> None:
    """Runs one job's work. What nobody foresaw holds the job, with the credits of an open POST in doubt.

    Errors of the journal itself are not one job's: they pass, unless they will pass by themselves; then the job is
    where it was, and its step comes back to it.
    """
    journal = context.journal
    try:
        await work
    except JournalTemporaryError as error:
        context.journal_outage.report(error, job=job_id)
        await context.clock.sleep(_RETRY_DELAY)
    except WatchdError:
        raise
    except Exception as error:  # noqa: BLE001 - one job's border: a bug holds this job, and the others go on
        _log.exception("job.parked", job=job_id)
        job = journal.get(job_id)
        if job is None or State.HELD not in ALLOWED_TRANSITIONS[job.state]:
            # it has ended: nothing is left to park
            return
        message = (
            f"an unexpected error in picwish-watchd stopped this job ({type(error).__name__}: {error}); "
            "please report it; `retry` tries again"
        )
        charge = ChargeState.DOUBTFUL if job.state is State.SUBMITTING else None
        journal.transition(
            job,
            State.HELD,
            message,
            charge=charge,
            problem=Problem(ErrorCode.INTERNAL_ERROR, message),
            completed_at=None,
        )
