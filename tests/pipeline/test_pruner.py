"""When the daemon prunes its journal: after the start, while it is idle, once a day; and how it handles errors."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.config.loader import load_config
from picwish_watchd.daemon.pruner import JournalPruner
from picwish_watchd.job import State
from picwish_watchd.pipeline.context import StepContext
from tests.support.fake_clock import FakeClock
from tests.support.step_context import open_step_context
from tests.unit.journal.job_factory import add_job_in_state
from tests.unit.journal.test_prune import DAY, add_done_job

HOUR = 3600.0


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[StepContext]:
    """Yield a context with one old job in a real journal and a fake clock."""
    clock = FakeClock()
    file = tmp_path / "watchd.yaml"
    file.write_text("journal: state/journal.db\nrules: [{name: scans, inbox: in, outbox: out}]\n")
    async with open_step_context(load_config(file, {}), clock) as context:
        add_done_job(context.journal)
        clock.advance(401 * DAY)
        yield context


@asynccontextmanager
async def running_pruner(context: StepContext) -> AsyncIterator[None]:
    """Run the pruner during the block."""
    running = asyncio.create_task(JournalPruner(context.journal, context.clock, lambda: context.config).run())
    try:
        yield
    finally:
        running.cancel()


def is_pruned(context: StepContext) -> bool:
    return len(context.journal.history(1)) == 1


async def test_pruning_starts_a_minute_after_startup(context: StepContext) -> None:
    async with running_pruner(context):
        await context.clock.sleep(59)
        assert not is_pruned(context)
        await context.clock.sleep(2)
        assert is_pruned(context)


async def test_newly_old_histories_are_pruned_the_next_day(context: StepContext) -> None:
    async with running_pruner(context):
        await context.clock.sleep(61)
        job = add_done_job(context.journal, "b.jpg")
        context.config = replace(context.config, keep=32 * DAY)
        await context.clock.sleep(31.5 * DAY)
        assert len(context.journal.history(job.id)) == 6
        await context.clock.sleep(2 * DAY)
        assert len(context.journal.history(job.id)) == 1


async def test_pruning_waits_for_images_in_flight_for_an_hour_at_most(context: StepContext) -> None:
    add_job_in_state(context.journal, State.PENDING, "busy.jpg")
    async with running_pruner(context):
        await context.clock.sleep(HOUR)
        assert not is_pruned(context)
        await context.clock.sleep(120)
        assert is_pruned(context)


async def test_pruning_resumes_as_soon_as_no_image_is_in_flight(context: StepContext) -> None:
    job = add_job_in_state(context.journal, State.PENDING, "busy.jpg")
    async with running_pruner(context):
        await context.clock.sleep(600)
        context.journal.transition(job, State.FAILED, "it ended")
        await context.clock.sleep(11)
        assert is_pruned(context)


async def test_histories_kept_forever_are_never_pruned(context: StepContext) -> None:
    context.config = replace(context.config, keep=None)
    async with running_pruner(context):
        await context.clock.sleep(3 * DAY)
    assert not is_pruned(context)


async def test_a_locked_journal_is_pruned_another_day(
    context: StepContext,
) -> None:
    context.journal._connection.execute("PRAGMA busy_timeout = 10")
    async with running_pruner(context):
        with closing(sqlite3.connect(context.journal.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await context.clock.sleep(61)
            assert not is_pruned(context)
        await context.clock.sleep(DAY)
        assert is_pruned(context)
