"""One content, one charge; `retry`; and what closes the gate before more is lost."""

import asyncio
import subprocess
from dataclasses import replace

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline import submit
from picwish_watchd.simulator import HTML_PAGE, EndIn, Fault, Hang, Reply, Reset, Rewrite
from tests.support import forks
from tests.support.house import DaemonProcess, Harness, wait_until
from tests.support.pictures import make_image


def run_retry(house: Harness, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forks.run_fork("retry", *arguments, "-c", str(house.root / "watchd.yaml"))


async def test_a_copy_waits_for_its_first_and_is_delivered_from_its_result(house: Harness) -> None:
    data = make_image("jpeg")
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        house.drop_file(name, data)
    assert await house.run_once() == 0
    assert [job.credits for job in house.jobs()] == [5, 0, 0]
    assert house.results() == {"a.jpg", "b.jpg", "sub/c.jpg"}
    assert house.count_creates() == 1


async def test_a_copy_goes_on_as_soon_as_the_one_before_it_is_done(
    house: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no look at the journal comes to its help
    monkeypatch.setattr(submit, "_IDLE_SECONDS", 3600.0)
    data = make_image("jpeg")
    for number in range(5):
        house.drop_file(f"{number}.jpg", data)
    assert await house.run_once() == 0
    assert (house.count_creates(), len(house.results())) == (1, 5)


async def test_a_copy_is_bought_when_the_first_result_is_gone(house: Harness) -> None:
    data = make_image("jpeg")
    house.may_be_paid_twice.add(house.dropped[house.drop_file("a.jpg", data)])
    await house.run_once()
    (house.outbox / "a.jpg").unlink()
    house.drop_file("b.jpg", data)
    assert await house.run_once() == 0
    assert house.count_creates() == 2


async def test_a_copy_of_a_held_picture_is_held_and_released_with_it(house: Harness) -> None:
    data = make_image("jpeg")
    house.simulator.script.add(Fault("create", Reset(at="work")))
    house.may_be_paid_twice.add(house.dropped[house.drop_file("a.jpg", data)])
    assert await house.run_once() == 1
    house.drop_file("b.jpg", data)
    assert await house.run_once() == 1
    problem = house.job("b.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.DUPLICATE_OF_HELD
    assert house.count_creates() == 1
    told = run_retry(house, str(house.job("a.jpg").id))
    assert told.returncode == 0, told.stderr
    assert "2 jobs go on, for 5 credits at most" in told.stdout
    assert await house.run_once() == 0
    assert house.count_creates() == 2
    assert house.results() == {"a.jpg", "b.jpg"}


async def test_run_once_ends_while_the_first_of_two_copies_is_held(house: Harness) -> None:
    house.outbox.mkdir()
    (house.outbox / "sub").touch()
    house.drop_file("sub/a.jpg")
    house.rule = {"exclude": ["b.jpg"]}
    assert await house.run_once() == 1
    house.drop_file("b.jpg")
    house.rule = {}
    assert await house.run_once() == 1
    assert house.jobs(State.QUEUED) == house.jobs()
    (house.outbox / "sub").unlink()
    assert await house.run_once() == 0
    assert house.count_creates() == 1


async def test_an_own_result_dropped_into_an_inbox_is_not_sent(house: Harness) -> None:
    house.drop_file("a.jpg")
    await house.run_once()
    house.drop_file("back.jpg", (house.outbox / "a.jpg").read_bytes())
    assert await house.run_once() == 0
    assert (house.job("back.jpg").state, house.job("back.jpg").credits) == (State.DONE, 0)
    assert house.count_creates() == 1


async def test_a_renamed_rule_does_not_buy_its_inbox_again(house: Harness) -> None:
    house.drop_file("a.jpg")
    await house.run_once()
    house.rule = {"name": "renamed"}
    assert await house.run_once() == 0
    assert house.count_creates() == 1


async def test_links_from_an_inbox_to_results_or_originals_buy_nothing(house: Harness) -> None:
    house.rule = {"follow_symlinks": True, "on_success": "move", "archive": "archive"}
    (house.root / "archive").mkdir()
    house.outbox.mkdir()
    (house.inbox / "old").symlink_to(house.root / "archive")
    (house.inbox / "new").symlink_to(house.outbox)
    house.drop_file("a.jpg")
    for _ in range(3):
        assert await house.run_once() == 0
    (house.inbox / "one.jpg").symlink_to(house.outbox / "a.jpg")
    assert await house.run_once() == 0
    assert house.count_creates() == 1


async def test_retry_asks_for_the_old_task_first_and_pays_only_if_it_is_gone(house: Harness) -> None:
    house.top_level = {"retry_backoff": "10ms"}
    house.simulator.script.add(Fault("query", Reply(404), times=4, when=lambda seen: not seen.path.endswith("0" * 12)))
    sha = house.dropped[house.drop_file("a.jpg")]
    assert await house.run_once() == 1
    assert run_retry(house, "--state", "held").returncode == 0
    assert await house.run_once() == 0
    assert house.count_creates() == 1
    assert house.job("a.jpg").credits == 5

    house.drop_file("b.jpg", seed=2)
    house.simulator.script.add(Fault("query", Reply(404), times=8, when=lambda seen: not seen.path.endswith("0" * 12)))
    house.may_be_paid_twice |= {sha, house.dropped[house.inbox / "b.jpg"]}
    assert await house.run_once() == 1
    assert run_retry(house, str(house.job("b.jpg").id)).returncode == 0
    assert await house.run_once() == 0
    assert house.count_creates() == 3


async def test_retry_delivers_what_lies_in_the_spool_at_no_cost(house: Harness) -> None:
    house.outbox.mkdir()
    house.outbox.joinpath("sub").symlink_to("/nowhere")
    house.drop_file("sub/a.jpg")
    assert await house.run_once() == 1
    (house.outbox / "sub").unlink()
    told = run_retry(house, "--state", "held", "--rule", "scans")
    assert "for 0 credits at most" in told.stdout
    assert await house.run_once() == 0
    assert house.results() == {"sub/a.jpg"}
    assert house.count_creates() == 1


async def test_a_rejected_file_is_looked_at_again_on_retry(house: Harness) -> None:
    house.api = {"max_side": 32}
    house.drop_file("a.jpg")
    assert await house.run_once() == 1
    house.api = {}
    house.write_config()
    assert run_retry(house, "--state", "rejected").returncode == 0
    assert await house.run_once() == 0
    assert house.results() == {"a.jpg"}


async def test_copies_that_were_rejected_are_paid_once_when_they_are_retried_together(house: Harness) -> None:
    house.api = {"max_side": 32}
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        house.drop_file(name)
    assert await house.run_once() == 1
    house.api = {}
    house.write_config()
    assert run_retry(house, "--state", "rejected").returncode == 0
    assert await house.run_once() == 0
    assert house.results() == {"a.jpg", "b.jpg", "c.jpg"}
    assert house.count_creates() == 1


async def test_a_retried_image_waits_for_its_copy_in_flight(house: Harness) -> None:
    house.simulator.script.add(Fault("create", EndIn(-7)))
    house.drop_file("a.jpg")
    assert await house.run_once() == 1
    house.simulator.settings = replace(house.simulator.settings, processing=lambda: 1.0)
    house.drop_file("b.jpg")
    process = DaemonProcess(house).start()
    await wait_until(lambda: bool(house.jobs(State.PENDING)))
    assert run_retry(house, "1").returncode == 0
    await wait_until(lambda: len(house.jobs(State.DONE)) == 2)
    assert await process.stop() == 0
    assert [job.credits for job in house.jobs()] == [0, 5]


async def test_retry_refuses_what_makes_no_sense_and_changes_nothing(house: Harness) -> None:
    house.drop_file("a.jpg")
    await house.run_once()
    for arguments, code in ((["99"], 1), (["1"], 1), ([], 2), (["1", "--state", "held"], 2), (["--rule", "x", "1"], 2)):
        told = run_retry(house, *arguments)
        assert told.returncode == code, told.stderr
        assert "Traceback" not in told.stderr
    assert house.job("a.jpg").state is State.DONE


async def test_a_running_daemon_takes_a_retried_job_at_once(house: Harness) -> None:
    house.simulator.script.add(Fault("create", Reset(at="work")))
    house.may_be_paid_twice.add(house.dropped[house.drop_file("a.jpg")])
    process = DaemonProcess(house).start()
    await wait_until(lambda: house.journal.exists() and bool(house.jobs(State.HELD)))
    assert run_retry(house, "1").returncode == 0
    await wait_until(lambda: bool(house.jobs(State.DONE)), seconds=10)
    assert await process.stop() == 0


async def test_a_task_that_fails_after_it_had_succeeded_is_not_bought_again(house: Harness) -> None:
    house.simulator.script.add(Fault("download", Reply(404)))
    failed = Rewrite(lambda data: {**data, "state": -2, "image": None} if data.get("state") == 1 else data)
    queries = [seen for seen in house.simulator.requests if seen.operation == "query"]
    house.simulator.script.add(
        Fault("query", failed, when=lambda _seen: bool(house.jobs() and house.jobs()[0].credits), times=9)
    )
    house.drop_file("a.jpg")
    assert await house.run_once() == 1
    assert queries == []
    assert (house.job("a.jpg").state, house.job("a.jpg").credits) == (State.HELD, 5)
    assert house.count_creates() == 1


async def test_results_that_cannot_be_downloaded_stop_the_buying(house: Harness) -> None:
    house.api = {"max_pending": 2}
    house.top_level = {"retry_backoff": "500ms"}
    house.simulator.script.add(Fault("download", HTML_PAGE, times=999))
    for number in range(12):
        house.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(house).start()
    await wait_until(lambda: "results_unreachable" in house.daemon_report())
    bought = house.count_creates()
    assert bought < 8
    house.simulator.script.clear()
    await wait_until(lambda: len(house.jobs(State.DONE)) >= 12 - bought, seconds=60)
    assert await process.stop() == 0


async def test_failing_creates_back_off(house: Harness) -> None:
    house.api = {"qps": 10}
    house.simulator.script.add(Fault("create", Reply(500), times=999))
    for number in range(10):
        house.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(house).start()
    await wait_until(lambda: len(house.jobs(State.HELD) if house.journal.exists() else []) >= 2)
    await asyncio.sleep(1.0)
    assert len(house.jobs(State.HELD)) <= 4
    assert await process.stop() == 0


async def test_a_429_for_creates_does_not_starve_the_queries(house: Harness) -> None:
    house.api = {"qps": 20}
    house.drop_file("a.jpg", seed=100)
    house.simulator.settings = replace(house.simulator.settings, processing=(0.5, 0.1))
    process = DaemonProcess(house).start()
    await wait_until(lambda: house.journal.exists() and bool(house.jobs(State.PENDING)))
    busy = Reply(429, headers={"Retry-After": "0"})
    house.simulator.script.add(Fault("create", busy, times=9999))
    for number in range(20):
        house.drop_file(f"{number}.jpg", seed=number)
    await wait_until(lambda: bool(house.jobs(State.DONE)), seconds=20)
    await process.stop()


async def test_at_least_once_ends_after_max_attempts(house: Harness) -> None:
    house.top_level = {"charging": "at-least-once", "max_attempts": 2}
    house.simulator.script.add(Fault("create", Reset(at="work"), times=99))
    house.may_be_paid_twice.add(house.dropped[house.drop_file("a.jpg")])
    assert await house.run_once() == 1
    assert house.job("a.jpg").state is State.HELD
    assert house.count_creates() == 2


async def test_a_result_that_was_synced_before_a_crash_is_found_in_the_spool(house: Harness) -> None:
    house.simulator.script.add(Fault("download", Hang(at="body")))
    house.drop_file("a.jpg")
    process = DaemonProcess(house).start()
    await wait_until(lambda: not house.simulator.script.pending)
    await process.stop(9)
    spool = house.root / "state/journal.db.spool"
    (spool / "1.result").write_bytes(make_image("jpeg", 192, 128))
    house.simulator.tasks.clear()
    assert await house.run_once() == 0
    assert (house.outbox / "a.jpg").read_bytes() == make_image("jpeg", 192, 128)


@pytest.mark.parametrize("interrupted", [False, True])
async def test_an_interrupted_run_is_no_success(house: Harness, interrupted: bool) -> None:
    house.simulator.settings = replace(house.simulator.settings, processing=(1.0, 0.1))
    for number in range(3):
        house.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(house, ("--once",)).start()
    if interrupted:
        await wait_until(lambda: house.journal.exists() and bool(house.jobs()))
        assert await process.stop() == 1
    else:
        assert await process.wait_for_exit() == 0


async def test_a_file_that_vanished_while_it_settled_is_taken_when_it_comes_back(house: Harness) -> None:
    house.rule = {"settle": "600ms", "observer": "polling", "rescan_interval": "200ms"}
    process = DaemonProcess(house).start()
    await wait_until(lambda: "daemon.ready" in process.errors.read_text())
    house.drop_file("a.jpg")
    await asyncio.sleep(0.4)
    house.inbox.rename(house.root / "away")
    await asyncio.sleep(0.8)
    (house.root / "away").rename(house.inbox)
    await wait_until(lambda: bool(house.jobs(State.DONE)), seconds=15)
    assert await process.stop() == 0


async def test_a_free_failure_after_a_paid_retry_is_counted_as_free(house: Harness) -> None:
    house.simulator.script.add(Fault("download", Reply(403), times=3))
    house.may_be_paid_twice.add(house.dropped[house.drop_file("a.jpg")])
    assert await house.run_once() == 1
    house.simulator.tasks.clear()
    house.simulator.script.add(Fault("create", EndIn(-7)))
    assert run_retry(house, "1").returncode == 0
    assert await house.run_once() == 1
    job = house.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt) == (State.FAILED, 5, 0)
    assert house.simulator.credits_used == 5


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_an_answer_that_names_a_task_is_never_submitted_again(house: Harness, status: int) -> None:
    answer = Reply(status, b'{"status": %d, "message": "odd", "data": {"task_id": "t-1"}}' % status)
    house.simulator.script.add(Fault("create", answer))
    house.drop_file("a.jpg")
    assert await house.run_once() == 1
    assert house.count_creates() == 1
    assert house.job("a.jpg").task_id == "t-1"
