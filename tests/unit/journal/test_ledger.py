"""The ledger: what each job cost, may have cost, and what counts against a budget."""

import pytest

from picwish_watchd.job import Job, State
from picwish_watchd.journal import Charge, Journal
from tests.support.clock import FakeClock
from tests.unit.journal.journalkit import added, now


def submitted(journal: Journal, credits: int = 5, name: str = "a.jpg") -> Job:
    """A job whose POST has begun."""
    return journal.move(added(journal, name), State.SUBMITTING, "sending", reserve=credits)


def test_a_submission_counts_against_the_budget_before_anything_is_known(journal: Journal) -> None:
    job = submitted(journal)
    assert journal.credits_since(0) == 5
    assert (job.credits, job.credits_in_doubt) == (0, 0)


@pytest.mark.parametrize(
    ("charge", "credits", "in_doubt", "counted"),
    [
        (Charge.RESERVED, 0, 0, 5),
        (Charge.SPENT, 5, 0, 5),
        (Charge.DOUBTFUL, 0, 5, 5),
        (Charge.RELEASED, 0, 0, 0),
    ],
)
def test_each_word_of_the_ledger_has_its_sum(
    journal: Journal, charge: Charge, credits: int, in_doubt: int, counted: int
) -> None:
    job = journal.move(submitted(journal), State.HELD, "so be it", charge=charge)
    assert (job.credits, job.credits_in_doubt) == (credits, in_doubt)
    assert journal.credits_since(0) == counted


def test_every_submission_of_a_job_is_summed_up(journal: Journal) -> None:
    job = journal.move(submitted(journal), State.QUEUED, "429", charge=Charge.RELEASED)
    job = journal.move(job, State.SUBMITTING, "again", reserve=5)
    job = journal.move(job, State.HELD, "in doubt", charge=Charge.DOUBTFUL)
    job = journal.move(job, State.QUEUED, "retry")
    job = journal.move(job, State.SUBMITTING, "once more", reserve=4)
    job = journal.move(job, State.PENDING, "took it")
    job = journal.move(job, State.FETCHING, "done", charge=Charge.SPENT)
    assert (job.credits, job.credits_in_doubt) == (4, 5)
    assert journal.credits_since(0) == 9


def test_a_charge_touches_the_last_submission_of_this_job_only(journal: Journal) -> None:
    first = submitted(journal, 5, "a.jpg")
    second = submitted(journal, 4, "b.jpg")
    journal.move(first, State.HELD, "in doubt", charge=Charge.DOUBTFUL)
    assert now(journal, second.id).credits_in_doubt == 0
    journal.move(second, State.FAILED, "400", charge=Charge.RELEASED)
    assert now(journal, first.id).credits_in_doubt == 5
    assert journal.credits_since(0) == 5


def test_credits_count_from_the_moment_of_submission(journal: Journal, clock: FakeClock) -> None:
    yesterday = clock.now()
    job = submitted(journal)
    clock.advance(86_400)
    midnight = clock.now()
    job = journal.move(job, State.PENDING, "took it")
    journal.move(job, State.FETCHING, "done today", charge=Charge.SPENT)
    submitted(journal, 4, "b.jpg")
    assert journal.credits_since(yesterday) == 9
    assert journal.credits_since(midnight) == 4
    assert journal.credits_since(midnight + 0.001) == 0


def test_a_charge_without_a_submission_writes_nothing(journal: Journal) -> None:
    job = journal.move(added(journal), State.FAILED, "never sent", charge=Charge.SPENT)
    assert job.credits == 0
    assert journal.credits_since(0) == 0
