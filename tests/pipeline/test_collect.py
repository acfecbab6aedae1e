"""Following a task and fetching its result: both are repeated until the outcome is certain."""

import asyncio
import json
import signal
from dataclasses import replace
from itertools import count

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.scheduling.rate_limiter import RequestKind
from picwish_watchd.simulator import (
    CutResponse,
    Drip,
    Fault,
    Hang,
    NeverEnd,
    RefuseConnections,
    Reply,
    Reset,
    SendRaw,
    drop_fields,
    nullify_fields,
)
from picwish_watchd.simulator import stringify_numbers as strings
from picwish_watchd.simulator.faults import Action
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.support.sample_images import make_image
from tests.support.tracked_task import track_tasks

QUERY_FAULTS: dict[str, Action] = {
    "reset": Reset(at="head"),
    "reset with the answer ready": Reset(at="work"),
    "500": Reply(500),
    "503": Reply(503, headers={"Retry-After": "0"}),
    "429": Reply(429, headers={"Retry-After": "0"}),
    "html": Reply(200, b"<html>"),
    "garbage": SendRaw(),
    "cut": CutResponse(after=60),
    "an odd 404": Reply(404),
    "numbers as strings": strings(),
    "nearly all null": nullify_fields("state", "image", "task_id"),
    "fields missing": drop_fields("created_at", "completed_at", "progress"),
    "slow": Drip(3000),
}


@pytest.mark.parametrize("fault", QUERY_FAULTS)
@pytest.mark.parametrize("return_type", [1, 2])
async def test_a_failed_query_is_repeated(harness: Harness, fault: str, return_type: int) -> None:
    harness.rule = {"return_type": return_type}
    queries = Fault("query", QUERY_FAULTS[fault], when=lambda request: not request.path.endswith("0" * 12))
    harness.simulator.script.add(queries)
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    job = harness.job("a.jpg")
    assert (job.state, job.credits, job.attempts) == (State.DONE, 5, 1)
    assert harness.count_creates() == 1


DOWNLOAD_FAULTS: dict[str, Action] = {
    "reset": Reset(at="head"),
    "500": Reply(500),
    "expired": Reply(403, b"<Error><Code>AccessDenied</Code></Error>"),
    "gone": Reply(404),
    "cut": CutResponse(after=400),
    "garbage": SendRaw(),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
async def test_a_failed_download_is_repeated_with_a_fresh_url(harness: Harness, fault: str) -> None:
    harness.simulator.script.add(Fault("download", DOWNLOAD_FAULTS[fault], times=2))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg"}
    assert harness.count_creates() == 1
    assert "pending" in harness.state_history("a.jpg")


@pytest.mark.parametrize(("charging", "state"), [("at-most-once", State.HELD), ("at-least-once", State.DONE)])
async def test_an_expired_paid_result_is_held_or_paid_again_depending_on_charging(
    harness: Harness, charging: str, state: State
) -> None:
    harness.top_level = {"charging": charging}
    harness.simulator.script.add(Fault("download", Reply(403), times=3))
    harness.may_be_paid_twice.add(harness.dropped[harness.drop_file("a.jpg")])
    await harness.run_once()
    job = harness.job("a.jpg")
    assert job.state is state
    assert job.credits == (10 if state is State.DONE else 5)
    if job.problem is not None:
        assert job.problem.code is ErrorCode.RESULT_EXPIRED


async def test_an_unknown_task_is_held(harness: Harness) -> None:
    harness.top_level = {"retry_backoff": "10ms"}
    harness.simulator.script.add(Fault("query", Reply(404), times=99))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.TASK_UNKNOWN)
    assert job.credits_in_doubt == 5


async def test_a_task_that_never_ends_is_held_after_its_time(harness: Harness) -> None:
    harness.api = {"task_timeout": "700ms"}
    harness.simulator.script.add(Fault("create", NeverEnd()))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.TASK_TIMEOUT)
    assert (job.credits, job.credits_in_doubt) == (0, 5), "the task may still end, and then it is paid"


