"""Budgets are never exceeded, floods wait for approval, and nothing is paid for without disk space for the result."""

import json
import subprocess
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import day_start, month_start
from picwish_watchd.config.schema import Budget
from picwish_watchd.job import State
from picwish_watchd.journal.writer import BudgetReachedError, Journal
from picwish_watchd.scheduling.credit_budget import CreditBudget
from picwish_watchd.simulator import Fault, Reset
from tests.support import fork_server
from tests.support.fake_clock import FakeClock
from tests.support.harness import DaemonProcess, Harness, wait_until
from tests.unit.journal.job_factory import add_job


def run_command(harness: Harness, *arguments: str) -> subprocess.CompletedProcess[str]:
    harness.write_config()
    return fork_server.run_fork(*arguments, "-c", str(harness.root / "watchd.yaml"))


@pytest.mark.parametrize("period", ["per_day", "per_month"])
async def test_a_budget_is_never_exceeded_and_what_is_pending_is_fetched(harness: Harness, period: str) -> None:
    harness.top_level = {"budget": {period: 14}}
    for number in range(5):
        harness.drop_file(f"{number}.jpg", seed=number)
    assert await harness.run_once() == 1
    assert harness.simulator.credits_used == 10
    assert len(harness.jobs(State.DONE)) == 2
    assert len(harness.jobs(State.QUEUED)) == 3
    harness.top_level = {"budget": {period: 15}}
    assert await harness.run_once() == 1
    assert harness.simulator.credits_used == 15
    harness.top_level = {}
    assert await harness.run_once() == 0


async def test_doubtful_credits_count_as_spent(harness: Harness) -> None:
    harness.top_level = {"budget": {"per_day": 9}}
    harness.api = {"qps": 10}
    harness.simulator.script.add(Fault("create", Reset(at="work")))
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("b.jpg", seed=2)
    assert await harness.run_once() == 1
    assert harness.count_creates() == 1


async def test_a_reached_budget_is_reported_and_a_cheaper_rule_goes_on(harness: Harness) -> None:
    harness.top_level = {"budget": {"per_day": 9}}
    harness.more_rules = [{"name": "cheap", "inbox": "cheap", "type": 1}]
    (harness.root / "cheap").mkdir()
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
    process = DaemonProcess(harness).start()
    await wait_until(lambda: "budget" in harness.daemon_report())
    harness.drop_file("c.jpg", seed=50, inbox="cheap")
    await wait_until(lambda: len(harness.jobs(State.DONE)) == 2)
    status = json.loads(run_command(harness, "status", "--json").stdout)
    assert status["credits"] == {"today": 9, "month": 9, "per_day": 9, "per_month": None}
    assert await process.stop() == 0
    assert harness.simulator.credits_used == 9


async def test_a_flood_waits_for_approval_also_across_a_restart(harness: Harness) -> None:
    harness.top_level = {"budget": {"burst": {"images": 3, "per": "10m"}}}
    harness.more_rules = [{"name": "other", "inbox": "other"}]
    harness.drop_file("o.jpg", seed=90, inbox="other")
    for number in range(8):
        harness.drop_file(f"{number}.jpg", seed=number)
    assert await harness.run_once() == 1
    assert await harness.run_once() == 1
    assert harness.count_creates() == 4
    rules = json.loads(run_command(harness, "status", "--json").stdout)["rules"]
    assert rules[0]["blocked"]["code"] == "burst"
    assert "5 images (25 credits)" in rules[0]["blocked"]["message"]
    assert rules[1]["blocked"] is None
    assert "approve scans" in run_command(harness, "status").stdout
    assert "5 images of scans go on, for 25 credits" in run_command(harness, "approve", "scans").stdout
    assert await harness.run_once() == 0
    assert harness.count_creates() == 9


async def test_a_flood_of_one_image_is_worded_in_the_singular(
    harness: Harness, capsys: pytest.CaptureFixture[str]
) -> None:
    harness.top_level = {"budget": {"burst": {"images": 1, "per": "10m"}}}
    for number in range(2):
        harness.drop_file(f"{number}.jpg", seed=number)
    harness.drop_file("bad.jpg", b"no picture at all" * 9)
    assert await harness.run_once() == 1
    for words, says in (
        (["check"], ": 1 rule\n"),
        (["status"], "1 image (5 credits) waits for `picwish-watchd approve scans`"),
        (["approve", "scans"], "1 image of scans goes on, for 5 credits at most\n"),
        (["retry", "--state", "rejected"], "1 job goes on, for 5 credits at most\n"),
        (["spend"], "5 credits for 1 image\n"),
    ):
        capsys.readouterr()
        main([*words, "-c", str(harness.write_config())])
        assert says in capsys.readouterr().out


async def test_a_steady_trickle_is_no_flood(harness: Harness) -> None:
    harness.top_level = {"budget": {"burst": {"images": 1, "per": "1ms"}}}
    for number in range(3):
        harness.drop_file(f"{number}.jpg", seed=number)
        assert await harness.run_once() == 0
    assert harness.count_creates() == 3


