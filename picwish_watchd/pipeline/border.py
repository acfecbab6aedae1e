"""The border of one job: a bad job is parked, and the daemon goes on with the others."""

from collections.abc import Awaitable

import structlog

from picwish_watchd.errors import WatchdError
from picwish_watchd.job import LEGAL_MOVES, ErrorCode, Problem, State
from picwish_watchd.journal import Charge, Journal

_log = structlog.get_logger()


async def guarded(journal: Journal, job_id: int, work: Awaitable[None]) -> None:
    """Runs one job's work. What nobody foresaw holds the job, with the credits of an open POST in doubt.

    Errors of the journal itself are not one job's: they pass.
    """
    try:
        await work
    except WatchdError:
        raise
    except Exception as error:
        _log.exception("job.parked", job=job_id)
        job = journal.get(job_id)
        if job is None or State.HELD not in LEGAL_MOVES[job.state]:
            raise
        message = (
            f"an unexpected error in picwish-watchd stopped this job ({type(error).__name__}: {error}); "
            "please report it; `retry` tries again"
        )
        charge = Charge.DOUBTFUL if job.state is State.SUBMITTING else None
        journal.move(
            job,
            State.HELD,
            message,
            charge=charge,
            problem=Problem(ErrorCode.INTERNAL_ERROR, message),
            completed_at=None,
        )
