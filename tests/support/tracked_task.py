"""A `Collect` step with a real journal, a real client and a fake clock, and nothing running beside it."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from picwish_watchd.job import Job, NewJob, Stamp, State
from picwish_watchd.picwish import Accepted
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.scheduling.rate_limiter import RateLimiter, RequestKind
from tests.support.api_steps import make_api_steps
from tests.support.fake_clock import FakeClock
from tests.support.harness import Harness
from tests.support.picwish_client import CreateHooks, create_task
from tests.support.sample_images import make_image
from tests.support.step_context import open_step_context

_seeds = itertools.count()


class TaskTracking:
    """The parts of one run of the program that follow tasks; `track_tasks` creates it."""

    def __init__(self, harness: Harness, context: StepContext, clock: FakeClock) -> None:
        self.clock = clock
        self.rate_limiter = RateLimiter(context.config.api.qps, clock)
        gate = Gate(context, rate_limiter=self.rate_limiter)
        steps = make_api_steps(context, gate, self.rate_limiter)
        self.collect, self.tracker = steps.collect, steps.tracker
        self._harness = harness
        self._context = context

    async def create_pending_task(self, name: str, *, rule: str = "scans") -> Job:
        """Submit an image and return its pending job."""
        journal, data = self._context.journal, make_image(seed=next(_seeds))
        new = NewJob(rule, Path("/in") / name, Path(name), Stamp(1, 1, 1), sha256=f"{rule} {name}", format="jpeg")
        outcome = await create_task(self._context.client, self._harness.root, witness=CreateHooks(), image=data)
        assert isinstance(outcome, Accepted)
        job = journal.get(journal.add_jobs([new])[0])
        assert job is not None
        job = journal.transition(job, State.SUBMITTING, "intent", reserve=5, submitted_at=self.clock.now())
        return journal.transition(job, State.PENDING, "taken", task_id=outcome.task_id)

    async def query_next(self) -> bool:
        """Query one task and handle the response if a task is due; return whether one was."""
        job = self.tracker.choose_due_task()
        if job is not None:
            await self.collect.query_task(job, await self.rate_limiter.acquire(RequestKind.QUERY))
        return job is not None

    async def advance(self, seconds: float, *, step: float = 5.0) -> None:
        """Advance the clock in steps and query every task that is due."""
        until = self.clock.monotonic() + seconds
        while self.clock.monotonic() < until:
            self.clock.advance(step)
            while await self.query_next():
                pass

    def reload(self, job: Job) -> Job:
        """Return the current job of this id."""
        now = self._context.journal.get(job.id)
        assert now is not None
        return now


@asynccontextmanager
async def track_tasks(harness: Harness) -> AsyncIterator[TaskTracking]:
    """Run a program's task tracking during the block, from its start."""
    clock = FakeClock()
    async with open_step_context(harness.load_config(), clock) as context:
        tracking = TaskTracking(harness, context, clock)
        limiter = asyncio.create_task(tracking.rate_limiter.run())
        yield tracking
        limiter.cancel()
