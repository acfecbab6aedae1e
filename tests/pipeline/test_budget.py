"""Budgets are never exceeded, floods wait for a person, and nothing is bought without room for it."""

import json
import subprocess
from pathlib import Path

import pytest

from picwish_watchd.cli.main import main
from picwish_watchd.clock import day_start, month_start
from picwish_watchd.config.schema import Budget
from picwish_watchd.job import State
from picwish_watchd.journal.writer import BudgetReachedError, Journal
from picwish_watchd.scheduling.credit_budget import Purse
from picwish_watchd.simulator import Fault, Reset
from tests.support import forks
from tests.support.clock import FakeClock
from tests.support.house import House, Process, until
from tests.unit.journal.journalkit import added


def command(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    house.configure()
    return forks.run(*arguments, "-c", str(house.root / "watchd.yaml"))


@pytest.mark.parametrize("period", ["per_day", "per_month"])
async def test_a_budget_is_never_exceeded_and_what_is_pending_is_fetched(house: House, period: str) -> None:
    house.top = {"budget": {period: 14}}
    for number in range(5):
        house.drop(f"{number}.jpg", seed=number)
    assert await house.drain() == 1
    assert house.simulator.credits == 10
    assert len(house.jobs(State.DONE)) == 2
    assert len(house.jobs(State.QUEUED)) == 3
    house.top = {"budget": {period: 15}}
    assert await house.drain() == 1
    assert house.simulator.credits == 15
    house.top = {}
    assert await house.drain() == 0


async def test_doubtful_credits_count_as_spent(house: House) -> None:
    house.top = {"budget": {"per_day": 9}}
    house.api = {"qps": 10}
    house.simulator.script.add(Fault("create", Reset(at="work")))
    house.drop("a.jpg", seed=1)
    house.drop("b.jpg", seed=2)
    assert await house.drain() == 1
    assert house.creates() == 1


async def test_a_reached_budget_is_told_and_a_cheaper_rule_goes_on(house: House) -> None:
    house.top = {"budget": {"per_day": 9}}
    house.more_rules = [{"name": "cheap", "inbox": "cheap", "type": 1}]
    (house.root / "cheap").mkdir()
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
    process = Process(house).start()
    await until(lambda: "budget" in house.report())
    house.drop("c.jpg", seed=50, inbox="cheap")
    await until(lambda: len(house.jobs(State.DONE)) == 2)
    status = json.loads(command(house, "status", "--json").stdout)
    assert status["credits"] == {"today": 9, "month": 9, "per_day": 9, "per_month": None}
    assert await process.stop() == 0
    assert house.simulator.credits == 9


async def test_a_flood_waits_as_one_until_a_person_approves_and_a_restart_changes_nothing(house: House) -> None:
    house.top = {"budget": {"burst": {"images": 3, "per": "10m"}}}
    house.more_rules = [{"name": "other", "inbox": "other"}]
    house.drop("o.jpg", seed=90, inbox="other")
    for number in range(8):
        house.drop(f"{number}.jpg", seed=number)
    assert await house.drain() == 1
    assert await house.drain() == 1
    assert house.creates() == 4
    rules = json.loads(command(house, "status", "--json").stdout)["rules"]
    assert rules[0]["blocked"]["code"] == "burst"
    assert "5 images (25 credits)" in rules[0]["blocked"]["message"]
    assert rules[1]["blocked"] is None
    assert "approve scans" in command(house, "status").stdout
    assert "5 images of scans go on, for 25 credits" in command(house, "approve", "scans").stdout
    assert await house.drain() == 0
    assert house.creates() == 9


async def test_one_image_is_spoken_of_as_one(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.top = {"budget": {"burst": {"images": 1, "per": "10m"}}}
    for number in range(2):
        house.drop(f"{number}.jpg", seed=number)
    house.drop("bad.jpg", b"no picture at all" * 9)
    assert await house.drain() == 1
    for words, says in (
        (["check"], ": 1 rule\n"),
        (["status"], "1 image (5 credits) waits for `picwish-watchd approve scans`"),
        (["approve", "scans"], "1 image of scans goes on, for 5 credits at most\n"),
        (["retry", "--state", "rejected"], "1 job goes on, for 5 credits at most\n"),
        (["spend"], "5 credits for 1 image\n"),
    ):
        capsys.readouterr()
        main([*words, "-c", str(house.configure())])
        assert says in capsys.readouterr().out


async def test_a_steady_trickle_is_no_flood(house: House) -> None:
    house.top = {"budget": {"burst": {"images": 1, "per": "1ms"}}}
    for number in range(3):
        house.drop(f"{number}.jpg", seed=number)
        assert await house.drain() == 0
    assert house.creates() == 3


async def test_a_later_copy_of_an_image_in_a_flood_waits_with_it(house: House) -> None:
    house.top = {"budget": {"burst": {"images": 1, "per": "10m"}}}
    for number in range(2):
        house.drop(f"{number}.jpg", seed=number)
    assert await house.drain() == 1
    (waiting,) = house.jobs(State.QUEUED)
    house.top = {"budget": {"burst": {"images": 1, "per": "1ms"}}}
    copy = house.drop("copy.jpg", waiting.source.read_bytes())
    assert "approve scans" in command(house, "why", str(copy)).stdout
    assert await house.drain() == 1
    forecast = json.loads(command(house, "status", "--json").stdout)["forecast"]
    assert (forecast["images"], forecast["credits"]) == (0, 0)
    assert "approve scans" in command(house, "why", str(copy)).stdout
    assert "2 images of scans go on" in command(house, "approve", "scans").stdout
    assert await house.drain() == 0
    assert (house.creates(), len(house.results())) == (2, 3)


async def test_approve_of_an_unknown_rule_is_wrong_usage(house: House) -> None:
    house.drop("a.jpg")
    await house.drain()
    told = command(house, "approve", "nobody")
    assert told.returncode == 2
    assert "there are scans" in told.stderr


async def test_approve_accepts_that_a_folder_is_made_anew(house: House) -> None:
    house.drop("a.jpg", seed=1)
    await house.drain()
    (house.outbox / "a.jpg").unlink()
    house.outbox.rmdir()
    house.drop("b.jpg", seed=2)
    assert await house.drain() == 1
    assert house.creates() == 1
    assert command(house, "approve", "scans").returncode == 0
    assert await house.drain() == 0
    assert house.results() == {"b.jpg"}


async def test_nothing_is_bought_without_room_for_it(house: House) -> None:
    house.top = {"min_free": "1000000GiB"}
    house.drop("a.jpg")
    assert await house.drain() == 1
    assert house.creates() == 0
    assert "min_free" in (house.job("a.jpg").note or "")
    assert command(house, "check").returncode != 0


def test_the_budget_of_a_month_counts_what_its_earlier_days_have_spent(tmp_path: Path) -> None:
    noon = month_start(FakeClock().now()) + 12 * 3600
    later, budget = noon + 5 * 86400, Budget(per_day=14, per_month=14)
    journal = Journal.open_for_writing(tmp_path / "journal.db", FakeClock(noon))
    journal.move(added(journal), State.SUBMITTING, "intent", reserve=5, submitted_at=noon)
    purse = Purse(budget, later)
    assert purse.left(journal) == (14, 9)
    assert purse.shortage(journal, 9) is None
    assert "14 credits a month" in (purse.shortage(journal, 10) or "")
    with pytest.raises(BudgetReachedError):
        journal.move(
            added(journal, "b.jpg"), State.SUBMITTING, "intent", reserve=10, caps=purse.caps(), submitted_at=later
        )
    journal.close()


async def test_spend_tells_credits_by_day_month_and_rule(house: House) -> None:
    house.more_rules = [{"name": "cheap", "inbox": "cheap", "type": 1}]
    house.drop("a.jpg", seed=1)
    house.drop("c.jpg", seed=2, inbox="cheap")
    await house.drain()
    by_rule = json.loads(command(house, "spend", "--by", "rule", "--json").stdout)
    assert by_rule["rows"] == [
        {"rule": "cheap", "images": 1, "credits": 4, "credits_in_doubt": 0},
        {"rule": "scans", "images": 1, "credits": 5, "credits_in_doubt": 0},
    ]
    for by in ("day", "month"):
        told = json.loads(command(house, "spend", "--by", by, "--json").stdout)
        assert told["credits"] == 9
        assert len(told["rows"]) == 1
    assert "9 credits for 2 images" in command(house, "spend").stdout


async def test_commands_have_an_answer_before_anything_has_run(house: House, tmp_path: Path) -> None:
    assert not (tmp_path / "state").exists()
    for arguments in (["status"], ["status", "--json"], ["jobs"], ["spend"], ["spend", "--json"]):
        told = command(house, *arguments)
        assert told.returncode == 0, told.stderr
    assert not (tmp_path / "state").exists()


def test_days_and_months_begin_at_local_midnight_also_when_the_clocks_change(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        noon = 1_774_778_400.0  # 2026-03-29 12:00 in Berlin: the clocks went forward at 2:00
        assert noon - day_start(noon) == 11 * 3600
        assert time.localtime(month_start(noon))[:4] == (2026, 3, 1, 0)
    finally:
        monkeypatch.undo()
        time.tzset()