async def test_task_timeout_holds_however_rarely_a_task_is_polled(harness: Harness) -> None:
    harness.api = {"task_timeout": "2h"}
    harness.simulator.script.add(Fault("create", NeverEnd()))
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
        start.tracker.track_new_task(job)
        await start.advance(7150)
        assert start.reload(job).state is State.PENDING
        await start.advance(60)
        assert start.reload(job).state is State.HELD
    queries = [request for request in harness.simulator.requests if request.operation == "query"]
    assert len(queries) < 60


async def test_an_outage_does_not_count_towards_task_timeout(harness: Harness) -> None:
    harness.api = {"task_timeout": "15m"}
    harness.simulator.script.add(Fault("create", NeverEnd()))
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
        start.tracker.track_new_task(job)
        await start.advance(60)
        start.clock.advance(3600)
        assert await start.query_next()
        assert start.reload(job).state is State.PENDING


async def test_a_service_that_knows_nothing_for_two_minutes_loses_no_task(harness: Harness) -> None:
    harness.top_level = {"retry_backoff": "2s"}
    harness.simulator.script.add(Fault("query", Reply(404), times=3))
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
        start.tracker.track_new_task(job)
        await wait_until(lambda: harness.simulator.credits_used == 5)
        began = start.clock.monotonic()
        while start.reload(job).state is State.PENDING:
            await start.advance(5)
        assert start.reload(job).state is State.DELIVERING
        assert start.clock.monotonic() - began > 120


async def test_only_404s_in_a_row_say_that_a_task_is_gone(harness: Harness) -> None:
    harness.api = {"task_timeout": "2h"}
    harness.simulator.script.add(Fault("create", NeverEnd()))
    numbers = count(1)
    harness.simulator.script.add(Fault("query", Reply(404), times=99, when=lambda _seen: next(numbers) % 4 != 0))
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
        start.tracker.track_new_task(job)
        while start.reload(job).state is State.PENDING and len(harness.simulator.requests) < 16:
            await start.advance(30)
        assert start.reload(job).state is State.PENDING


async def test_tasks_pending_during_suspend_are_polled_before_new_tasks(harness: Harness) -> None:
    harness.api = {"qps": 2}
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
        start.tracker.track_new_task(job)
        await wait_until(lambda: harness.simulator.credits_used == 5)
        created: list[float] = []

        async def creates() -> None:
            for _ in range(200):
                (await start.rate_limiter.acquire(RequestKind.CREATE)).mark_sent()
                created.append(start.clock.monotonic())

        start.clock.suspend(50 * 60)
        tasks = [asyncio.create_task(start.collect.run()), *(asyncio.create_task(creates()) for _ in range(3))]
        await wait_until(lambda: start.reload(job).state is not State.PENDING)
        # There are 600 creates in all; the clock advances while the responses arrive.
        assert len(created) < 300
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_an_offline_start_with_a_fast_clock_gives_up_no_task(harness: Harness) -> None:
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
    harness.simulator.break_down(refuse=True)
    async with track_tasks(harness) as start:
        start.clock.jump(3 * 3600)
        start.tracker.adopt_running_tasks()
        await start.advance(600)
        assert start.reload(job).state is State.PENDING
        await harness.simulator.repair()
        await start.advance(60)
        assert start.reload(job).state is State.DELIVERING


async def test_a_task_unreachable_long_past_its_retention_is_given_up(harness: Harness) -> None:
    async with track_tasks(harness) as start:
        job = await start.create_pending_task("a.jpg")
    harness.simulator.break_down(refuse=True)
    async with track_tasks(harness) as start:
        start.clock.jump(3 * 3600)
        start.tracker.adopt_running_tasks()
        await start.advance(1000)
        problem = start.reload(job).problem
        assert problem is not None
        assert problem.code is ErrorCode.TASK_TIMEOUT


