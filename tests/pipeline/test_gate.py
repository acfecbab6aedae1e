"""The gate opens when every reason for closing it is disproved; a job that is gone never keeps it closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.simulator import Fault, NeverEnd, Reply
from tests.support.harness import KEY, Harness, wait_until
from tests.support.step_context import open_step_context


def blocked_reason(gate: Gate) -> CloseReason | None:
    return None if gate.closure is None else gate.closure.code


@pytest.fixture
async def gate(harness: Harness) -> AsyncIterator[Gate]:
    """Yield a gate with a real journal and a real client."""
    async with open_step_context(harness.load_config()) as context:
        rate_limiter = RateLimiter(context.config.api.qps, context.clock)
        permits = asyncio.create_task(rate_limiter.run())
        yield Gate(context, rate_limiter=rate_limiter)
        permits.cancel()


def count_queries(harness: Harness) -> int:
    return sum(request.operation == "query" for request in harness.simulator.requests)


@asynccontextmanager
async def running_gate(gate: Gate) -> AsyncIterator[None]:
    running = asyncio.create_task(gate.run())
    try:
        yield
    finally:
        running.cancel()


async def test_a_later_reason_does_not_replace_an_earlier_one(gate: Gate) -> None:
    gate.close(CloseReason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    gate.close(CloseReason.API_DOWN, "PicWish does not answer")
    gate.clear_reasons(CloseReason.API_DOWN, CloseReason.UNAUTHORIZED)
    assert (blocked_reason(gate), gate.can_submit()) == (CloseReason.RESULTS_UNREACHABLE, False)
    gate.clear_reasons(CloseReason.RESULTS_UNREACHABLE, CloseReason.SPOOL)
    assert (blocked_reason(gate), gate.can_submit()) == (None, True)


async def test_a_reload_while_one_image_tries_is_followed_by_a_probe(harness: Harness, gate: Gate) -> None:
    gate.close(CloseReason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    await gate.probe()
    assert gate.can_submit()
    gate.begin_attempt(1)
    before = count_queries(harness)
    async with running_gate(gate):
        await wait_until(lambda: not gate.can_submit())
        harness.simulator.script.add(Fault("query", Reply(401)))
        gate.probe_now()
        await wait_until(lambda: blocked_reason(gate) is CloseReason.UNAUTHORIZED)
    assert count_queries(harness) == before + 1
    assert gate.is_admitted(1), "a request in progress is not cancelled"


async def test_a_trial_that_was_never_sent_is_followed_by_a_probe(harness: Harness, gate: Gate) -> None:
    gate.close(CloseReason.API_DOWN, "not accepted: 503", trial=True)
    await gate.probe()
    assert gate.can_submit()
    gate.begin_attempt(1)
    gate.end_attempt(1)
    assert not gate.can_submit(), "it is unknown by now whether PicWish responds"
    before = count_queries(harness)
    async with running_gate(gate):
        await wait_until(gate.can_submit, 0.9)
    assert count_queries(harness) == before + 1


async def test_an_unused_trial_ends_once_picwish_does_not_answer(harness: Harness, gate: Gate) -> None:
    gate.close(CloseReason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    await gate.probe()
    assert gate.can_submit()
    harness.simulator.script.add(Fault("query", Reply(500)))
    await gate.probe()
    assert (blocked_reason(gate), gate.can_submit()) == (CloseReason.API_DOWN, False)
    await gate.probe()
    assert gate.can_submit()


async def test_another_jobs_outcome_does_not_end_a_trial_in_flight(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", NeverEnd()))
    harness.drop_file("a.jpg", seed=1)
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.PENDING)) == 1)
    gate, trial = daemon.services.gate, harness.job("a.jpg").id
    gate.close(CloseReason.RESULTS_UNREACHABLE, "results cannot be downloaded", trial=True)
    gate.begin_attempt(trial)
    gate.end_attempt(trial)
    gate.close(CloseReason.RESULTS_UNREACHABLE, "another one could not be downloaded", trial=True, job_id=trial + 1)
    assert gate.is_admitted(trial)
    assert not gate.can_submit()
    gate.close(CloseReason.RESULTS_UNREACHABLE, "its own could not", trial=True, job_id=trial)
    assert not gate.is_admitted(trial)
    daemon.stop()
    assert await running == 0


async def test_a_trial_that_breaks_down_lets_another_image_try(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", Reply(503)))
    harness.drop_file("a.jpg", seed=1)
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.count_creates() == 1)
    # Put a folder where the spool's file would be.
    (daemon.services.context.spool.folder / "1.create.part").mkdir()
    harness.drop_file("b.jpg", seed=2)
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 1)
    (daemon.services.context.spool.folder / "1.create.part").rmdir()
    daemon.stop()
    assert await running == 0
    problem = harness.job("a.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.INTERNAL_ERROR
