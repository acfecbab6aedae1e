"""The ledger: what each job cost or may have cost, and what counts against a budget."""

import errno
import fcntl
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from picwish_watchd.job import Job, State
from picwish_watchd.journal.writer import BudgetReachedError, ChargeState, Journal, StaleJobError
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, get_job


def submit_job(journal: Journal, credits: int = 5, name: str = "a.jpg") -> Job:
    """Add a job whose POST has begun."""
    return journal.transition(add_job(journal, name), State.SUBMITTING, "sending", reserve=credits)


def test_a_submission_counts_against_the_budget_before_anything_is_known(journal: Journal) -> None:
    job = submit_job(journal)
    assert journal.credits_since(0) == 5
    assert (job.credits, job.credits_in_doubt) == (0, 0)


@pytest.mark.parametrize(
    ("charge", "credits", "in_doubt", "counted"),
    [
        (ChargeState.RESERVED, 0, 0, 5),
        (ChargeState.SPENT, 5, 0, 5),
        (ChargeState.DOUBTFUL, 0, 5, 5),
        (ChargeState.RELEASED, 0, 0, 0),
    ],
)
def test_each_charge_state_has_its_sum(
    journal: Journal, charge: ChargeState, credits: int, in_doubt: int, counted: int
) -> None:
    job = journal.transition(submit_job(journal), State.HELD, "so be it", charge=charge)
    assert (job.credits, job.credits_in_doubt) == (credits, in_doubt)
    assert journal.credits_since(0) == counted


def test_every_submission_of_a_job_is_summed_up(journal: Journal) -> None:
    job = journal.transition(submit_job(journal), State.QUEUED, "429", charge=ChargeState.RELEASED)
    job = journal.transition(job, State.SUBMITTING, "again", reserve=5)
    job = journal.transition(job, State.HELD, "in doubt", charge=ChargeState.DOUBTFUL)
    job = journal.transition(job, State.QUEUED, "retry")
    job = journal.transition(job, State.SUBMITTING, "once more", reserve=4)
    job = journal.transition(job, State.PENDING, "took it")
    job = journal.transition(job, State.FETCHING, "done", charge=ChargeState.SPENT)
    assert (job.credits, job.credits_in_doubt) == (4, 5)
    assert journal.credits_since(0) == 9


def test_a_charge_touches_the_last_submission_of_this_job_only(journal: Journal) -> None:
    first = submit_job(journal, 5, "a.jpg")
    second = submit_job(journal, 4, "b.jpg")
    journal.transition(first, State.HELD, "in doubt", charge=ChargeState.DOUBTFUL)
    assert get_job(journal, second.id).credits_in_doubt == 0
    journal.transition(second, State.FAILED, "400", charge=ChargeState.RELEASED)
    assert get_job(journal, first.id).credits_in_doubt == 5
    assert journal.credits_since(0) == 5


def test_credits_count_from_the_moment_of_submission(journal: Journal, clock: FakeClock) -> None:
    yesterday = clock.now()
    job = submit_job(journal)
    clock.advance(86_400)
    midnight = clock.now()
    job = journal.transition(job, State.PENDING, "took it")
    journal.transition(job, State.FETCHING, "done today", charge=ChargeState.SPENT)
    submit_job(journal, 4, "b.jpg")
    assert journal.credits_since(yesterday) == 9
    assert journal.credits_since(midnight) == 4
    assert journal.credits_since(midnight + 0.001) == 0


def test_a_monthly_sum_computed_after_the_daily_one_has_both_parts(journal: Journal, clock: FakeClock) -> None:
    month = clock.now()
    submit_job(journal)
    clock.advance(86_400)
    midnight = clock.now()
    submit_job(journal, 4, "b.jpg")
    assert (journal.credits_since(midnight), journal.credits_since(month)) == (4, 9)
    released = journal.transition(submit_job(journal, 4, "c.jpg"), State.FAILED, "400", charge=ChargeState.RELEASED)
    assert released.credits == 0
    assert (journal.credits_since(midnight), journal.credits_since(month - 1)) == (4, 9)


def test_a_charge_without_a_submission_writes_nothing(journal: Journal) -> None:
    job = journal.transition(add_job(journal), State.FAILED, "never sent", charge=ChargeState.SPENT)
    assert job.credits == 0
    assert journal.credits_since(0) == 0