async def test_a_high_priority_task_is_polled_before_many_overdue_ones(harness: Harness) -> None:
    harness.more_rules = [{"name": "urgent", "inbox": "urgent", "priority": 5}]
    async with track_tasks(harness) as start:
        for number in range(20):
            start.tracker.track_new_task(await start.create_pending_task(f"{number}.jpg"))
        start.clock.advance(60)
        urgent = await start.create_pending_task("u.jpg", rule="urgent")
        start.tracker.track_new_task(urgent)
        start.clock.advance(9)
        queried = []
        while (job := start.tracker.choose_due_task()) is not None:
            queried.append(job.rule)
        assert queried.index("urgent") < 2
        assert len(queried) == 21


async def test_a_large_max_pending_is_reached_only_as_results_arrive(harness: Harness) -> None:
    harness.api = {"qps": 2, "max_pending": 5000}
    async with track_tasks(harness) as start:
        assert start.tracker.pending_limit() == 64
        job = await start.create_pending_task("a.jpg")
        start.tracker.track_new_task(job)
        await wait_until(lambda: harness.simulator.credits_used == 5)
        await start.advance(20)
        assert start.reload(job).state is State.DELIVERING
        assert start.tracker.pending_limit() > 64


@pytest.mark.parametrize(("sync", "most"), [(0, 32), (1, 4)])
async def test_quick_tasks_lower_max_pending_only_with_sync(harness: Harness, sync: int, most: int) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, enhance="echo")
    for number in range(52):
        harness.drop_file(f"{number}.png", make_image("png", 16, 16, seed=number))
    assert await harness.run_once() == 0
    harness.api, harness.rule = {"qps": 2}, {"sync": sync}
    async with track_tasks(harness) as start:
        assert start.tracker.pending_limit() == most


async def test_an_interrupted_download_is_begun_again_at_the_next_start(harness: Harness) -> None:
    harness.simulator.script.add(Fault("download", Hang(at="body")))
    harness.drop_file("a.jpg")
    process = DaemonProcess(harness).start()
    await wait_until(lambda: not harness.simulator.script.pending)
    assert harness.jobs(State.FETCHING)
    await process.stop(signal.SIGKILL)
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1


async def test_an_outage_while_tasks_are_pending_costs_nothing(harness: Harness) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.6, 0.1))
    harness.simulator.script.add(
        Fault("query", RefuseConnections(), when=lambda request: not request.path.endswith("0" * 12))
    )
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    daemon = asyncio.create_task(harness.run_once())
    await wait_until(lambda: "api_down" in harness.daemon_report())
    await harness.simulator.repair()
    assert await daemon == 0
    assert harness.simulator.credits_used == 15


async def test_the_answer_is_kept_without_the_image(harness: Harness) -> None:
    harness.drop_file("a.jpg")
    await harness.run_once()
    response = json.loads(harness.job("a.jpg").answer or "")
    assert response["state"] == 1
    assert "image" not in response


@pytest.mark.parametrize("reported", ["no times", "times", "texts"])
async def test_learnt_task_durations_agree_with_observed_ones(harness: Harness, reported: str) -> None:
    """The times that PicWish states are whole seconds or missing; they are used as far as they can be true."""
    actions = {"no times": drop_fields("created_at", "completed_at"), "times": None, "texts": strings()}
    if (action := actions[reported]) is not None:
        harness.simulator.script.add(Fault("query", action, times=99))
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.5, 0.01))
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    assert await harness.run_once() == 0
    reader = JournalReader.open(harness.journal)
    durations = reader.recent_task_durations(0, 10)
    reader.close()
    assert len(durations) == 3
    longest = max((job.completed_at or 0.0) - job.created_at for job in harness.jobs())
    assert all(0.2 < seconds < longest for seconds in durations), (durations, longest)
