"""A `Submit` step wired to its neighbours as the daemon does it, with a small memory budget."""

from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.runtime.memory_budget import MemoryBudget
from picwish_watchd.scheduling.rate_limiter import RateLimiter


def make_prepare(context: StepContext) -> Prepare:
    """Return a `Prepare` whose changed sources nobody rescans."""
    return Prepare(context, rescan_source=lambda _job: None)


def make_submit(
    context: StepContext, gate: Gate, rate_limiter: RateLimiter, collect: Collect, *, memory_bytes: int = 10**6
) -> Submit:
    """Return a `Submit` that hands its tasks to ``collect``."""
    return Submit(
        context,
        gate=gate,
        rate_limiter=rate_limiter,
        memory_budget=MemoryBudget(memory_bytes),
        prepare=make_prepare(context),
        tracker=collect,
        handle_result=collect.handle_task_success,
    )
