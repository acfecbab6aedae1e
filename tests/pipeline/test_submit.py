"""The submit step: whose turn it is, what each outcome does, and what never happens twice."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.clock import Clock
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.images.inspect import ValidImage
from picwish_watchd.job import ErrorCode, NewJob, Problem, Stamp, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.pipeline.admission import build_new_job, validate_file
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.submit import Submit
from picwish_watchd.reporting.plan import RulePlan, plan_budget
from picwish_watchd.reporting.status import build_status
from picwish_watchd.scheduling.fair_scheduler import FairScheduler
from picwish_watchd.scheduling.rate_limiter import RateLimiter
from picwish_watchd.simulator import (
    CutResponse,
    DuplicateTaskId,
    EndIn,
    Fault,
    Hang,
    Reply,
    Reset,
    SendRaw,
    drop_fields,
    redirect,
)
from picwish_watchd.simulator.faults import Action
from tests.support.api_steps import make_api_steps
from tests.support.fake_clock import FakeClock
from tests.support.harness import KEY, DaemonProcess, Harness, wait_until
from tests.support.step_context import open_step_context


@pytest.fixture
async def context(harness: Harness) -> AsyncIterator[StepContext]:
    """Yield the parts of the daemon with nothing running."""
    async with open_step_context(harness.load_config()) as context:
        yield context


def submit_next(context: StepContext) -> tuple[Submit, Gate, RateLimiter]:
    rate_limiter = RateLimiter(context.config.api.qps, context.clock)
    gate = Gate(context, rate_limiter=rate_limiter)
    return make_api_steps(context, gate, rate_limiter).submit, gate, rate_limiter


def queue_job(context: StepContext, rule: str, name: str) -> int:
    new = NewJob(rule, Path("/in") / rule / name, Path(name), Stamp(1, 1, 1), sha256=f"{rule} {name}", format="jpeg")
    return context.journal.add_jobs([new])[0]


async def test_higher_priority_goes_first_and_equals_take_turns(harness: Harness) -> None:
    harness.more_rules = [{"name": "b", "inbox": "b", "priority": 5}, {"name": "c", "inbox": "c"}]
    async with open_step_context(harness.load_config()) as context:
        submit, _, _ = submit_next(context)
        for rule in ("scans", "c", "b"):
            for number in range(3):
                queue_job(context, rule, f"{number}.jpg")
        order = []
        while (job := submit.choose_job()) is not None:
            order.append(job.rule)
            context.journal.transition(job, State.SUBMITTING, "intent")
    assert order[:3] == ["b"] * 3
    assert sorted(order[3:5]) == sorted(order[5:7]) == sorted(order[7:9]) == ["c", "scans"]


async def test_a_rule_of_a_lower_priority_gets_a_turn_each_ten_minutes(harness: Harness) -> None:
    harness.rule = {"priority": 9}
    harness.more_rules = [{"name": "low", "inbox": "low"}, {"name": "lower", "inbox": "lower", "priority": -1}]
    clock = FakeClock()
    async with open_step_context(harness.load_config(), clock) as context:
        submit, _, _ = submit_next(context)
        for rule in ("low", "lower", "scans"):
            for number in range(40):
                queue_job(context, rule, f"{number}.jpg")
        order = []
        scheduler = FairScheduler(context.journal, context.clock, lambda: context.config.rules)
        for _ in range(40):
            job = submit.choose_job()
            assert job is not None
            order.append(job.rule)
            problem = Problem(ErrorCode.TASK_FAILED, "for the test")
            context.journal.transition(job, State.FAILED, "it is over", problem=problem)
            await clock.sleep(60)
        first = scheduler.ordered_rules()[0]
        scheduler.record_turn(first)
        ranks = [scheduler.priority_of(first), scheduler.priority_of(first)]
    assert (first.name, ranks) == ("low", [9, 0]), "a higher priority would take its turn"
    assert [at for at, rule in enumerate(order) if rule == "low"] == [10, 20, 30]
    assert [at for at, rule in enumerate(order) if rule == "lower"] == [11, 21, 31]


@pytest.mark.parametrize(("priority", "per_day"), [(0, 43), (0, 203), (2, 33), (-2, 40)])
async def test_each_rule_submits_as_many_images_as_the_plan_predicted(
    harness: Harness, context: StepContext, priority: int, per_day: int
) -> None:
    harness.top_level, harness.rule = {"budget": {"per_day": per_day}}, {"priority": priority}
    harness.more_rules = [{"name": "hd", "inbox": "hd", "type": 1}]
    context.config = harness.load_config()
    submit, _, _ = submit_next(context)
    for rule in ("scans", "hd"):
        for number in range(8):
            queue_job(context, rule, f"{number}.jpg")
    now = context.clock.now()
    foretold = plan_budget(
        context.config, context.journal, [RulePlan("scans", images=8), RulePlan("hd", images=8)], now
    )
    while (job := submit.choose_job()) is not None:
        price = {"scans": 5, "hd": 4}[job.rule]
        context.journal.transition(job, State.SUBMITTING, "intent", reserve=price)
    assert len(context.journal.jobs(states=[State.QUEUED])) == foretold.waiting


async def test_a_closed_gate_or_too_many_pending_tasks_submit_nothing(context: StepContext) -> None:
    submit, gate, _ = submit_next(context)
    queue_job(context, "scans", "a.jpg")
    gate.close(CloseReason.API_DOWN, "down")
    assert submit.choose_job() is None
    gate.clear_reasons(CloseReason.API_DOWN)
    job = submit.choose_job()
    assert job is not None
    context.journal.transition(job, State.SUBMITTING, "intent")
    queue_job(context, "scans", "b.jpg")
    context.config = type(context.config)(
        **{
            **{name: getattr(context.config, name) for name in context.config.__dataclass_fields__},
            "api": context.config.api.model_copy(update={"max_pending": 1}),
        }
    )
    assert submit.choose_job() is None


@pytest.mark.parametrize("news", ["the gate closes", "the daemon stops"])
async def test_an_image_waiting_for_its_permit_is_not_sent_once_the_gate_closes(
    harness: Harness, context: StepContext, news: str
) -> None:
    """The gate is checked again before the intent, because minutes may pass after the job was chosen."""
    path, rule = harness.drop_file("a.jpg"), context.config.rules[0]
    verdict = validate_file(path, context.config.api, rule, final=True)
    assert isinstance(verdict, ValidImage)
    context.journal.add_jobs([build_new_job(rule, path, verdict.stamp, verdict)])
    submit, gate, rate_limiter = submit_next(context)
    job = submit.choose_job()
    assert job is not None
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(submit.submit(job))
        await wait_until(lambda: rate_limiter.overdue_seconds > 0)
        if news == "the gate closes":
            gate.close(CloseReason.UNAUTHORIZED, "the key is refused")
        else:
            context.stopping = True
        granting = group.create_task(rate_limiter.run())
        await sending
        granting.cancel()
    assert harness.job("a.jpg").state is State.QUEUED
    assert harness.count_creates() == 0


async def test_no_image_is_prepared_while_a_paid_result_is_urgent(context: StepContext) -> None:
    rate_limiter = RateLimiter(context.config.api.qps, context.clock)
    gate = Gate(context, rate_limiter=rate_limiter)
    steps = make_api_steps(context, gate, rate_limiter)
    submit, tracker = steps.submit, steps.tracker
    queue_job(context, "scans", "a.jpg")
    job = submit.choose_job()
    assert job is not None
    job = context.journal.transition(job, State.SUBMITTING, "intent", submitted_at=context.clock.now() - 100)
    context.journal.transition(job, State.PENDING, "taken", task_id="of an earlier run")
    queue_job(context, "scans", "b.jpg")
    tracker.adopt_running_tasks()
    assert submit.choose_job() is None
    assert tracker.choose_due_task() is not None, "the task is being queried"
    assert submit.choose_job() is not None


@pytest.mark.parametrize(("sync", "sent"), [(0, 4), (1, 6)])
async def test_few_images_are_sent_while_picwish_does_not_answer(harness: Harness, sync: int, sent: int) -> None:
    harness.api, harness.rule = {"qps": 0.8, "max_pending": 6}, {"sync": sync}
    harness.simulator.script.add(Fault("create", Hang(), times=99))
    names = [harness.drop_file(f"{number}.jpg", seed=number) for number in range(8)]
    async with open_step_context(harness.load_config()) as context:
        for name in names:
            stamp, sha256 = stamp_of(name.stat()), harness.dropped[name]
            context.journal.add_jobs([NewJob("scans", name, Path(name.name), stamp, sha256=sha256, format="jpeg")])
        # The request rate is not tested here, so it need not slow the test down.
        rate_limiter = RateLimiter(500, context.clock)
        gate = Gate(context, rate_limiter=rate_limiter)
        submit = make_api_steps(context, gate, rate_limiter).submit
        tasks = [asyncio.create_task(rate_limiter.run()), asyncio.create_task(submit.run())]
        await wait_until(lambda: harness.count_creates() == sent)
        await asyncio.sleep(0.3)
        assert harness.count_creates() == sent
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


DOUBTFUL_FAULTS: dict[str, Action] = {
    "reset after the body": Reset(at="work"),
    "silence": Hang(at="body"),
    "garbage": SendRaw(),
    "cut": CutResponse(after=40),
    "500": Reply(500, at="work"),
    "502": Reply(502, b"<html>bad gateway</html>", at="work"),
    "504": Reply(504, at="work"),
    "unreadable 200": Reply(200, b"<html>", at="work"),
    "no task_id": drop_fields("task_id"),
}


@pytest.mark.parametrize("fault", [name for name in DOUBTFUL_FAULTS if name != "silence"])
async def test_a_doubtful_post_is_held_and_never_sent_again(harness: Harness, fault: str) -> None:
    harness.simulator.script.add(Fault("create", DOUBTFUL_FAULTS[fault]))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    assert await harness.run_once() == 1 or harness.count_creates() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
    assert (job.credits, job.credits_in_doubt) == (0, 5)
    assert harness.count_creates() == 1


@pytest.mark.parametrize("fault", ["reset after the body", "500", "no task_id"])
async def test_at_least_once_sends_a_doubtful_image_again_and_counts_the_doubt(harness: Harness, fault: str) -> None:
    harness.top_level = {"charging": "at-least-once"}
    harness.simulator.script.add(Fault("create", DOUBTFUL_FAULTS[fault]))
    sha = harness.dropped[harness.drop_file("a.jpg")]
    harness.may_be_paid_twice.add(sha)
    assert await harness.run_once() == 0
    job = harness.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt) == (State.DONE, 5, 5)
    assert harness.count_creates() == 2


FREE_FAULTS: dict[str, Action] = {
    "429": Reply(429, headers={"Retry-After": "0"}),
    "503": Reply(503),
    "redirect": redirect("http://127.0.0.1:9/elsewhere"),
    "reset before the body": Reset(at="head"),
}


@pytest.mark.parametrize("fault", ["429", "503", "redirect"])
async def test_a_provably_unaccepted_post_is_sent_again_for_free(harness: Harness, fault: str) -> None:
    harness.simulator.script.add(Fault("create", FREE_FAULTS[fault], times=2))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 0
    job = harness.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt, job.attempts) == (State.DONE, 5, 0, 1)
    assert harness.count_creates() == 3


async def test_a_503_with_retry_after_is_obeyed(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", Reply(503, headers={"Retry-After": "2"})))
    harness.drop_file("a.jpg", seed=1)
    daemon = asyncio.create_task(harness.run_once())
    await wait_until(lambda: "api_down" in harness.daemon_report())
    harness.drop_file("b.jpg", seed=2)
    assert await daemon == 0
    refused, *others = [request.received_at for request in harness.simulator.requests if request.operation == "create"]
    assert len(others) == 2
    assert min(others) - refused >= 2.0, "no other image is sent before, either"


async def test_a_dead_api_leaves_the_jobs_queued_and_is_probed_with_free_queries(harness: Harness) -> None:
    harness.simulator.break_down(refuse=True)
    harness.drop_file("a.jpg")
    daemon = asyncio.create_task(harness.run_once())
    await wait_until(lambda: "api_down" in harness.daemon_report() and harness.jobs() != [])
    assert harness.jobs()[0].state is State.QUEUED
    await harness.simulator.repair()
    assert await daemon == 0
    assert harness.count_creates() == 1


async def test_a_refused_key_stops_all_and_touches_no_job(harness: Harness) -> None:
    harness.simulator.script.add(Fault("query", Reply(401), times=99))
    harness.simulator.script.add(Fault("create", Reply(401), times=99))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert (job.state, job.attempts, job.credits) == (State.QUEUED, 0, 0)


@pytest.mark.parametrize(("status", "code"), [(400, ErrorCode.BAD_REQUEST), (413, ErrorCode.PAYLOAD_TOO_LARGE)])
async def test_a_definite_refusal_fails_this_image_only(harness: Harness, status: int, code: ErrorCode) -> None:
    harness.simulator.script.add(Fault("create", Reply(status), nth=1))
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("b.jpg", seed=2)
    assert await harness.run_once() == 1
    failed = harness.jobs(State.FAILED)
    assert [job.problem.code for job in failed if job.problem] == [code]
    assert len(harness.jobs(State.DONE)) == 1


async def test_a_failed_task_is_repeated_up_to_max_attempts(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", EndIn(-1), times=3))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code, job.attempts) == (State.FAILED, ErrorCode.ATTEMPTS_EXHAUSTED, 3)
    assert (job.credits, job.credits_in_doubt) == (0, 0)


async def test_a_hopeless_task_is_not_repeated(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", EndIn(-7)))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code, job.attempts) == (State.FAILED, ErrorCode.TASK_FAILED, 1)


async def test_a_file_changed_while_queued_is_never_sent_unvalidated(harness: Harness) -> None:
    harness.simulator.break_down(refuse=True)
    path = harness.drop_file("a.jpg", seed=1)
    daemon = asyncio.create_task(harness.run_once())
    await wait_until(lambda: "api_down" in harness.daemon_report() and harness.jobs() != [])
    new = harness.drop_file("a.jpg", seed=2)
    assert new == path
    await harness.simulator.repair()
    await daemon
    assert [charge.sha256 for charge in harness.simulator.ledger] == [harness.dropped[path]]
    assert [job.state for job in harness.jobs()] == [State.REJECTED, State.DONE]


async def test_run_once_ends_only_after_changed_files_were_validated_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.simulator.break_down(refuse=True)
    path = harness.drop_file("a.jpg", seed=1)
    daemon = asyncio.create_task(harness.run_once())
    await wait_until(lambda: "api_down" in harness.daemon_report() and harness.jobs() != [])
    at_once = os.scandir

    def slowly(folder: Any) -> Any:
        # A share that was asleep takes this long.
        time.sleep(0.4)
        return at_once(folder)

    monkeypatch.setattr(os, "scandir", slowly)
    harness.drop_file("a.jpg", seed=2)
    await harness.simulator.repair()
    await daemon
    assert [charge.sha256 for charge in harness.simulator.ledger] == [harness.dropped[path]]


async def test_a_duplicate_task_id_never_delivers_another_pictures_result(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", DuplicateTaskId(), nth=2))
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("b.jpg", seed=2)
    await harness.run_once()
    assert {job.state for job in harness.jobs()} == {State.DONE, State.HELD}


@pytest.mark.parametrize("sync", [0, 1])
async def test_a_kill_while_posting_is_held_at_the_next_start(harness: Harness, sync: int) -> None:
    harness.rule = {"sync": sync}
    harness.simulator.script.add(Fault("create", Hang(at="work")))
    harness.drop_file("a.jpg")
    process = DaemonProcess(harness).start()
    await wait_until(lambda: bool(harness.simulator.tasks))
    await process.stop(signal.SIGKILL)
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert job.problem is not None
    assert (job.state, job.problem.code) == (State.HELD, ErrorCode.SUBMIT_OUTCOME_UNKNOWN)
    assert harness.count_creates() == 1
    assert os.listdir(harness.root / "state/journal.db.spool") == []


async def test_status_shows_the_lowered_rate_and_remaining_work_after_a_429(harness: Harness) -> None:
    harness.api = {"qps": 2, "max_pending": 1}
    harness.simulator.settings = replace(harness.simulator.settings, processing=(60.0, 0.1))
    harness.simulator.script.add(Fault("create", Reply(429, headers={"Retry-After": "0"})))
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    config = harness.load_config()
    daemon = Daemon(config, KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.count_creates() == 2 and '"slowed": [' in harness.daemon_report())
    reader = JournalReader.open(harness.journal)
    facts = build_status(config.summary(), reader, Clock())
    reader.close()
    rate, ahead = facts["rate"], facts["forecast"]
    assert 1.4 <= rate["now"] < rate["qps"] == 2
    assert rate["reason"] is not None
    assert "PicWish answered 429" in rate["reason"]
    assert (ahead["images"], ahead["credits"]) == (3, 10)
    assert ahead["seconds"] > 10
    assert ahead["end"] is not None
    daemon.stop()
    assert await running == 0


async def test_with_sync_no_task_is_polled_once_its_answer_is_here(harness: Harness) -> None:
    harness.rule = {"sync": 1}
    for number in range(12):
        harness.drop_file(f"{number}.jpg", seed=number)
    assert await harness.run_once() == 0
    queries = [request for request in harness.simulator.requests if request.operation == "query"]
    assert len(queries) == 1, "the probe at the start"
