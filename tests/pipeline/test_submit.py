"""The step that spends money: whose turn it is, what an outcome does, and what never happens twice."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.commands.status import standing
from picwish_watchd.clock import Clock
from picwish_watchd.config.summary import Outline
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.images.inspect import Inspected
from picwish_watchd.job import ErrorCode, NewJob, Problem, Stamp, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.writer import Journal
from picwish_watchd.outbox.spool import Spool, spool_folder
from picwish_watchd.picwish import PicwishClient
from picwish_watchd.pipeline.admission import judge, new_job
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.gate import Gate, Reason
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.reporting.plan import Ahead, means
from picwish_watchd.runtime.memory_budget import ByteBudget
from picwish_watchd.scheduling.fair_scheduler import Turns
from picwish_watchd.scheduling.rate_limiter import Pacer
from picwish_watchd.simulator import Cut, DuplicateTaskId, EndIn, Fault, Hang, Raw, Reply, Reset, redirect, without
from picwish_watchd.simulator.faults import Action
from tests.support.clock import FakeClock
from tests.support.house import KEY, House, Process, until


@pytest.fixture
async def context(house: House) -> AsyncIterator[Context]:
    """The parts as the daemon puts them together, with nothing running."""
    config = house.config()
    journal = Journal.open_for_writing(config.journal, Clock())
    spool = Spool(spool_folder(config.journal))
    spool.prepare()
    for rule in config.rules:
        journal.remember_rule(rule.name, rule.to_json())
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        yield Context(config=config, journal=journal, spool=spool, clock=Clock(), client=client)
    journal.close()


def step(context: Context) -> tuple[Submit, Gate, Pacer]:
    pacer = Pacer(context.config.api.qps, context.clock)
    gate = Gate(context, pacer=pacer)
    collect = Collect(context, gate=gate, pacer=pacer)
    return Submit(context, gate=gate, pacer=pacer, budget=ByteBudget(10**6), collect=collect), gate, pacer


def queue(context: Context, rule: str, name: str) -> int:
    new = NewJob(rule, Path("/in") / rule / name, Path(name), Stamp(1, 1, 1), sha256=f"{rule} {name}", format="jpeg")
    return context.journal.add([new])[0]


async def test_higher_priority_goes_first_and_equals_take_turns(house: House) -> None:
    (house.root / "state").mkdir()
    house.more_rules = [{"name": "b", "inbox": "b", "priority": 5}, {"name": "c", "inbox": "c"}]
    config = house.config()
    journal = Journal.open_for_writing(config.journal, Clock())
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        spool = Spool(spool_folder(config.journal))
        context = Context(config=config, journal=journal, spool=spool, clock=Clock(), client=client)
        submit, _, _ = step(context)
        for rule in ("scans", "c", "b"):
            for number in range(3):
                queue(context, rule, f"{number}.jpg")
        order = []
        while (job := submit.choose()) is not None:
            order.append(job.rule)
            journal.move(job, State.SUBMITTING, "intent")
        journal.close()
    assert order[:3] == ["b"] * 3
    assert sorted(order[3:5]) == sorted(order[5:7]) == sorted(order[7:9]) == ["c", "scans"]


async def test_a_rule_of_a_lower_priority_gets_a_turn_each_ten_minutes(house: House) -> None:
    (house.root / "state").mkdir()
    house.rule = {"priority": 9}
    house.more_rules = [{"name": "low", "inbox": "low"}, {"name": "lower", "inbox": "lower", "priority": -1}]
    config, clock = house.config(), FakeClock()
    journal = Journal.open_for_writing(config.journal, clock)
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        spool = Spool(spool_folder(config.journal))
        context = Context(config=config, journal=journal, spool=spool, clock=clock, client=client)
        submit, _, _ = step(context)
        for rule in ("low", "lower", "scans"):
            for number in range(40):
                queue(context, rule, f"{number}.jpg")
        order = []
        turns = Turns(context.journal, context.clock, lambda: context.config.rules)
        for _ in range(40):
            job = submit.choose()
            assert job is not None
            order.append(job.rule)
            journal.move(job, State.FAILED, "it is over", problem=Problem(ErrorCode.TASK_FAILED, "for the test"))
            await clock.sleep(60)
        first = turns.order()[0]
        turns.took(first)
        ranks = [turns.rank(first), turns.rank(first)]
        journal.close()
    assert (first.name, ranks) == ("low", [9, 0]), "of its slot a higher priority would deprive it"
    assert [at for at, rule in enumerate(order) if rule == "low"] == [10, 20, 30]
    assert [at for at, rule in enumerate(order) if rule == "lower"] == [11, 21, 31]


@pytest.mark.parametrize(("priority", "per_day"), [(0, 43), (0, 203), (2, 33), (-2, 40)])
async def test_of_each_rule_as_many_are_bought_as_the_plan_foretold(
    house: House, context: Context, priority: int, per_day: int
) -> None:
    house.top, house.rule = {"budget": {"per_day": per_day}}, {"priority": priority}
    house.more_rules = [{"name": "hd", "inbox": "hd", "type": 1}]
    context.config = house.config()
    submit, _, _ = step(context)
    for rule in ("scans", "hd"):
        for number in range(8):
            queue(context, rule, f"{number}.jpg")
    now = context.clock.now()
    foretold = means(context.config, context.journal, [Ahead("scans", images=8), Ahead("hd", images=8)], now)
    while (job := submit.choose()) is not None:
        price = {"scans": 5, "hd": 4}[job.rule]
        context.journal.move(job, State.SUBMITTING, "intent", reserve=price)
    assert len(context.journal.jobs(states=[State.QUEUED])) == foretold.waiting


async def test_a_closed_gate_and_a_full_desk_submit_nothing(context: Context) -> None:
    submit, gate, _ = step(context)
    queue(context, "scans", "a.jpg")
    gate.close(Reason.API_DOWN, "down")
    assert submit.choose() is None
    gate.succeeded(Reason.API_DOWN)
    job = submit.choose()
    assert job is not None
    context.journal.move(job, State.SUBMITTING, "intent")
    queue(context, "scans", "b.jpg")
    context.config = type(context.config)(
        **{
            **{name: getattr(context.config, name) for name in context.config.__dataclass_fields__},
            "api": context.config.api.model_copy(update={"max_pending": 1}),
        }
    )
    assert submit.choose() is None


@pytest.mark.parametrize("news", ["the gate closes", "the daemon stops"])
async def test_what_waits_for_its_slot_is_not_sent_once_nothing_may_be_bought(
    house: House, context: Context, news: str
) -> None:
    """The last look before the intent: minutes of waiting may lie between it and the choice of the job."""
    path, rule = house.drop("a.jpg"), context.config.rules[0]
    verdict = judge(path, context.config.api, rule, final=True)
    assert isinstance(verdict, Inspected)
    context.journal.add([new_job(rule, path, verdict.stamp, verdict)])
    submit, gate, pacer = step(context)
    job = submit.choose()
    assert job is not None
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(submit.submit(job))
        await until(lambda: pacer.overdue > 0)
        if news == "the gate closes":
            gate.close(Reason.UNAUTHORIZED, "the key is refused")
        else:
            context.stopping = True
        granting = group.create_task(pacer.run())
        await sending
        granting.cancel()
    assert house.job("a.jpg").state is State.QUEUED
    assert house.creates() == 0


async def test_while_a_paid_result_presses_no_image_is_prepared_in_vain(context: Context) -> None:
    pacer = Pacer(context.config.api.qps, context.clock)
    gate = Gate(context, pacer=pacer)
    collect = Collect(context, gate=gate, pacer=pacer)
    submit = Submit(context, gate=gate, pacer=pacer, budget=ByteBudget(10**6), collect=collect)
    queue(context, "scans", "a.jpg")
    job = submit.choose()
    assert job is not None
    job = context.journal.move(job, State.SUBMITTING, "intent", submitted_at=context.clock.now() - 100)
    context.journal.move(job, State.PENDING, "taken", task_id="of an earlier run")
    queue(context, "scans", "b.jpg")
    collect.refresh()
    assert submit.choose() is None
    assert collect.choose() is not None, "it is being asked for"
    assert submit.choose() is not None


@pytest.mark.parametrize(("sync", "sent"), [(0, 4), (1, 6)])
async def test_where_picwish_goes_silent_few_images_are_sent_into_the_silence(
    house: House, sync: int, sent: int
) -> None:
    house.api, house.rule = {"qps": 0.8, "max_pending": 6}, {"sync": sync}
    house.simulator.script.add(Fault("create", Hang(), times=99))
    names = [house.drop(f"{number}.jpg", seed=number) for number in range(8)]
    config = house.config()
    journal = Journal.open_for_writing(config.journal, Clock())
    spool = Spool(spool_folder(config.journal))
    spool.prepare()
    journal.add(
        [
            NewJob("scans", name, Path(name.name), stamp_of(name.stat()), sha256=house.dropped[name], format="jpeg")
            for name in names
        ]
    )
    async with PicwishClient(base_url=config.api.base_url, key=KEY, timeout=5) as client:
        context = Context(config=config, journal=journal, spool=spool, clock=Clock(), client=client)
        pacer = Pacer(500, context.clock)  # what is tried here need not take its time
        gate = Gate(context, pacer=pacer)
        collect = Collect(context, gate=gate, pacer=pacer)
        submit = Submit(context, gate=gate, pacer=pacer, budget=ByteBudget(10**6), collect=collect)
        tasks = [asyncio.create_task(pacer.run()), asyncio.create_task(submit.run())]
        await until(lambda: house.creates() == sent)
        await asyncio.sleep(0.3)
        assert house.creates() == sent
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        context.close()
    journal.close()


DOUBTFUL: dict[str, Action] = {
    "reset after the body": Reset(at="work"),
    "silence": Hang(at="body"),
    "garbage": Raw(),
    "cut": Cut(after=40),
    "500": Reply(500, at="work"),
    "502": Reply(502, b"<html>bad gateway</html>", at="work"),
    "504": Reply(504, at="work"),
    "unreadable 200": Reply(200, b"<html>", at="work"),
    "no task_id": without("task_id"),
}


@pytest.mark.parametrize("fault", [name for name in DOUBTFUL if name != "silence"])
async def test_a_doubtful_post_is_held_and_never_sent_again(house: House, fault: str) -> None:
    house.simulator.script.add(Fault("create", DOUBTFUL[fault]))
    house.drop("a.jpg")
    assert await house.drain() == 1
    assert await house.drain() == 1 or house.creates() == 1
    job = house.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
    assert (job.credits, job.credits_in_doubt) == (0, 5)
    assert house.creates() == 1


@pytest.mark.parametrize("fault", ["reset after the body", "500", "no task_id"])
async def test_at_least_once_sends_a_doubtful_image_again_and_counts_the_doubt(house: House, fault: str) -> None:
    house.top = {"charging": "at-least-once"}
    house.simulator.script.add(Fault("create", DOUBTFUL[fault]))
    sha = house.dropped[house.drop("a.jpg")]
    house.forgiven.add(sha)
    assert await house.drain() == 0
    job = house.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt) == (State.DONE, 5, 5)
    assert house.creates() == 2


FREE: dict[str, Action] = {
    "429": Reply(429, headers={"Retry-After": "0"}),
    "503": Reply(503),
    "redirect": redirect("http://127.0.0.1:9/elsewhere"),
    "reset before the body": Reset(at="head"),
}


@pytest.mark.parametrize("fault", ["429", "503", "redirect"])
async def test_what_was_provably_not_accepted_is_sent_again_at_no_cost(house: House, fault: str) -> None:
    house.simulator.script.add(Fault("create", FREE[fault], times=2))
    house.drop("a.jpg")
    assert await house.drain() == 0
    job = house.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt, job.attempts) == (State.DONE, 5, 0, 1)
    assert house.creates() == 3


async def test_a_503_that_names_a_time_is_obeyed(house: House) -> None:
    house.simulator.script.add(Fault("create", Reply(503, headers={"Retry-After": "2"})))
    house.drop("a.jpg", seed=1)
    daemon = asyncio.create_task(house.drain())
    await until(lambda: "api_down" in house.report())
    house.drop("b.jpg", seed=2)
    assert await daemon == 0
    refused, *others = [seen.at for seen in house.simulator.requests if seen.operation == "create"]
    assert len(others) == 2
    assert min(others) - refused >= 2.0, "no other image may try before, either"


async def test_a_dead_api_leaves_the_jobs_queued_and_is_probed_with_free_queries(house: House) -> None:
    house.simulator.break_down(refuse=True)
    house.drop("a.jpg")
    daemon = asyncio.create_task(house.drain())
    await until(lambda: "api_down" in house.report() and house.jobs() != [])
    assert house.jobs()[0].state is State.QUEUED
    await house.simulator.repair()
    assert await daemon == 0
    assert house.creates() == 1


async def test_a_refused_key_stops_all_and_touches_no_job(house: House) -> None:
    house.simulator.script.add(Fault("query", Reply(401), times=99))
    house.simulator.script.add(Fault("create", Reply(401), times=99))
    house.drop("a.jpg")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert (job.state, job.attempts, job.credits) == (State.QUEUED, 0, 0)


@pytest.mark.parametrize(("status", "code"), [(400, ErrorCode.BAD_REQUEST), (413, ErrorCode.PAYLOAD_TOO_LARGE)])
async def test_a_definite_refusal_fails_this_image_only(house: House, status: int, code: ErrorCode) -> None:
    house.simulator.script.add(Fault("create", Reply(status), nth=1))
    house.drop("a.jpg", seed=1)
    house.drop("b.jpg", seed=2)
    assert await house.drain() == 1
    failed = house.jobs(State.FAILED)
    assert [job.problem.code for job in failed if job.problem] == [code]
    assert len(house.jobs(State.DONE)) == 1


async def test_a_failed_task_is_repeated_up_to_max_attempts(house: House) -> None:
    house.simulator.script.add(Fault("create", EndIn(-1), times=3))
    house.drop("a.jpg")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code, job.attempts) == (State.FAILED, ErrorCode.ATTEMPTS_EXHAUSTED, 3)
    assert (job.credits, job.credits_in_doubt) == (0, 0)


async def test_a_hopeless_task_is_not_repeated(house: House) -> None:
    house.simulator.script.add(Fault("create", EndIn(-7)))
    house.drop("a.jpg")
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code, job.attempts) == (State.FAILED, ErrorCode.TASK_FAILED, 1)


async def test_a_file_that_changes_while_it_waits_is_never_sent_as_it_was_not_judged(house: House) -> None:
    house.simulator.break_down(refuse=True)
    path = house.drop("a.jpg", seed=1)
    daemon = asyncio.create_task(house.drain())
    await until(lambda: "api_down" in house.report() and house.jobs() != [])
    new = house.drop("a.jpg", seed=2)
    assert new == path
    await house.simulator.repair()
    await daemon
    assert [charge.sha256 for charge in house.simulator.ledger] == [house.dropped[path]]
    assert [job.state for job in house.jobs()] == [State.REJECTED, State.DONE]


async def test_once_ends_no_earlier_than_what_changed_was_looked_at_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.simulator.break_down(refuse=True)
    path = house.drop("a.jpg", seed=1)
    daemon = asyncio.create_task(house.drain())
    await until(lambda: "api_down" in house.report() and house.jobs() != [])
    at_once = os.scandir

    def slowly(folder: Any) -> Any:
        time.sleep(0.4)  # as of a share that was asleep
        return at_once(folder)

    monkeypatch.setattr(os, "scandir", slowly)
    house.drop("a.jpg", seed=2)
    await house.simulator.repair()
    await daemon
    assert [charge.sha256 for charge in house.simulator.ledger] == [house.dropped[path]]


async def test_a_duplicate_task_id_never_delivers_another_pictures_result(house: House) -> None:
    house.simulator.script.add(Fault("create", DuplicateTaskId(), nth=2))
    house.drop("a.jpg", seed=1)
    house.drop("b.jpg", seed=2)
    await house.drain()
    assert {job.state for job in house.jobs()} == {State.DONE, State.HELD}


@pytest.mark.parametrize("sync", [0, 1])
async def test_a_kill_while_posting_is_held_at_the_next_start(house: House, sync: int) -> None:
    house.rule = {"sync": sync}
    house.simulator.script.add(Fault("create", Hang(at="work")))
    house.drop("a.jpg")
    process = Process(house).start()
    await until(lambda: bool(house.simulator.tasks))
    await process.stop(signal.SIGKILL)
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
    assert house.creates() == 1
    assert os.listdir(house.root / "state/journal.db.spool") == []


async def test_status_tells_the_rate_that_a_429_has_lowered_and_what_is_left_to_do(house: House) -> None:
    house.api = {"qps": 2, "max_pending": 1}
    house.simulator.settings = replace(house.simulator.settings, processing=(60.0, 0.1))
    house.simulator.script.add(Fault("create", Reply(429, headers={"Retry-After": "0"})))
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    config = house.config()
    daemon = Daemon(config, KEY)
    running = asyncio.create_task(daemon.run())
    await until(lambda: house.creates() == 2 and '"slowed": [' in house.report())
    reader = JournalReader.open(house.journal)
    facts = standing(Outline.of(config), reader, Clock())
    reader.close()
    rate, ahead = facts["rate"], facts["forecast"]
    assert isinstance(rate, dict)
    assert isinstance(ahead, dict)
    assert 1.4 <= rate["now"] < rate["qps"] == 2
    assert "PicWish said" in rate["reason"]
    assert (ahead["images"], ahead["credits"]) == (3, 10)
    assert ahead["seconds"] > 10
    assert ahead["end"] is not None
    daemon.stop()
    assert await running == 0


async def test_with_sync_nobody_asks_for_a_task_whose_answer_is_here(house: House) -> None:
    house.rule = {"sync": 1}
    for number in range(12):
        house.drop(f"{number}.jpg", seed=number)
    assert await house.drain() == 0
    queries = [seen for seen in house.simulator.requests if seen.operation == "query"]
    assert len(queries) == 1, "the probe at the start"
