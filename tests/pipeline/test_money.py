"""One content, one charge; `retry`; and what closes the gate before more is lost."""

import asyncio
import subprocess
from dataclasses import replace

import pytest

from picwish_watchd.job import ErrorCode, State
from picwish_watchd.pipeline import submit
from picwish_watchd.simulator import HTML_PAGE, EndIn, Fault, Hang, Reply, Reset, Rewrite
from tests.support import forks
from tests.support.house import House, Process, until
from tests.support.pictures import picture


def retry(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    return forks.run("retry", *arguments, "-c", str(house.root / "watchd.yaml"))


async def test_a_copy_waits_for_its_first_and_is_delivered_from_its_result(house: House) -> None:
    data = picture("jpeg")
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        house.drop(name, data)
    assert await house.drain() == 0
    assert [job.credits for job in house.jobs()] == [5, 0, 0]
    assert house.results() == {"a.jpg", "b.jpg", "sub/c.jpg"}
    assert house.creates() == 1


async def test_a_copy_goes_on_as_soon_as_the_one_before_it_is_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "_IDLE", 3600.0)  # no look at the journal comes to its help
    data = picture("jpeg")
    for number in range(5):
        house.drop(f"{number}.jpg", data)
    assert await house.drain() == 0
    assert (house.creates(), len(house.results())) == (1, 5)


async def test_a_copy_is_bought_when_the_first_result_stands_no_more(house: House) -> None:
    data = picture("jpeg")
    house.forgiven.add(house.dropped[house.drop("a.jpg", data)])
    await house.drain()
    (house.outbox / "a.jpg").unlink()
    house.drop("b.jpg", data)
    assert await house.drain() == 0
    assert house.creates() == 2


async def test_a_copy_of_a_held_picture_is_held_and_released_with_it(house: House) -> None:
    data = picture("jpeg")
    house.simulator.script.add(Fault("create", Reset(at="work")))
    house.forgiven.add(house.dropped[house.drop("a.jpg", data)])
    assert await house.drain() == 1
    house.drop("b.jpg", data)
    assert await house.drain() == 1
    problem = house.job("b.jpg").problem
    assert problem is not None
    assert problem.code is ErrorCode.DUPLICATE_OF_HELD
    assert house.creates() == 1
    told = retry(house, str(house.job("a.jpg").id))
    assert told.returncode == 0, told.stderr
    assert "2 jobs go on, for 5 credits at most" in told.stdout
    assert await house.drain() == 0
    assert house.creates() == 2
    assert house.results() == {"a.jpg", "b.jpg"}


async def test_once_ends_where_the_first_of_two_copies_waits_for_a_person(house: House) -> None:
    house.outbox.mkdir()
    (house.outbox / "sub").touch()
    house.drop("sub/a.jpg")
    house.rule = {"exclude": ["b.jpg"]}
    assert await house.drain() == 1
    house.drop("b.jpg")
    house.rule = {}
    assert await house.drain() == 1
    assert house.jobs(State.QUEUED) == house.jobs()
    (house.outbox / "sub").unlink()
    assert await house.drain() == 0
    assert house.creates() == 1


async def test_an_own_result_that_comes_back_into_an_inbox_is_not_sent(house: House) -> None:
    house.drop("a.jpg")
    await house.drain()
    house.drop("back.jpg", (house.outbox / "a.jpg").read_bytes())
    assert await house.drain() == 0
    assert (house.job("back.jpg").state, house.job("back.jpg").credits) == (State.DONE, 0)
    assert house.creates() == 1


async def test_a_renamed_rule_does_not_buy_its_inbox_again(house: House) -> None:
    house.drop("a.jpg")
    await house.drain()
    house.rule = {"name": "renamed"}
    assert await house.drain() == 0
    assert house.creates() == 1


async def test_links_from_an_inbox_to_results_or_originals_buy_nothing(house: House) -> None:
    house.rule = {"follow_symlinks": True, "on_success": "move", "archive": "archive"}
    (house.root / "archive").mkdir()
    house.outbox.mkdir()
    (house.inbox / "old").symlink_to(house.root / "archive")
    (house.inbox / "new").symlink_to(house.outbox)
    house.drop("a.jpg")
    for _ in range(3):
        assert await house.drain() == 0
    (house.inbox / "one.jpg").symlink_to(house.outbox / "a.jpg")
    assert await house.drain() == 0
    assert house.creates() == 1


