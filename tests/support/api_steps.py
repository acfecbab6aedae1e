"""The steps of the pipeline, wired to each other by the daemon's own assembly."""

from picwish_watchd.daemon.assembly import Steps, build_steps
from picwish_watchd.job import Job
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.scheduling.rate_limiter import RateLimiter


def ignore_source(_job: Job) -> None:
    """Rescan nothing: there are no inboxes."""


def make_prepare(context: StepContext) -> Prepare:
    """Return a `Prepare` whose changed sources nobody rescans."""
    return Prepare(context, rescan_source=ignore_source)


def make_api_steps(context: StepContext, gate: Gate, rate_limiter: RateLimiter, *, memory_bytes: int = 10**6) -> Steps:
    """Return the steps with ``memory_bytes`` for images on their way to PicWish."""
    return build_steps(context, gate, rate_limiter, rescan_source=ignore_source, upload_memory=memory_bytes)
