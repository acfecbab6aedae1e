"""One content is charged once; `retry`; and the reasons that close the gate before more credits are lost."""

import asyncio
import subprocess
from dataclasses import replace

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline import submit
from picwish_watchd.simulator import HTML_PAGE, EndIn, Fault, Hang, Reply, Reset, Rewrite
from tests.support import fork_server
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.support.sample_images import make_image


def run_retry(harness: Harness, *arguments: str) -> subprocess.CompletedProcess[str]:
    return fork_server.run_fork("retry", *arguments, "-c", str(harness.root / "watchd.yaml"))


async def test_a_copy_waits_for_its_first_and_is_delivered_from_its_result(harness: Harness) -> None:
    data = make_image("jpeg")
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        harness.drop_file(name, data)
    assert await harness.run_once() == 0
    assert [job.credits for job in harness.jobs()] == [5, 0, 0]
    assert harness.results() == {"a.jpg", "b.jpg", "sub/c.jpg"}
    assert harness.count_creates() == 1


async def test_a_copy_goes_on_as_soon_as_the_one_before_it_is_done(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the wake-up may start the step, not its periodic look at the journal.
    monkeypatch.setattr(submit, "_IDLE_SECONDS", 3600.0)
    data = make_image("jpeg")
    for number in range(5):
        harness.drop_file(f"{number}.jpg", data)
    assert await harness.run_once() == 0
    assert (harness.count_creates(), len(harness.results())) == (1, 5)


async def test_a_copy_is_submitted_when_the_first_result_is_gone(harness: Harness) -> None:
    data = make_image("jpeg")
    harness.may_be_paid_twice.add(harness.dropped[harness.drop_file("a.jpg", data)])
    await harness.run_once()
    (harness.outbox / "a.jpg").unlink()
    harness.drop_file("b.jpg", data)
    assert await harness.run_once() == 0
    assert harness.count_creates() == 2


async def test_a_copy_of_a_held_picture_is_held_and_released_with_it(harness: Harness) -> None:
    data = make_image("jpeg")
    harness.simulator.script.add(Fault("create", Reset(at="work")))
    harness.may_be_paid_twice.add(harness.dropped[harness.drop_file("a.jpg", data)])
    assert await harness.run_once() == 1
    harness.drop_file("b.jpg", data)
    assert await harness.run_once() == 1
    problem = harness.job("b.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.DUPLICATE_OF_HELD
    assert harness.count_creates() == 1
    output = run_retry(harness, str(harness.job("a.jpg").id))
    assert output.returncode == 0, output.stderr
    assert "2 jobs go on, for 5 credits at most" in output.stdout
    assert await harness.run_once() == 0
    assert harness.count_creates() == 2
    assert harness.results() == {"a.jpg", "b.jpg"}


async def test_run_once_ends_while_the_first_of_two_copies_is_held(harness: Harness) -> None:
    harness.outbox.mkdir()
    (harness.outbox / "sub").touch()
    harness.drop_file("sub/a.jpg")
    harness.rule = {"exclude": ["b.jpg"]}
    assert await harness.run_once() == 1
    harness.drop_file("b.jpg")
    harness.rule = {}
    assert await harness.run_once() == 1
    assert harness.jobs(State.QUEUED) == harness.jobs()
    (harness.outbox / "sub").unlink()
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1


async def test_an_own_result_dropped_into_an_inbox_is_not_sent(harness: Harness) -> None:
    harness.drop_file("a.jpg")
    await harness.run_once()
    harness.drop_file("back.jpg", (harness.outbox / "a.jpg").read_bytes())
    assert await harness.run_once() == 0
    assert (harness.job("back.jpg").state, harness.job("back.jpg").credits) == (State.DONE, 0)
    assert harness.count_creates() == 1


async def test_a_renamed_rule_does_not_pay_for_its_inbox_again(harness: Harness) -> None:
    harness.drop_file("a.jpg")
    await harness.run_once()
    harness.rule = {"name": "renamed"}
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1


async def test_links_from_an_inbox_to_results_or_originals_cost_nothing(harness: Harness) -> None:
    harness.rule = {"follow_symlinks": True, "on_success": "move", "archive": "archive"}
    (harness.root / "archive").mkdir()
    harness.outbox.mkdir()
    (harness.inbox / "old").symlink_to(harness.root / "archive")
    (harness.inbox / "new").symlink_to(harness.outbox)
    harness.drop_file("a.jpg")
    for _ in range(3):
        assert await harness.run_once() == 0
    (harness.inbox / "one.jpg").symlink_to(harness.outbox / "a.jpg")
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1


async def test_retry_asks_for_the_old_task_first_and_pays_only_if_it_is_gone(harness: Harness) -> None:
    harness.top_level = {"retry_backoff": "10ms"}
    harness.simulator.script.add(
        Fault("query", Reply(404), times=4, when=lambda request: not request.path.endswith("0" * 12))
    )
    sha = harness.dropped[harness.drop_file("a.jpg")]
    assert await harness.run_once() == 1
    assert run_retry(harness, "--state", "held").returncode == 0
    assert await harness.run_once() == 0
    assert harness.count_creates() == 1
    assert harness.job("a.jpg").credits == 5

    harness.drop_file("b.jpg", seed=2)
    harness.simulator.script.add(
        Fault("query", Reply(404), times=8, when=lambda request: not request.path.endswith("0" * 12))
    )
    harness.may_be_paid_twice |= {sha, harness.dropped[harness.inbox / "b.jpg"]}
    assert await harness.run_once() == 1
    assert run_retry(harness, str(harness.job("b.jpg").id)).returncode == 0
    assert await harness.run_once() == 0
    assert harness.count_creates() == 3


async def test_retry_delivers_a_result_in_the_spool_at_no_cost(harness: Harness) -> None:
    harness.outbox.mkdir()
    harness.outbox.joinpath("sub").symlink_to("/nowhere")
    harness.drop_file("sub/a.jpg")
    assert await harness.run_once() == 1
    (harness.outbox / "sub").unlink()
    output = run_retry(harness, "--state", "held", "--rule", "scans")
    assert "for 0 credits at most" in output.stdout
    assert await harness.run_once() == 0
    assert harness.results() == {"sub/a.jpg"}
    assert harness.count_creates() == 1


async def test_a_rejected_file_is_validated_again_on_retry(harness: Harness) -> None:
    harness.api = {"max_side": 32}
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    harness.api = {}
    harness.write_config()
    assert run_retry(harness, "--state", "rejected").returncode == 0
    assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg"}


async def test_copies_that_were_rejected_are_paid_once_when_they_are_retried_together(harness: Harness) -> None:
    harness.api = {"max_side": 32}
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        harness.drop_file(name)
    assert await harness.run_once() == 1
    harness.api = {}
    harness.write_config()
    assert run_retry(harness, "--state", "rejected").returncode == 0
    assert await harness.run_once() == 0
    assert harness.results() == {"a.jpg", "b.jpg", "c.jpg"}
    assert harness.count_creates() == 1


async def test_a_retried_image_waits_for_its_copy_in_flight(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", EndIn(-7)))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    harness.simulator.settings = replace(harness.simulator.settings, processing=lambda: 1.0)
    harness.drop_file("b.jpg")
    process = DaemonProcess(harness).start()
    await wait_until(lambda: bool(harness.jobs(State.PENDING)))
    assert run_retry(harness, "1").returncode == 0
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 2)
    assert await process.stop() == 0
    assert [job.credits for job in harness.jobs()] == [0, 5]


async def test_retry_refuses_what_makes_no_sense_and_changes_nothing(harness: Harness) -> None:
    harness.drop_file("a.jpg")
    await harness.run_once()
    for arguments, code in ((["99"], 1), (["1"], 1), ([], 2), (["1", "--state", "held"], 2), (["--rule", "x", "1"], 2)):
        output = run_retry(harness, *arguments)
        assert output.returncode == code, output.stderr
        assert "Traceback" not in output.stderr
    assert harness.job("a.jpg").state is State.DONE


async def test_a_running_daemon_takes_a_retried_job_at_once(harness: Harness) -> None:
    harness.simulator.script.add(Fault("create", Reset(at="work")))
    harness.may_be_paid_twice.add(harness.dropped[harness.drop_file("a.jpg")])
    process = DaemonProcess(harness).start()
    await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.HELD)))
    assert run_retry(harness, "1").returncode == 0
    await wait_until(lambda: bool(harness.jobs(State.DONE)), seconds=10)
    assert await process.stop() == 0