async def test_retry_asks_for_the_old_task_first_and_pays_only_if_it_is_gone(house: House) -> None:
    house.top = {"retry_backoff": "10ms"}
    house.simulator.script.add(Fault("query", Reply(404), times=4, when=lambda seen: not seen.path.endswith("0" * 12)))
    sha = house.dropped[house.drop("a.jpg")]
    assert await house.drain() == 1
    assert retry(house, "--state", "held").returncode == 0
    assert await house.drain() == 0
    assert house.creates() == 1
    assert house.job("a.jpg").credits == 5

    house.drop("b.jpg", seed=2)
    house.simulator.script.add(Fault("query", Reply(404), times=8, when=lambda seen: not seen.path.endswith("0" * 12)))
    house.forgiven |= {sha, house.dropped[house.inbox / "b.jpg"]}
    assert await house.drain() == 1
    assert retry(house, str(house.job("b.jpg").id)).returncode == 0
    assert await house.drain() == 0
    assert house.creates() == 3


async def test_retry_delivers_what_lies_in_the_spool_at_no_cost(house: House) -> None:
    house.outbox.mkdir()
    house.outbox.joinpath("sub").symlink_to("/nowhere")
    house.drop("sub/a.jpg")
    assert await house.drain() == 1
    (house.outbox / "sub").unlink()
    told = retry(house, "--state", "held", "--rule", "scans")
    assert "for 0 credits at most" in told.stdout
    assert await house.drain() == 0
    assert house.results() == {"sub/a.jpg"}
    assert house.creates() == 1


async def test_a_rejected_file_is_looked_at_again_on_retry(house: House) -> None:
    house.api = {"max_side": 32}
    house.drop("a.jpg")
    assert await house.drain() == 1
    house.api = {}
    house.configure()
    assert retry(house, "--state", "rejected").returncode == 0
    assert await house.drain() == 0
    assert house.results() == {"a.jpg"}


async def test_copies_that_were_rejected_are_paid_once_when_they_are_retried_together(house: House) -> None:
    house.api = {"max_side": 32}
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        house.drop(name)
    assert await house.drain() == 1
    house.api = {}
    house.configure()
    assert retry(house, "--state", "rejected").returncode == 0
    assert await house.drain() == 0
    assert house.results() == {"a.jpg", "b.jpg", "c.jpg"}
    assert house.creates() == 1


async def test_a_failed_picture_that_is_retried_waits_for_its_copy_that_is_under_way(house: House) -> None:
    house.simulator.script.add(Fault("create", EndIn(-7)))
    house.drop("a.jpg")
    assert await house.drain() == 1
    house.simulator.settings = replace(house.simulator.settings, processing=lambda: 1.0)
    house.drop("b.jpg")
    process = Process(house).start()
    await until(lambda: bool(house.jobs(State.PENDING)))
    assert retry(house, "1").returncode == 0
    await until(lambda: len(house.jobs(State.DONE)) == 2)
    assert await process.stop() == 0
    assert [job.credits for job in house.jobs()] == [0, 5]


async def test_retry_refuses_what_makes_no_sense_and_changes_nothing(house: House) -> None:
    house.drop("a.jpg")
    await house.drain()
    for arguments, code in ((["99"], 1), (["1"], 1), ([], 2), (["1", "--state", "held"], 2), (["--rule", "x", "1"], 2)):
        told = retry(house, *arguments)
        assert told.returncode == code, told.stderr
        assert "Traceback" not in told.stderr
    assert house.job("a.jpg").state is State.DONE


async def test_a_running_daemon_takes_a_retried_job_at_once(house: House) -> None:
    house.simulator.script.add(Fault("create", Reset(at="work")))
    house.forgiven.add(house.dropped[house.drop("a.jpg")])
    process = Process(house).start()
    await until(lambda: house.journal.exists() and bool(house.jobs(State.HELD)))
    assert retry(house, "1").returncode == 0
    await until(lambda: bool(house.jobs(State.DONE)), seconds=10)
    assert await process.stop() == 0


async def test_a_task_that_fails_after_it_had_succeeded_is_not_bought_again(house: House) -> None:
    house.simulator.script.add(Fault("download", Reply(404)))
    failed = Rewrite(lambda data: {**data, "state": -2, "image": None} if data.get("state") == 1 else data)
    queries = [seen for seen in house.simulator.requests if seen.operation == "query"]
    house.simulator.script.add(
        Fault("query", failed, when=lambda _seen: bool(house.jobs() and house.jobs()[0].credits), times=9)
    )
    house.drop("a.jpg")
    assert await house.drain() == 1
    assert queries == []
    assert (house.job("a.jpg").state, house.job("a.jpg").credits) == (State.HELD, 5)
    assert house.creates() == 1


