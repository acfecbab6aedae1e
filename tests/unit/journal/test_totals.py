"""Totals that continue from an earlier count equal a full count."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.clock import Clock
from picwish_watchd.job import ALLOWED_TRANSITIONS, ErrorCode, Problem, State
from picwish_watchd.journal import totals
from picwish_watchd.journal.totals import CreditTotals, JournalTotals, TotalsReader
from picwish_watchd.journal.writer import ChargeState, Journal
from tests.unit.journal.job_factory import add_job, get_job

DAY, MONTH = 1000.0, 500.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open_for_writing(tmp_path / "journal.db", Clock())
    yield journal
    journal.close()


def count_totals(journal: Journal, before: JournalTotals | None = None, day: float = DAY) -> JournalTotals:
    census = TotalsReader.open(journal.path)
    try:
        return census.read_totals(day, MONTH, before)
    finally:
        census.close()


def make_random_move(journal: Journal, job_id: int, chance: random.Random) -> None:
    job = get_job(journal, job_id)
    if not ALLOWED_TRANSITIONS[job.state]:
        return
    to = chance.choice(sorted(ALLOWED_TRANSITIONS[job.state]))
    problem = Problem(ErrorCode.TASK_FAILED, "so it is") if to in ("rejected", "failed", "held") else None
    if to is State.SUBMITTING:
        journal.transition(job, to, "sending", reserve=chance.choice((4, 5)), problem=problem)
    else:
        journal.transition(job, to, "on its way", charge=chance.choice((None, *ChargeState)), problem=problem)


@pytest.mark.untraced
def test_a_count_that_builds_on_another_is_the_same_as_a_fresh_one(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(totals, "_RECENT_ROWS", 3)
    monkeypatch.setattr(totals, "_RECENT_ROWS_MAX", 6)
    chance, before, last = random.Random(7), None, 0
    for turn in range(250):
        if turn % 8 == 0:
            last = add_job(journal, f"{turn}.jpg", chance.choice(("scans", "plates"))).id
        make_random_move(journal, chance.randint(1, last), chance)
        if turn % 2:
            before, fresh = count_totals(journal, before), count_totals(journal)
            assert before.jobs == fresh.jobs
            assert before.credits == fresh.credits
    jobs = Counter((job.rule, job.state) for job in journal.jobs())
    assert fresh.jobs == jobs
    spending = list(journal.iter_spending())
    assert fresh.credits.today == fresh.credits.month == sum(row.credits for row in spending)
    assert fresh.credits.doubtful == sum(row.credits for row in spending if row.is_in_doubt) > 0


def test_at_midnight_the_daily_sum_restarts_at_zero(journal: Journal) -> None:
    job = add_job(journal)
    journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    before = count_totals(journal)
    assert before.credits == CreditTotals(reserved=5, today=5, month=5)
    assert count_totals(journal, before, day=Clock().now() + 60).credits == CreditTotals(reserved=5, today=0, month=5)


def test_an_empty_journal_counts_nothing(journal: Journal) -> None:
    assert (count_totals(journal).jobs, count_totals(journal).credits) == ({}, CreditTotals())


def test_all_totals_are_of_one_moment(journal: Journal) -> None:
    census = TotalsReader.open(journal.path)
    assert census.oldest_queued() == {}
    job = add_job(journal)
    assert census.oldest_queued() == {}
    census.close()
    census = TotalsReader.open(journal.path)
    assert census.oldest_queued() == {"scans": job.created_at}
    census.close()