async def test_a_task_that_fails_after_it_had_succeeded_is_not_paid_again(harness: Harness) -> None:
    harness.simulator.script.add(Fault("download", Reply(404)))
    failed = Rewrite(lambda data: {**data, "state": -2, "image": None} if data.get("state") == 1 else data)
    queries = [request for request in harness.simulator.requests if request.operation == "query"]
    harness.simulator.script.add(
        Fault("query", failed, when=lambda _seen: bool(harness.jobs() and harness.jobs()[0].credits), times=9)
    )
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    assert queries == []
    assert (harness.job("a.jpg").state, harness.job("a.jpg").credits) == (State.HELD, 5)
    assert harness.count_creates() == 1


async def test_results_that_cannot_be_downloaded_stop_the_buying(harness: Harness) -> None:
    harness.api = {"max_pending": 2}
    harness.top_level = {"retry_backoff": "500ms"}
    harness.simulator.script.add(Fault("download", HTML_PAGE, times=999))
    for number in range(12):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(harness).start()
    await wait_until(lambda: "results_unreachable" in harness.daemon_report())
    bought = harness.count_creates()
    assert bought < 8
    harness.simulator.script.clear()
    await wait_until(lambda: len(harness.jobs(State.DONE)) >= 12 - bought, seconds=60)
    assert await process.stop() == 0


