"""Following a task and bringing its result home: all of it may be repeated, and is, until it is certain."""

import asyncio
import json
import signal
from dataclasses import replace
from itertools import count

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.scheduling.rate_limiter import Urgency
from picwish_watchd.simulator import Cut, Drip, Fault, Hang, NeverEnd, Raw, Refuse, Reply, Reset, nulls, without
from picwish_watchd.simulator import numbers_as_strings as strings
from picwish_watchd.simulator.faults import Action
from tests.support.following import following
from tests.support.house import House, Process, until
from tests.support.pictures import picture

QUERY_FAULTS: dict[str, Action] = {
    "reset": Reset(at="head"),
    "reset with the answer ready": Reset(at="work"),
    "500": Reply(500),
    "503": Reply(503, headers={"Retry-After": "0"}),
    "429": Reply(429, headers={"Retry-After": "0"}),
    "html": Reply(200, b"<html>"),
    "garbage": Raw(),
    "cut": Cut(after=60),
    "an odd 404": Reply(404),
    "numbers as strings": strings(),
    "nearly all null": nulls("state", "image", "task_id"),
    "fields missing": without("created_at", "completed_at", "progress"),
    "slow": Drip(3000),
}


@pytest.mark.parametrize("fault", QUERY_FAULTS)
@pytest.mark.parametrize("return_type", [1, 2])
async def test_a_spoilt_query_is_asked_again(house: House, fault: str, return_type: int) -> None:
    house.rule = {"return_type": return_type}
    queries = Fault("query", QUERY_FAULTS[fault], when=lambda seen: not seen.path.endswith("0" * 12))
    house.simulator.script.add(queries)
    house.drop("a.jpg")
    assert await house.drain() == 0
    job = house.job("a.jpg")
    assert (job.state, job.credits, job.attempts) == (State.DONE, 5, 1)
    assert house.creates() == 1


DOWNLOAD_FAULTS: dict[str, Action] = {
    "reset": Reset(at="head"),
    "500": Reply(500),
    "expired": Reply(403, b"<Error><Code>AccessDenied</Code></Error>"),
    "gone": Reply(404),
    "cut": Cut(after=400),
    "garbage": Raw(),
}


@pytest.mark.parametrize("fault", DOWNLOAD_FAULTS)
async def test_a_spoilt_download_is_repeated_from_a_fresh_address(house: House, fault: str) -> None:
    house.simulator.script.add(Fault("download", DOWNLOAD_FAULTS[fault], times=2))
    house.drop("a.jpg")
    assert await house.drain() == 0
    assert house.results() == {"a.jpg"}
    assert house.creates() == 1
    assert "pending" in house.history("a.jpg")


@pytest.mark.parametrize(("charging", "state"), [("at-most-once", State.HELD), ("at-least-once", State.DONE)])
async def test_a_paid_result_that_is_gone_is_held_or_bought_again_by_charging(
    house: House, charging: str, state: State
) -> None:
    house.top = {"charging": charging}
    house.simulator.script.add(Fault("download", Reply(403), times=3))
    house.forgiven.add(house.dropped[house.drop("a.jpg")])
    await house.drain()
    job = house.job("a.jpg")
    assert job.state is state
    assert job.credits == (10 if state is State.DONE else 5)
    if job.problem is not None:
        assert job.problem.code is ErrorCode.RESULT_EXPIRED


async def test_a_task_that_nobody_knows_is_held(house: House) -> None:
    house.top = {"retry_backoff": "10ms"}
    house.simulator.script.add(Fault("query", Reply(404), times=99))
    house.drop("a.jpg")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.TASK_UNKNOWN)
    assert job.credits_in_doubt == 5


async def test_a_task_that_never_ends_is_held_after_its_time(house: House) -> None:
    house.api = {"task_timeout": "700ms"}
    house.simulator.script.add(Fault("create", NeverEnd()))
    house.drop("a.jpg")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.TASK_TIMEOUT)
    assert (job.credits, job.credits_in_doubt) == (0, 5), "it may still end, and then it is paid"


