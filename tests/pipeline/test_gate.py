"""The gate opens when all that closed it is proved wrong, and never stays closed over a job that is no more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from picwish_watchd.clock import Clock
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import ErrorCode, State
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.gate import Gate, Reason
from picwish_watchd.scheduling.rate_limiter import Pacer
from picwish_watchd.simulator import Fault, NeverEnd, Reply
from tests.support.house import KEY, House, until


def reason(gate: Gate) -> Reason | None:
    return None if gate.blocked is None else gate.blocked.code


@pytest.fixture
async def gate(house: House) -> AsyncIterator[Gate]:
    """A gate with a real journal and a real client, and nothing else."""
    clock, config = Clock(), house.config()
    journal = Journal.open_for_writing(config.journal, clock)
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        context = Context(config, journal, Spool(house.root / "spool"), clock, client)
        pacer = Pacer(config.api.qps, clock)
        pacing = asyncio.create_task(pacer.run())
        yield Gate(context, pacer=pacer)
        pacing.cancel()
    journal.close()


def queries(house: House) -> int:
    return sum(seen.operation == "query" for seen in house.simulator.requests)


@asynccontextmanager
async def probing(gate: Gate) -> AsyncIterator[None]:
    running = asyncio.create_task(gate.run())
    try:
        yield
    finally:
        running.cancel()


async def test_a_reason_that_came_later_does_not_make_an_earlier_one_forgotten(gate: Gate) -> None:
    gate.close(Reason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    gate.close(Reason.API_DOWN, "PicWish does not answer")
    gate.succeeded(Reason.API_DOWN, Reason.UNAUTHORIZED)
    assert (reason(gate), gate.may_submit()) == (Reason.RESULTS_UNREACHABLE, False)
    gate.succeeded(Reason.RESULTS_UNREACHABLE, Reason.SPOOL)
    assert (reason(gate), gate.may_submit()) == (None, True)


async def test_a_reload_while_one_image_tries_is_followed_by_a_probe(house: House, gate: Gate) -> None:
    gate.close(Reason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    await gate.probe()
    assert gate.may_submit()
    gate.begins(1)
    before = queries(house)
    async with probing(gate):
        await until(lambda: not gate.may_submit())
        house.simulator.script.add(Fault("query", Reply(401)))
        gate.look()
        await until(lambda: reason(gate) is Reason.UNAUTHORIZED)
    assert queries(house) == before + 1
    assert gate.admits(1), "what has begun is not called back"


async def test_a_trial_that_never_left_is_followed_by_a_probe_before_the_next_one(house: House, gate: Gate) -> None:
    gate.close(Reason.API_DOWN, "not accepted: 503", trial=True)
    await gate.probe()
    assert gate.may_submit()
    gate.begins(1)
    gate.ends(1)
    assert not gate.may_submit(), "nobody knows by now whether PicWish answers"
    before = queries(house)
    async with probing(gate):
        await until(gate.may_submit, 0.9)
    assert queries(house) == before + 1


async def test_a_trial_that_nobody_takes_is_over_once_picwish_does_not_answer(house: House, gate: Gate) -> None:
    gate.close(Reason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    await gate.probe()
    assert gate.may_submit()
    house.simulator.script.add(Fault("query", Reply(500)))
    await gate.probe()
    assert (reason(gate), gate.may_submit()) == (Reason.API_DOWN, False)
    await gate.probe()
    assert gate.may_submit()


async def test_what_another_job_finds_out_does_not_end_the_trial_that_is_at_picwish(house: House) -> None:
    house.simulator.script.add(Fault("create", NeverEnd()))
    house.drop("a.jpg", seed=1)
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: house.journal.exists() and len(house.jobs(State.PENDING)) == 1)
    gate, trial = daemon.gate, house.job("a.jpg").id
    gate.close(Reason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    gate.begins(trial)
    gate.ends(trial)
    gate.close(Reason.RESULTS_UNREACHABLE, "another one could not be downloaded", trial=True, by=trial + 1)
    assert gate.admits(trial)
    assert not gate.may_submit()
    gate.close(Reason.RESULTS_UNREACHABLE, "its own could not", trial=True, by=trial)
    assert not gate.admits(trial)
    daemon.stop()
    assert await running == 0


async def test_a_trial_that_breaks_down_lets_another_image_try(house: House) -> None:
    house.simulator.script.add(Fault("create", Reply(503)))
    house.drop("a.jpg", seed=1)
    daemon = Daemon(house.config(), KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: house.creates() == 1)
    (daemon.context.spool.folder / "1.create.part").mkdir()  # what should never be there
    house.drop("b.jpg", seed=2)
    await until(lambda: len(house.jobs(State.DONE)) == 1)
    (daemon.context.spool.folder / "1.create.part").rmdir()
    daemon.stop()
    assert await running == 0
    problem = house.job("a.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.INTERNAL_ERROR
