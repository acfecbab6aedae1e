"""When a daemon tidies its journal: after the start, in quiet, once a day; and what it does where it cannot."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from picwish_watchd.config.loader import load
from picwish_watchd.daemon.pruner import Housekeeping
from picwish_watchd.job import State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.context import Context
from tests.support.clock import FakeClock
from tests.support.house import KEY
from tests.unit.journal.journalkit import job_in
from tests.unit.journal.test_prune import DAY, finished

HOUR = 3600.0


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    """A real journal with one old job in it, and a clock that nobody waits for."""
    clock = FakeClock()
    file = tmp_path / "watchd.yaml"
    file.write_text("journal: state/journal.db\nrules: [{name: scans, inbox: in, outbox: out}]\n")
    config = load(file, {})
    journal = Journal.open_for_writing(config.journal, clock)
    finished(journal)
    clock.advance(401 * DAY)
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        yield Context(config, journal, Spool(tmp_path / "spool"), clock, client)
    journal.close()


@asynccontextmanager
async def at_work(context: Context) -> AsyncIterator[None]:
    """Its loop runs, behind the clock's other sleepers."""
    running = asyncio.create_task(Housekeeping(context).run())
    try:
        yield
    finally:
        running.cancel()


def pruned(context: Context) -> bool:
    return len(context.journal.history(1)) == 1


async def test_nothing_is_forgotten_in_the_first_minute_and_all_that_is_old_after_it(context: Context) -> None:
    async with at_work(context):
        await context.clock.sleep(59)
        assert not pruned(context)
        await context.clock.sleep(2)
        assert pruned(context)


async def test_what_has_grown_old_meanwhile_goes_the_next_day(context: Context) -> None:
    async with at_work(context):
        await context.clock.sleep(61)
        job = finished(context.journal, "b.jpg")
        context.config = replace(context.config, keep=32 * DAY)
        await context.clock.sleep(31.5 * DAY)
        assert len(context.journal.history(job.id)) == 6
        await context.clock.sleep(2 * DAY)
        assert len(context.journal.history(job.id)) == 1


async def test_while_images_are_on_their_way_it_waits_but_for_an_hour(context: Context) -> None:
    job_in(context.journal, State.PENDING, "busy.jpg")
    async with at_work(context):
        await context.clock.sleep(HOUR)
        assert not pruned(context)
        await context.clock.sleep(120)
        assert pruned(context)


async def test_as_soon_as_it_is_quiet_it_goes_on(context: Context) -> None:
    job = job_in(context.journal, State.PENDING, "busy.jpg")
    async with at_work(context):
        await context.clock.sleep(600)
        context.journal.move(job, State.FAILED, "it ended")
        await context.clock.sleep(11)
        assert pruned(context)


async def test_forever_is_forever(context: Context) -> None:
    context.config = replace(context.config, keep=None)
    async with at_work(context):
        await context.clock.sleep(3 * DAY)
    assert not pruned(context)


async def test_a_journal_that_another_program_keeps_locked_is_pruned_another_day(
    context: Context,
) -> None:
    context.journal._connection.execute("PRAGMA busy_timeout = 10")
    async with at_work(context):
        with closing(sqlite3.connect(context.journal.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await context.clock.sleep(61)
            assert not pruned(context)
        await context.clock.sleep(DAY)
        assert pruned(context)