async def test_task_timeout_is_kept_however_seldom_a_task_is_asked_for(house: House) -> None:
    house.api = {"task_timeout": "2h"}
    house.simulator.script.add(Fault("create", NeverEnd()))
    async with following(house) as start:
        job = await start.pending("a.jpg")
        start.collect.accepted(job)
        await start.wait(7150)
        assert start.job(job).state is State.PENDING
        await start.wait(60)
        assert start.job(job).state is State.HELD
    queries = [seen for seen in house.simulator.requests if seen.operation == "query"]
    assert len(queries) < 60


async def test_a_silence_does_not_count_for_task_timeout(house: House) -> None:
    house.api = {"task_timeout": "15m"}
    house.simulator.script.add(Fault("create", NeverEnd()))
    async with following(house) as start:
        job = await start.pending("a.jpg")
        start.collect.accepted(job)
        await start.wait(60)
        start.clock.advance(3600)
        assert await start.ask()
        assert start.job(job).state is State.PENDING


async def test_a_service_that_knows_nothing_for_two_minutes_loses_no_task(house: House) -> None:
    house.top = {"retry_backoff": "2s"}
    house.simulator.script.add(Fault("query", Reply(404), times=3))
    async with following(house) as start:
        job = await start.pending("a.jpg")
        start.collect.accepted(job)
        await until(lambda: house.simulator.credits == 5)
        began = start.clock.monotonic()
        while start.job(job).state is State.PENDING:
            await start.wait(5)
        assert start.job(job).state is State.DELIVERING
        assert start.clock.monotonic() - began > 120


async def test_only_404s_in_a_row_say_that_a_task_is_gone(house: House) -> None:
    house.api = {"task_timeout": "2h"}
    house.simulator.script.add(Fault("create", NeverEnd()))
    numbers = count(1)
    house.simulator.script.add(Fault("query", Reply(404), times=99, when=lambda _seen: next(numbers) % 4 != 0))
    async with following(house) as start:
        job = await start.pending("a.jpg")
        start.collect.accepted(job)
        while start.job(job).state is State.PENDING and len(house.simulator.requests) < 16:
            await start.wait(30)
        assert start.job(job).state is State.PENDING


async def test_what_lay_at_picwish_while_the_machine_slept_goes_before_new_tasks(house: House) -> None:
    house.api = {"qps": 2}
    async with following(house) as start:
        job = await start.pending("a.jpg")
        start.collect.accepted(job)
        await until(lambda: house.simulator.credits == 5)
        created: list[float] = []

        async def creates() -> None:
            for _ in range(200):
                (await start.pacer.slot(Urgency.CREATE)).left()
                created.append(start.clock.monotonic())

        start.clock.suspend(50 * 60)
        tasks = [asyncio.create_task(start.collect.run()), *(asyncio.create_task(creates()) for _ in range(3))]
        await until(lambda: start.job(job).state is not State.PENDING)
        assert len(created) < 300  # of 600: the clock runs on while the answer comes
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_at_a_start_without_a_network_and_with_a_clock_that_is_ahead_no_task_is_given_up(house: House) -> None:
    async with following(house) as start:
        job = await start.pending("a.jpg")
    house.simulator.break_down(refuse=True)
    async with following(house) as start:
        start.clock.jump(3 * 3600)
        start.collect.refresh()
        await start.wait(600)
        assert start.job(job).state is State.PENDING
        await house.simulator.repair()
        await start.wait(60)
        assert start.job(job).state is State.DELIVERING


async def test_a_task_that_nobody_could_be_asked_about_long_after_its_hour_is_given_up(house: House) -> None:
    async with following(house) as start:
        job = await start.pending("a.jpg")
    house.simulator.break_down(refuse=True)
    async with following(house) as start:
        start.clock.jump(3 * 3600)
        start.collect.refresh()
        await start.wait(1000)
        problem = start.job(job).problem
        assert problem is not None
        assert problem.code is ErrorCode.TASK_TIMEOUT