def test_a_sum_follows_other_processes_and_rollbacks(journal: Journal, journal_path: Path, clock: FakeClock) -> None:
    job = submit_job(journal)
    assert journal.credits_since(0) == 5
    other = Journal.open_existing(journal_path, clock)
    other.transition(get_job(other, job.id), State.HELD, "so be it", charge=ChargeState.RELEASED)
    assert (journal.credits_since(0), other.credits_since(0)) == (0, 0)
    other.close()
    with pytest.raises(StaleJobError):
        journal.transition(job, State.PENDING, "took it", charge=ChargeState.SPENT)
    assert journal.credits_since(0) == 0
    fresh = submit_job(journal, 4, "b.jpg")
    again = journal.transition(fresh, State.QUEUED, "429", charge=ChargeState.RELEASED)
    with pytest.raises(StaleJobError):
        journal.transition(fresh, State.PENDING, "took it", charge=ChargeState.SPENT)
    with pytest.raises(BudgetReachedError):
        journal.transition(again, State.SUBMITTING, "sending", reserve=5, limits=[(0.0, 4)])
    assert journal.credits_since(0) == 0


def test_a_sum_follows_every_ledger_change_without_a_recount(journal: Journal, clock: FakeClock) -> None:
    queries: list[str] = []
    journal._connection.set_trace_callback(lambda sql: queries.append(sql) if "sum(credits)" in sql else None)
    day = clock.now()
    assert journal.credits_since(day) == 0
    assert journal.credits_since(day + 10) == 0
    once = len(queries)
    jobs = [submit_job(journal, 5, f"{number}.jpg") for number in range(5)]
    assert (journal.credits_since(day), journal.credits_since(day + 10)) == (25, 0)
    pending = journal.transition(jobs[0], State.PENDING, "took it")
    journal.transition(pending, State.FETCHING, "done", charge=ChargeState.SPENT)
    journal.transition(jobs[1], State.HELD, "nobody knows", charge=ChargeState.DOUBTFUL)
    assert journal.credits_since(day) == 25
    sums = [sql for sql in queries if "FROM charge WHERE at" in sql]
    assert len(sums) == once
    journal.transition(jobs[2], State.FAILED, "400", charge=ChargeState.RELEASED)
    assert journal.credits_since(day) == 20


def test_a_submission_counts_where_only_what_came_after_its_commit_failed(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(journal, "a.jpg")
    assert journal.credits_since(0) == 0
    flock = fcntl.flock

    def broken(fd: int, operation: int) -> None:
        flock(fd, operation)
        if operation == fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    monkeypatch.setattr(fcntl, "flock", flock)
    assert get_job(journal, job.id).state is State.SUBMITTING
    assert journal.credits_since(0) == 5


def test_a_submission_that_was_not_written_down_does_not_count(journal: Journal) -> None:
    job = add_job(journal, "a.jpg")
    journal.transition(job, State.REJECTED, "it changed")
    assert journal.credits_since(0) == 0
    with pytest.raises(StaleJobError):
        journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    assert journal.credits_since(0) == 0


def test_a_limit_counts_what_was_spent_a_moment_ago(journal: Journal) -> None:
    assert journal.credits_since(0) == 0
    submit_job(journal)
    with pytest.raises(BudgetReachedError):
        journal.transition(add_job(journal, "b.jpg"), State.SUBMITTING, "sending", reserve=5, limits=[(0.0, 9)])
    assert journal.credits_since(0) == 5


def test_spending_totals_match_the_rows_of_the_ledger(journal: Journal, clock: FakeClock) -> None:
    for number, charge in enumerate((None, ChargeState.SPENT, ChargeState.DOUBTFUL, ChargeState.RELEASED) * 4):
        job = submit_job(journal, 4 + number % 2, f"{number}.jpg")
        if charge is not None:
            journal.transition(job, State.HELD, "so it is", charge=charge)
        clock.advance(7 * 3600 + 899)
    for key in ("%Y-%m-%d %H", "%Y-%m"):
        rows: Counter[tuple[str, str]] = Counter()
        for row in journal.iter_spending():
            rows[time.strftime(key, time.localtime(row.at)), "images"] += 1
            rows[time.strftime(key, time.localtime(row.at)), "credits"] += row.credits
            rows[time.strftime(key, time.localtime(row.at)), "in doubt"] += row.credits if row.is_in_doubt else 0
        brief: Counter[tuple[str, str]] = Counter()
        for spent in journal.spending_buckets():
            brief[time.strftime(key, time.localtime(spent.at)), "images"] += spent.images
            brief[time.strftime(key, time.localtime(spent.at)), "credits"] += spent.credits
            brief[time.strftime(key, time.localtime(spent.at)), "in doubt"] += spent.in_doubt
        assert brief == rows
    assert {spent.rule for spent in journal.spending_buckets()} == {"scans"}
