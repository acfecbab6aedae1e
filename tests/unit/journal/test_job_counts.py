"""The stock: a count that is brought up to date is what counting everything would give."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from picwish_watchd.job import ALLOWED_TRANSITIONS, State
from picwish_watchd.journal import job_counts
from picwish_watchd.journal.job_counts import Stock
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.status_reader import Overview
from picwish_watchd.journal.writer import Charge, Journal, StaleJobError
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, add_job_in_state, get_job, new_job


def count_from_scratch(path: Path) -> dict[str, dict[State, int]]:
    """As a reader counts that knows nothing yet."""
    reader = JournalReader.open(path)
    try:
        counts = reader.counts()
        assert counts == {
            rule: {state: n for state in sorted(State) if (n := len(reader.jobs(states=[state], rule=rule)))}
            for rule in counts
        }
        return counts
    finally:
        reader.close()


def make_random_change(journal: Journal, chance: random.Random) -> None:
    if chance.random() < 0.4:
        rule = chance.choice(("scans", "fotos"))
        journal.add([new_job(f"{chance.random()}.jpg", rule) for _ in range(chance.randint(1, 3))])
    if ids := [job.id for job in journal.jobs()]:
        job = get_job(journal, chance.choice(ids))
        if chance.random() < 0.3:
            journal.update(job, "a note")
        elif ALLOWED_TRANSITIONS[job.state]:
            to = chance.choice(sorted(ALLOWED_TRANSITIONS[job.state]))
            journal.move(
                job, to, "on its way", completed_at=journal._clock.now(), charge=chance.choice((None, *Charge))
            )


@pytest.mark.parametrize("most", [4000, 3])
def test_counts_are_right_after_own_and_foreign_changes_and_pruning(
    journal: Journal, journal_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(job_counts, "_MOST", most)
    chance = random.Random(most)
    other = Journal.open_beside(journal_path, clock)
    for _ in range(60):
        for _ in range(chance.randint(0, 4)):
            make_random_change(chance.choice((journal, other)), chance)
        if chance.random() < 0.1:
            clock.advance(10)
            journal.prune(clock.now() - 1)
        assert journal.counts() == other.counts() == count_from_scratch(journal_path)
    assert {state for states in journal.counts().values() for state in states} >= {State.DONE, State.HELD}
    other.close()


def test_adopting_an_earlier_count_finds_later_changes(journal: Journal, journal_path: Path, clock: FakeClock) -> None:
    for name in ("a.jpg", "b.jpg"):
        add_job_in_state(journal, State.HELD, name)
    midnight = clock.now()
    journal.move(add_job(journal, "c.jpg"), State.SUBMITTING, "sending", reserve=5)
    told = json.loads(json.dumps(journal.stock().told()))
    for changes in range(3):
        reader = Overview.open(journal_path)
        reader.believe(Stock.recalled(told), {midnight: journal.credits_since(midnight)})
        assert reader.counts() == journal.counts() == count_from_scratch(journal_path)
        assert reader.credits_since(midnight) == journal.credits_since(midnight) == 5 * (changes + 1)
        reader.close()
        journal.move(add_job(journal, f"{changes}.jpg", "fotos"), State.SUBMITTING, "sending", reserve=5)


def test_adopted_credits_are_dropped_once_the_ledger_has_changed(
    journal: Journal, journal_path: Path, clock: FakeClock
) -> None:
    job = journal.move(add_job(journal), State.SUBMITTING, "sending", reserve=5)
    stock, day = journal.stock(), clock.now()
    assert journal.credits_since(day) == 5
    # costs nothing: the sum stays as it was told
    add_job(journal, "b.jpg")
    reader = Overview.open(journal_path)
    reader.believe(stock, {day: 77})
    assert reader.credits_since(day) == 77
    journal.move(job, State.FAILED, "400", charge=Charge.RELEASED)
    assert reader.credits_since(day) == 0
    reader.believe(stock, {day: 77})
    assert reader.credits_since(day) == 0
    reader.close()


def test_only_changes_since_a_known_count_are_counted(journal: Journal) -> None:
    journal.add([new_job(f"{number}.jpg") for number in range(50)])
    assert journal.counts() == {"scans": {State.QUEUED: 50}}
    asked: list[str] = []
    journal._connection.set_trace_callback(asked.append)
    assert [journal.totals([State.QUEUED, State.HELD]) for _ in range(3)] == [{State.QUEUED: 50}] * 3
    assert [sql for sql in asked if "FROM job" in sql] == []
    journal.move(get_job(journal, 7), State.HELD, "wait")
    asked.clear()
    assert journal.totals([State.QUEUED, State.HELD]) == {State.QUEUED: 49, State.HELD: 1}
    assert [sql.startswith(("SELECT coalesce(max(id)", "\nWITH touched", "--")) for sql in asked] == [True] * len(asked)


def test_changes_are_found_without_reading_unchanged_jobs(journal: Journal) -> None:
    values = {"event": 1, "job": 1}
    plan = [row[3] for row in journal._connection.execute(f"EXPLAIN QUERY PLAN {job_counts._CHANGES}", values)]
    assert [step for step in plan if step.startswith(("SCAN job", "SCAN event"))] == []
    assert "SEARCH event USING INTEGER PRIMARY KEY (rowid>?)" in plan


def test_a_flood_that_stands_is_not_counted_again_until_something_changes(
    journal: Journal, journal_path: Path, clock: FakeClock
) -> None:
    journal.add([new_job(f"{number}.jpg", flood=True) for number in range(5)])
    asked: list[str] = []
    journal._connection.set_trace_callback(lambda sql: asked.append(sql) if "flood = 1" in sql else None)
    assert [journal.floods() for _ in range(3)] == [{"scans": 5}] * 3
    assert len(asked) == 1
    journal.move(get_job(journal, 1), State.REJECTED, "gone", completed_at=1.0)
    assert journal.floods() == {"scans": 4}
    other = Journal.open_beside(journal_path, clock)
    other.approve("scans", [])
    assert journal.floods() == other.floods() == {}
    other.close()


def test_nothing_of_a_transaction_that_is_rolled_back_is_remembered(journal: Journal, journal_path: Path) -> None:
    job = add_job(journal)
    assert journal.counts() == {"scans": {State.QUEUED: 1}}
    with suppress(StaleJobError), journal._transaction() as cursor:
        journal._note_event(cursor, job.id, State.HELD, "held")
        cursor.execute("UPDATE job SET state = 'held'")
        assert journal.counts() == {"scans": {State.HELD: 1}}
        raise StaleJobError
    assert journal.counts() == {"scans": {State.QUEUED: 1}}
    journal.move(add_job(journal, "b.jpg"), State.HELD, "held")
    assert journal.counts() == {"scans": {State.HELD: 1, State.QUEUED: 1}} == count_from_scratch(journal_path)


def test_an_empty_journal_has_no_counts(journal: Journal) -> None:
    assert journal.stock() == Stock(0, 0, {})
    assert journal.counts() == {}
    add_job(journal)
    assert journal.counts() == {"scans": {State.QUEUED: 1}}