async def test_a_task_of_a_higher_priority_is_asked_for_before_many_that_are_due_longer(house: House) -> None:
    house.more_rules = [{"name": "urgent", "inbox": "urgent", "priority": 5}]
    async with following(house) as start:
        for number in range(20):
            start.collect.accepted(await start.pending(f"{number}.jpg"))
        start.clock.advance(60)
        urgent = await start.pending("u.jpg", rule="urgent")
        start.collect.accepted(urgent)
        start.clock.advance(9)
        asked = []
        while (job := start.collect.choose()) is not None:
            asked.append(job.rule)
        assert asked.index("urgent") < 2
        assert len(asked) == 21


async def test_a_large_max_pending_is_reached_only_as_results_come_home(house: House) -> None:
    house.api = {"qps": 2, "max_pending": 5000}
    async with following(house) as start:
        assert start.collect.max_pending() == 64
        job = await start.pending("a.jpg")
        start.collect.accepted(job)
        await until(lambda: house.simulator.credits == 5)
        await start.wait(20)
        assert start.job(job).state is State.DELIVERING
        assert start.collect.max_pending() > 64


@pytest.mark.parametrize(("sync", "most"), [(0, 32), (1, 4)])
async def test_quick_tasks_do_not_leave_a_handful_at_once_for_a_slow_spell_unless_each_may_be_in_doubt(
    house: House, sync: int, most: int
) -> None:
    house.simulator.settings = replace(house.simulator.settings, enhance="echo")
    for number in range(52):
        house.drop(f"{number}.png", picture("png", 16, 16, seed=number))
    assert await house.drain() == 0
    house.api, house.rule = {"qps": 2}, {"sync": sync}
    async with following(house) as start:
        assert start.collect.max_pending() == most


async def test_an_interrupted_download_is_begun_again_at_the_next_start(house: House) -> None:
    house.simulator.script.add(Fault("download", Hang(at="body")))
    house.drop("a.jpg")
    process = Process(house).start()
    await until(lambda: not house.simulator.script.pending)
    assert house.jobs(State.FETCHING)
    await process.stop(signal.SIGKILL)
    assert await house.drain() == 0
    assert house.creates() == 1


async def test_an_outage_while_tasks_are_pending_costs_nothing(house: House) -> None:
    house.simulator.settings = replace(house.simulator.settings, processing=(0.6, 0.1))
    house.simulator.script.add(Fault("query", Refuse(), when=lambda seen: not seen.path.endswith("0" * 12)))
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    daemon = asyncio.create_task(house.drain())
    await until(lambda: "api_down" in house.report())
    await house.simulator.repair()
    assert await daemon == 0
    assert house.simulator.credits == 15


async def test_the_answer_is_kept_without_the_image(house: House) -> None:
    house.drop("a.jpg")
    await house.drain()
    answer = json.loads(house.job("a.jpg").answer or "")
    assert answer["state"] == 1
    assert "image" not in answer


@pytest.mark.parametrize("told", ["no times", "times", "texts"])
async def test_what_is_learnt_of_a_task_agrees_with_what_was_seen(house: House, told: str) -> None:
    """Whole seconds, or none at all: what PicWish tells is taken as far as it can be true."""
    actions = {"no times": without("created_at", "completed_at"), "times": None, "texts": strings()}
    if (action := actions[told]) is not None:
        house.simulator.script.add(Fault("query", action, times=99))
    house.simulator.settings = replace(house.simulator.settings, processing=(0.5, 0.01))
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    assert await house.drain() == 0
    reader = JournalReader.open(house.journal)
    learnt = reader.task_seconds(0, 10)
    reader.close()
    assert len(learnt) == 3
    longest = max((job.completed_at or 0.0) - job.created_at for job in house.jobs())
    assert all(0.2 < seconds < longest for seconds in learnt), (learnt, longest)