async def test_results_that_cannot_be_downloaded_stop_the_buying(house: House) -> None:
    house.api = {"max_pending": 2}
    house.top = {"retry_backoff": "500ms"}
    house.simulator.script.add(Fault("download", HTML_PAGE, times=999))
    for number in range(12):
        house.drop(f"{number}.jpg", seed=number)
    process = Process(house).start()
    await until(lambda: "results_unreachable" in house.report())
    bought = house.creates()
    assert bought < 8
    house.simulator.script.clear()
    await until(lambda: len(house.jobs(State.DONE)) >= 12 - bought, seconds=60)
    assert await process.stop() == 0


async def test_creates_that_fail_are_tried_ever_more_seldom(house: House) -> None:
    house.api = {"qps": 10}
    house.simulator.script.add(Fault("create", Reply(500), times=999))
    for number in range(10):
        house.drop(f"{number}.jpg", seed=number)
    process = Process(house).start()
    await until(lambda: len(house.jobs(State.HELD) if house.journal.exists() else []) >= 2)
    await asyncio.sleep(1.0)
    assert len(house.jobs(State.HELD)) <= 4
    assert await process.stop() == 0


async def test_a_429_for_creates_does_not_starve_the_queries(house: House) -> None:
    house.api = {"qps": 20}
    house.drop("a.jpg", seed=100)
    house.simulator.settings = replace(house.simulator.settings, processing=(0.5, 0.1))
    process = Process(house).start()
    await until(lambda: house.journal.exists() and bool(house.jobs(State.PENDING)))
    busy = Reply(429, headers={"Retry-After": "0"})
    house.simulator.script.add(Fault("create", busy, times=9999))
    for number in range(20):
        house.drop(f"{number}.jpg", seed=number)
    await until(lambda: bool(house.jobs(State.DONE)), seconds=20)
    await process.stop()


async def test_at_least_once_ends_after_max_attempts(house: House) -> None:
    house.top = {"charging": "at-least-once", "max_attempts": 2}
    house.simulator.script.add(Fault("create", Reset(at="work"), times=99))
    house.forgiven.add(house.dropped[house.drop("a.jpg")])
    assert await house.drain() == 1
    assert house.job("a.jpg").state is State.HELD
    assert house.creates() == 2


async def test_a_result_that_was_synced_before_a_crash_is_found_in_the_spool(house: House) -> None:
    house.simulator.script.add(Fault("download", Hang(at="body")))
    house.drop("a.jpg")
    process = Process(house).start()
    await until(lambda: not house.simulator.script.pending)
    await process.stop(9)
    spool = house.root / "state/journal.db.spool"
    (spool / "1.result").write_bytes(picture("jpeg", 192, 128))
    house.simulator.tasks.clear()
    assert await house.drain() == 0
    assert (house.outbox / "a.jpg").read_bytes() == picture("jpeg", 192, 128)


@pytest.mark.parametrize("interrupted", [False, True])
async def test_an_interrupted_run_is_no_success(house: House, interrupted: bool) -> None:
    house.simulator.settings = replace(house.simulator.settings, processing=(1.0, 0.1))
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    process = Process(house, ("--once",)).start()
    if interrupted:
        await until(lambda: house.journal.exists() and bool(house.jobs()))
        assert await process.stop() == 1
    else:
        assert await process.ended() == 0


async def test_a_file_that_vanished_while_it_settled_is_taken_when_it_comes_back(house: House) -> None:
    house.rule = {"settle": "600ms", "observer": "polling", "rescan_interval": "200ms"}
    process = Process(house).start()
    await until(lambda: "daemon.ready" in process.errors.read_text())
    house.drop("a.jpg")
    await asyncio.sleep(0.4)
    house.inbox.rename(house.root / "away")
    await asyncio.sleep(0.8)
    (house.root / "away").rename(house.inbox)
    await until(lambda: bool(house.jobs(State.DONE)), seconds=15)
    assert await process.stop() == 0


async def test_a_free_failure_after_a_paid_retry_is_counted_as_free(house: House) -> None:
    house.simulator.script.add(Fault("download", Reply(403), times=3))
    house.forgiven.add(house.dropped[house.drop("a.jpg")])
    assert await house.drain() == 1
    house.simulator.tasks.clear()
    house.simulator.script.add(Fault("create", EndIn(-7)))
    assert retry(house, "1").returncode == 0
    assert await house.drain() == 1
    job = house.job("a.jpg")
    assert (job.state, job.credits, job.credits_in_doubt) == (State.FAILED, 5, 0)
    assert house.simulator.credits == 5


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_an_answer_that_names_a_task_is_never_submitted_again(house: House, status: int) -> None:
    answer = Reply(status, b'{"status": %d, "message": "odd", "data": {"task_id": "t-1"}}' % status)
    house.simulator.script.add(Fault("create", answer))
    house.drop("a.jpg")
    assert await house.drain() == 1
    assert house.creates() == 1
    assert house.job("a.jpg").task_id == "t-1"
