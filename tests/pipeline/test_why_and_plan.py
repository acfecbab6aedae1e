"""`why` and `plan` for real folders, before and after a run; neither submits anything."""

import asyncio
import json
import os
import time
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import Clock
from picwish_watchd.config.schema import Budget
from picwish_watchd.daemon.daemon import Daemon
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.job import ErrorCode, NewJob, Problem, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.writer import ChargeState, Journal
from picwish_watchd.reporting.plan import RulePlan, build_plan, plan_budget
from picwish_watchd.simulator import Fault, NeverEnd
from tests.support.harness import KEY, Harness, wait_until
from tests.support.sample_images import make_image


def run_command(harness: Harness, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main([*words, "--json", "-c", str(harness.write_config())])
    return code, json.loads(capsys.readouterr().out)


async def test_plan_counts_images_copies_and_rejected_before_and_after(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("copy.jpg", seed=1)
    harness.drop_file("bad.jpg", b"no picture" * 50)
    code, output = run_command(harness, capsys, "plan")
    row = output["rules"][0]
    assert (code, row["images"], row["copies"], row["rejected"], output["credits"]) == (0, 1, 1, 1, 5)
    assert harness.simulator.requests == []
    await harness.run_once()
    harness.drop_file("again.jpg", seed=1)
    _, output = run_command(harness, capsys, "plan")
    row = output["rules"][0]
    assert (row["images"], row["copies"], row["rejected"], output["credits"]) == (0, 1, 0, 0)


async def test_plan_exits_1_and_names_an_inbox_that_is_away(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.inbox.rmdir()
    code, output = run_command(harness, capsys, "plan")
    assert code == 1
    assert "inbox" in output["rules"][0]["away"]


async def test_why_explains_jobs_and_their_results(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    source = harness.drop_file("a.jpg")
    await harness.run_once()
    code, output = run_command(harness, capsys, "why", str(source))
    assert (code, output["rule"], output["job"], output["state"]) == (0, "scans", 1, "done")
    code, output = run_command(harness, capsys, "why", str(harness.outbox / "a.jpg"))
    assert (code, output["job"]) == (0, 1)
    assert "result of job 1" in output["reason"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("notes.txt", "include"), ("@eaDir/a.jpg", '"@eaDir"'), ("a.jpg.part", '"*.part"'), (".a.jpg", '".*"')],
)
async def test_why_names_the_pattern_that_ignores_a_file(
    harness: Harness, capsys: pytest.CaptureFixture[str], name: str, says: str
) -> None:
    code, output = run_command(harness, capsys, "why", str(harness.drop_file(name)))
    assert (code, output["rule"], output["job"]) == (0, None, None)
    assert says in output["reason"]


async def test_why_exits_1_for_an_unknown_path(
    harness: Harness, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for path in (harness.inbox / "none.jpg", tmp_path / "elsewhere.jpg"):
        assert run_command(harness, capsys, "why", str(path))[0] == 1


def get_plan_row(report: dict[str, Any], *keys: str) -> tuple[Any, ...]:
    return tuple(report["rules"][0][key] for key in keys)


async def test_plan_does_not_count_what_if_exists_skip_leaves_alone(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.rule = {"if_exists": "skip"}
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("b.jpg", seed=2)
    (harness.outbox).mkdir()
    (harness.outbox / "a.PNG").write_bytes(make_image("png"))
    _, output = run_command(harness, capsys, "plan")
    assert get_plan_row(output, "images", "skipped", "credits") == (1, 1, 5)
    harness.top_level = {"budget": {"per_day": 1}}
    await harness.run_once()
    _, output = run_command(harness, capsys, "plan")
    assert get_plan_row(output, "images", "skipped", "credits") == (1, 1, 5), "queued jobs are counted in the same way"


async def test_every_copy_of_a_held_image_is_held_and_costs_nothing(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    path = harness.drop_file("first.jpg", seed=1)
    journal = Journal.open_for_writing(harness.journal, Clock())
    new = NewJob(
        "scans",
        path,
        path.relative_to(harness.inbox),
        stamp_of(path.lstat()),
        sha256=harness.dropped[path],
    )
    job = journal.get(journal.add_jobs([new])[0])
    assert job is not None
    job = journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    problem = Problem(ErrorCode.SUBMIT_OUTCOME_UNKNOWN, "its answer never came whole")
    journal.transition(job, State.HELD, "held", charge=ChargeState.DOUBTFUL, problem=problem)
    journal.close()
    for number in range(3):
        harness.drop_file(f"copy{number}.jpg", seed=1)
    _, output = run_command(harness, capsys, "plan")
    assert get_plan_row(output, "images", "copies", "held", "credits") == (0, 0, 4, 0)


async def test_a_queued_job_is_counted_by_the_current_content_of_its_file(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.top_level = {"budget": {"per_day": 1}}
    paths = [harness.drop_file(f"{number}.jpg", seed=number) for number in range(3)]
    await harness.run_once()
    harness.drop_file("0.jpg", seed=10)
    paths[1].unlink()
    os.utime(paths[2], (5, 5))
    for path in paths[:2]:
        del harness.dropped[path]
    _, output = run_command(harness, capsys, "plan")
    assert get_plan_row(output, "images", "rejected", "credits") == (2, 1, 10)


async def test_plan_checks_a_fresh_file_by_its_arrival_time(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.rule = {"settle": "5m"}
    harness.drop_file("whole.jpg")
    os.utime(harness.drop_file("cut.jpg", make_image("jpeg", seed=1)[:-9]), (1, 1))
    _, output = run_command(harness, capsys, "plan")
    assert get_plan_row(output, "images", "not_whole", "rejected") == (1, 1, 0)


async def test_plan_shows_what_budget_and_surge_brake_would_delay(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.top_level = {"budget": {"per_day": 12, "per_month": 1000, "burst": {"images": 3, "per": "10m"}}}
    for number in range(5):
        harness.drop_file(f"{number}.jpg", seed=number)
    days = [datetime.now().astimezone().date()]
    _, output = run_command(harness, capsys, "plan")
    # Midnight may pass during the test.
    days.append(datetime.now().astimezone().date())
    assert (output["left_today"], output["left_this_month"], output["waiting"]) == (12, 1000, 3)
    assert date.fromisoformat(output["until"]) - timedelta(days=2) in days
    assert get_plan_row(output, "flood") == (2,)
    assert main(["plan", "-c", str(harness.write_config())]) == 0
    text = capsys.readouterr().out
    assert "5 images would cost 25 credits; the budget leaves 12 of 12 credits today and 1000 of 1000 credits" in text
    assert f"3 images would wait, the last until {output['until']} at the earliest" in text
    assert "2 images of scans would wait for `picwish-watchd approve scans`" in text
    await harness.run_once()
    _, output = run_command(harness, capsys, "plan")
    assert (output["left_today"], output["waiting"], get_plan_row(output, "flood", "images")) == (2, 3, (2, 3))
    assert harness.count_creates() == 2


@pytest.mark.parametrize(
    ("per_day", "per_month", "images", "waiting", "last"),
    [
        (10, None, 2, 0, None),
        (10, None, 7, 5, "2030-01-31"),
        # 4 in January, 4 in February, 1 in March.
        (None, 20, 9, 5, "2030-03-01"),
        (10, 20, 9, 7, "2030-03-01"),
        # Never.
        (4, None, 1, 1, None),
    ],
)
async def test_the_last_day_of_a_plan_respects_both_budget_limits(
    harness: Harness, per_day: int | None, per_month: int | None, images: int, waiting: int, last: str | None
) -> None:
    now = datetime(2030, 1, 28, 12).astimezone().timestamp()
    harness.top_level = {"budget": {"per_day": per_day, "per_month": per_month}}
    config = harness.load_config()
    assert isinstance(config.budget, Budget)
    budget_plan = plan_budget(config, JournalReader.empty(harness.journal), [RulePlan("scans", images=images)], now)
    assert (budget_plan.waiting, budget_plan.until) == (waiting, last and date.fromisoformat(last))


@pytest.mark.parametrize(
    ("priority", "per_day", "waiting", "last"),
    [
        # One of each kind a day.
        (0, 9, 6, "2030-01-31"),
        (0, 203, 0, None),
        # 5 + 4 + 4 and so on: what exceeds the rest of a day's budget leaves it to the others.
        (0, 13, 5, "2030-01-30"),
        # The expensive ones first.
        (1, 20, 4, "2030-01-29"),
        # The cheap ones first; then three expensive ones, then the last.
        (-1, 16, 4, "2030-01-30"),
        # The expensive ones never.
        (0, 4, 7, None),
    ],
)
async def test_a_plan_shares_the_budget_between_rules_as_it_is_spent(
    harness: Harness, priority: int, per_day: int, waiting: int, last: str | None
) -> None:
    now = datetime(2030, 1, 28, 12).astimezone().timestamp()
    harness.top_level, harness.rule = {"budget": {"per_day": per_day}}, {"priority": priority}
    harness.more_rules = [{"name": "hd", "inbox": "hd", "type": 1}]
    ahead = [RulePlan("scans", images=4), RulePlan("hd", images=4)]
    budget_plan = plan_budget(harness.load_config(), JournalReader.empty(harness.journal), ahead, now)
    assert (budget_plan.waiting, budget_plan.until) == (waiting, last and date.fromisoformat(last))


async def test_plan_price_ignores_sync_and_charging_but_names_a_dearer_doubt(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.drop_file("a.jpg")
    for sync, charging in ((0, "at-most-once"), (1, "at-least-once")):
        harness.rule, harness.top_level = {"sync": sync, "type": 1}, {"charging": charging}
        assert run_command(harness, capsys, "plan")[1]["credits"] == 4
        main(["plan", "-c", str(harness.write_config())])
        text = capsys.readouterr().out
        assert "1 image would cost 4 credits" in text
        assert ("may cost more" in text) is (charging == "at-least-once")


async def test_plan_counts_files_of_any_name(harness: Harness, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(["a\nb.jpg", "a\x1b[31m.jpg", "a\udcff.jpg", "-json.jpg", "\udcfe/a.jpg"]):
        harness.drop_file(name, seed=number)
    assert run_command(harness, capsys, "plan")[1]["images"] == 5


async def test_plan_does_not_count_an_inbox_on_another_mount(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.drop_file("a.jpg")
    journal = Journal.open_for_writing(harness.journal, Clock())
    journal.save_folder(harness.inbox, Mount("/gone", "nfs4"))
    journal.close()
    code, output = run_command(harness, capsys, "plan")
    assert (code, get_plan_row(output, "images")) == (1, (0,))
    assert "approve scans" in get_plan_row(output, "away")[0]


async def test_plan_beside_a_running_daemon_counts_what_is_under_way_as_paid(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.simulator.script.add(Fault("create", NeverEnd()))
    harness.drop_file("a.jpg", seed=1)
    daemon = Daemon(harness.load_config(), KEY)
    running = asyncio.create_task(daemon.run())
    await wait_until(lambda: harness.journal.exists() and len(harness.jobs(State.PENDING)) == 1)
    code, output = await asyncio.to_thread(run_command, harness, capsys, "plan")
    assert (code, get_plan_row(output, "images", "under_way", "credits")) == (0, (0, 1, 0))
    daemon.stop()
    assert await running == 0
    assert harness.count_creates() == 1


async def test_plan_reads_no_file_that_is_known(harness: Harness) -> None:
    journal = Journal.open_for_writing(harness.journal, Clock())
    data, jobs = make_image("jpeg"), []
    for number in range(1_000):
        path = harness.inbox / f"{number}.jpg"
        path.write_bytes(data[:99])
        text = Problem(ErrorCode.TRUNCATED, "cut")
        jobs.append(NewJob("scans", path, Path(path.name), stamp_of(path.lstat()), problem=text))
    journal.add_jobs(jobs)
    began = time.monotonic()
    [ahead] = build_plan(harness.load_config(), journal, time.time())
    print(f"plan of 1,000 known files: {time.monotonic() - began:.2f} s")
    assert (ahead.images, ahead.rejected, ahead.not_whole) == (0, 0, 0)
    journal.close()