async def test_failing_creates_back_off(harness: Harness) -> None:
    harness.api = {"qps": 10}
    harness.simulator.script.add(Fault("create", Reply(500), times=999))
    for number in range(10):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(harness).start()
    await wait_until(lambda: len(harness.jobs(State.HELD) if harness.journal.exists() else []) >= 2)
    await asyncio.sleep(1.0)
    assert len(harness.jobs(State.HELD)) <= 4
    assert await process.stop() == 0


async def test_a_429_for_creates_does_not_starve_the_queries(harness: Harness) -> None:
    harness.api = {"qps": 20}
    harness.drop_file("a.jpg", seed=100)
    harness.simulator.settings = replace(harness.simulator.settings, processing=(0.5, 0.1))
    process = DaemonProcess(harness).start()
    await wait_until(lambda: harness.journal.exists() and bool(harness.jobs(State.PENDING)))
    busy = Reply(429, headers={"Retry-After": "0"})
    harness.simulator.script.add(Fault("create", busy, times=9999))
    for number in range(20):
        harness.drop_file(f"{number}.jpg", seed=number)
    await wait_until(lambda: bool(harness.jobs(State.DONE)), seconds=20)
    await process.stop()


async def test_at_least_once_ends_after_max_attempts(harness: Harness) -> None:
    harness.top_level = {"charging": "at-least-once", "max_attempts": 2}
    harness.simulator.script.add(Fault("create", Reset(at="work"), times=99))
    harness.may_be_paid_twice.add(harness.dropped[harness.drop_file("a.jpg")])
    assert await harness.run_once() == 1
    assert harness.job("a.jpg").state is State.HELD
    assert harness.count_creates() == 2


async def test_a_result_that_was_synced_before_a_crash_is_found_in_the_spool(harness: Harness) -> None:
    harness.simulator.script.add(Fault("download", Hang(at="body")))
    harness.drop_file("a.jpg")
    process = DaemonProcess(harness).start()
    await wait_until(lambda: not harness.simulator.script.pending)
    await process.stop(9)
    spool = harness.root / "state/journal.db.spool"
    (spool / "1.result").write_bytes(make_image("jpeg", 192, 128))
    harness.simulator.tasks.clear()
    assert await harness.run_once() == 0
    assert (harness.outbox / "a.jpg").read_bytes() == make_image("jpeg", 192, 128)


@pytest.mark.parametrize("interrupted", [False, True])
async def test_an_interrupted_run_is_no_success(harness: Harness, interrupted: bool) -> None:
    harness.simulator.settings = replace(harness.simulator.settings, processing=(1.0, 0.1))
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(harness, ("--once",)).start()
    if interrupted:
        await wait_until(lambda: harness.journal.exists() and bool(harness.jobs()))
        assert await process.stop() == 1
    else:
        assert await process.wait_for_exit() == 0


async def test_a_file_that_vanished_while_it_settled_is_taken_when_it_comes_back(harness: Harness) -> None:
    harness.rule = {"settle": "600ms", "observer": "polling", "rescan_interval": "200ms"}
    process = DaemonProcess(harness).start()
    await wait_until(lambda: "daemon.ready" in process.errors.read_text())
    harness.drop_file("a.jpg")
    await asyncio.sleep(0.4)
    harness.inbox.rename(harness.root / "away")
    await asyncio.sleep(0.8)
    (harness.root / "away").rename(harness.inbox)
    await wait_until(lambda: bool(harness.jobs(State.DONE)), seconds=15)
    assert await process.stop() == 0


async def test_a_free_failure_after_a_paid_retry_is_counted_as_free(harness: Harness) -> None:
    harness.simulator.script.add(Fault("download", Reply(403), times=3))
    harness.may_be_paid_twice.add(harness.dropped[harness.drop_file("a.jpg")])
    assert await harness.run_once() == 1
    harness.simulator.tasks.clear()
    harness.simulator.script.add(Fault("create", EndIn(-7)))
    assert run_retry(harness, "1").returncode == 0
    assert await harness.run_once() == 1
    job = harness.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt) == (State.FAILED, 5, 0)
    assert harness.simulator.credits_used == 5


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_an_answer_that_names_a_task_is_never_submitted_again(harness: Harness, status: int) -> None:
    reply = Reply(status, b'{"status": %d, "message": "odd", "data": {"task_id": "t-1"}}' % status)
    harness.simulator.script.add(Fault("create", reply))
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    assert harness.count_creates() == 1
    assert harness.job("a.jpg").task_id == "t-1"
