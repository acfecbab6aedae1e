"""The steps that speak with PicWish, wired to each other as the daemon does it."""

from dataclasses import dataclass

from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.runtime.memory_budget import MemoryBudget
from picwish_watchd.scheduling.download_slots import DownloadSlots
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.scheduling.task_tracker import TaskTracker


@dataclass(frozen=True)
class ApiSteps:
    """The two steps that send requests to PicWish, and the tasks that they share."""

    submit: Submit
    collect: Collect
    tracker: TaskTracker


def make_prepare(context: StepContext) -> Prepare:
    """Return a `Prepare` whose changed sources nobody rescans."""
    return Prepare(context, rescan_source=lambda _job: None)


def make_api_steps(
    context: StepContext, gate: Gate, rate_limiter: RateLimiter, *, memory_bytes: int = 10**6
) -> ApiSteps:
    """Return the steps with ``memory_bytes`` for images on their way to PicWish."""
    download_slots = DownloadSlots(context.clock)
    tracker = TaskTracker(
        context.journal,
        context.clock,
        lambda: context.config,
        download_slots=download_slots,
        wakeup=context.wakeups.collect,
    )
    collect = Collect(context, gate=gate, rate_limiter=rate_limiter, tracker=tracker, download_slots=download_slots)
    submit = Submit(
        context,
        gate=gate,
        rate_limiter=rate_limiter,
        memory_budget=MemoryBudget(memory_bytes),
        prepare=make_prepare(context),
        tracker=tracker,
        handle_result=collect.handle_task_success,
    )
    return ApiSteps(submit, collect, tracker)
