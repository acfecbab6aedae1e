"""Following a task and bringing its result home: all of it may be repeated, and is, until it is certain."""

import asyncio
import json
import signal
from dataclasses import replace

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.journal import JournalReader
from picwish_watchd.simulator import Cut, Drip, Fault, Hang, NeverEnd, Raw, Refuse, Reply, Reset, nulls, without
from picwish_watchd.simulator import numbers_as_strings as strings
from picwish_watchd.simulator.script import Action
from tests.support.house import House, Process, until

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
    assert all(0.2 < seconds < 5 for seconds in learnt)
