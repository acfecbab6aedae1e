"""Keep an unexpected error in one job from stopping the daemon: the job is held, and the others continue."""

from collections.abc import Awaitable

import structlog

from picwish_watchd.errors import JournalTemporaryError, WatchdError
from picwish_watchd.job import ALLOWED_TRANSITIONS, ErrorCode, Problem, State
from picwish_watchd.journal.writer import ChargeState
from picwish_watchd.pipeline.context import StepContext

_log = structlog.get_logger()

# Seconds to wait after the journal could not be written.
_RETRY_DELAY = 1.0


async def job_error_boundary(context: StepContext, job_id: int, work: Awaitable[None]) -> None:
    """Await the work of one job. An unexpected exception holds the job; credits of an open POST become doubtful.

    A temporary error of the journal is logged: the job stays in its state, and its step tries again. Any other
    `WatchdError` is raised, because it does not concern this job alone.
    """
    journal = context.journal
    try:
        await work
    except JournalTemporaryError as error:
        context.journal_outage.report(error, job=job_id)
        await context.clock.sleep(_RETRY_DELAY)
    except WatchdError:
        raise
    except Exception as error:  # noqa: BLE001 - a bug holds this job; the others continue
        _log.exception("job.parked", job=job_id)
        job = journal.get(job_id)
        if job is None or State.HELD not in ALLOWED_TRANSITIONS[job.state]:
            # The job has ended: there is nothing to hold.
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