async def test_a_later_copy_of_an_image_in_a_flood_waits_with_it(harness: Harness) -> None:
    harness.top_level = {"budget": {"burst": {"images": 1, "per": "10m"}}}
    for number in range(2):
        harness.drop_file(f"{number}.jpg", seed=number)
    assert await harness.run_once() == 1
    (waiting,) = harness.jobs(State.QUEUED)
    harness.top_level = {"budget": {"burst": {"images": 1, "per": "1ms"}}}
    copy = harness.drop_file("copy.jpg", waiting.source.read_bytes())
    assert "approve scans" in run_command(harness, "why", str(copy)).stdout
    assert await harness.run_once() == 1
    forecast = json.loads(run_command(harness, "status", "--json").stdout)["forecast"]
    assert (forecast["images"], forecast["credits"]) == (0, 0)
    assert "approve scans" in run_command(harness, "why", str(copy)).stdout
    assert "2 images of scans go on" in run_command(harness, "approve", "scans").stdout
    assert await harness.run_once() == 0
    assert (harness.count_creates(), len(harness.results())) == (2, 3)


async def test_approve_of_an_unknown_rule_is_wrong_usage(harness: Harness) -> None:
    harness.drop_file("a.jpg")
    await harness.run_once()
    output = run_command(harness, "approve", "nobody")
    assert output.returncode == 2
    assert "its rules are scans" in output.stderr


async def test_approve_accepts_a_folder_that_was_created_again(harness: Harness) -> None:
    harness.drop_file("a.jpg", seed=1)
    await harness.run_once()
    (harness.outbox / "a.jpg").unlink()
    harness.outbox.rmdir()
    harness.drop_file("b.jpg", seed=2)
    assert await harness.run_once() == 1
    assert harness.count_creates() == 1
    assert run_command(harness, "approve", "scans").returncode == 0
    assert await harness.run_once() == 0
    assert harness.results() == {"b.jpg"}


async def test_nothing_is_paid_for_without_disk_space_for_the_result(harness: Harness) -> None:
    harness.top_level = {"min_free": "1000000GiB"}
    harness.drop_file("a.jpg")
    assert await harness.run_once() == 1
    assert harness.count_creates() == 0
    assert "min_free" in (harness.job("a.jpg").note or "")
    assert run_command(harness, "check").returncode != 0


def test_the_monthly_budget_counts_earlier_days(tmp_path: Path) -> None:
    noon = month_start(FakeClock().now()) + 12 * 3600
    later, budget = noon + 5 * 86400, Budget(per_day=14, per_month=14)
    journal = Journal.open_for_writing(tmp_path / "journal.db", FakeClock(noon))
    journal.transition(add_job(journal), State.SUBMITTING, "intent", reserve=5, submitted_at=noon)
    credit_budget = CreditBudget(budget, later)
    assert credit_budget.remaining(journal) == (14, 9)
    assert credit_budget.why_exceeded(journal, 9) is None
    assert "14 credits a month" in (credit_budget.why_exceeded(journal, 10) or "")
    with pytest.raises(BudgetReachedError):
        journal.transition(
            add_job(journal, "b.jpg"),
            State.SUBMITTING,
            "intent",
            reserve=10,
            limits=credit_budget.limits(),
            submitted_at=later,
        )
    journal.close()


async def test_spend_lists_credits_by_day_month_and_rule(harness: Harness) -> None:
    harness.more_rules = [{"name": "cheap", "inbox": "cheap", "type": 1}]
    harness.drop_file("a.jpg", seed=1)
    harness.drop_file("c.jpg", seed=2, inbox="cheap")
    await harness.run_once()
    by_rule = json.loads(run_command(harness, "spend", "--by", "rule", "--json").stdout)
    assert by_rule["rows"] == [
        {"rule": "cheap", "images": 1, "credits": 4, "credits_in_doubt": 0},
        {"rule": "scans", "images": 1, "credits": 5, "credits_in_doubt": 0},
    ]
    for by in ("day", "month"):
        output = json.loads(run_command(harness, "spend", "--by", by, "--json").stdout)
        assert output["credits"] == 9
        assert len(output["rows"]) == 1
    assert "9 credits for 2 images" in run_command(harness, "spend").stdout


async def test_commands_work_before_the_first_run(harness: Harness, tmp_path: Path) -> None:
    assert not (tmp_path / "state").exists()
    for arguments in (["status"], ["status", "--json"], ["jobs"], ["spend"], ["spend", "--json"]):
        output = run_command(harness, *arguments)
        assert output.returncode == 0, output.stderr
    assert not (tmp_path / "state").exists()


def test_days_and_months_begin_at_local_midnight_also_when_the_clocks_change(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        # The time is 2026-03-29 12:00 in Berlin, where the clocks went forward at 02:00.
        noon = 1_774_778_400.0
        assert noon - day_start(noon) == 11 * 3600
        assert time.localtime(month_start(noon))[:4] == (2026, 3, 1, 0)
    finally:
        monkeypatch.undo()
        time.tzset()
