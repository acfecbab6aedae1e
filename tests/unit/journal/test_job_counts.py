"""Job counts that are updated equal a full count."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest

from picwish_watchd.job import ALLOWED_TRANSITIONS, State
from picwish_watchd.journal import job_counts
from picwish_watchd.journal.job_counts import JobCounts
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.status_reader import StatusReader
from picwish_watchd.journal.writer import ChargeState, Journal, StaleJobError, insert_event
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, add_job_in_state, get_job, new_job


def count_from_scratch(path: Path) -> dict[str, dict[State, int]]:
    """Count with a reader that has no earlier count."""
    reader = JournalReader.open(path)
    try:
        counts = reader.counts_by_rule()
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
        journal.add_jobs([new_job(f"{chance.random()}.jpg", rule) for _ in range(chance.randint(1, 3))])
    if ids := [job.id for job in journal.jobs()]:
        job = get_job(journal, chance.choice(ids))
        if chance.random() < 0.3:
            journal.update(job, "a note")
        elif ALLOWED_TRANSITIONS[job.state]:
            to = chance.choice(sorted(ALLOWED_TRANSITIONS[job.state]))
            journal.transition(
                job, to, "on its way", completed_at=journal._clock.now(), charge=chance.choice((None, *ChargeState))
            )


@pytest.mark.parametrize("most", [4000, 3])
def test_counts_are_right_after_own_and_foreign_changes_and_pruning(
    journal: Journal, journal_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(job_counts, "_MAX_CHANGES", most)
    chance = random.Random(most)
    other = Journal.open_existing(journal_path, clock)
    for _ in range(60):
        for _ in range(chance.randint(0, 4)):
            make_random_change(chance.choice((journal, other)), chance)
        if chance.random() < 0.1:
            clock.advance(10)
            journal.prune_batch(clock.now() - 1)
        assert journal.counts_by_rule() == other.counts_by_rule() == count_from_scratch(journal_path)
    assert {state for states in journal.counts_by_rule().values() for state in states} >= {State.DONE, State.HELD}
    other.close()


def test_adopting_an_earlier_count_finds_later_changes(journal: Journal, journal_path: Path, clock: FakeClock) -> None:
    for name in ("a.jpg", "b.jpg"):
        add_job_in_state(journal, State.HELD, name)
    midnight = clock.now()
    journal.transition(add_job(journal, "c.jpg"), State.SUBMITTING, "sending", reserve=5)
    data = json.loads(json.dumps(journal.job_counts().to_json()))
    for changes in range(3):
        reader = StatusReader.open(journal_path)
        reader.adopt_counts(JobCounts.from_json(data), {midnight: journal.credits_since(midnight)})
        assert reader.counts_by_rule() == journal.counts_by_rule() == count_from_scratch(journal_path)
        assert reader.credits_since(midnight) == journal.credits_since(midnight) == 5 * (changes + 1)
        reader.close()
        journal.transition(add_job(journal, f"{changes}.jpg", "fotos"), State.SUBMITTING, "sending", reserve=5)


def test_adopted_credits_are_dropped_once_the_ledger_has_changed(
    journal: Journal, journal_path: Path, clock: FakeClock
) -> None:
    job = journal.transition(add_job(journal), State.SUBMITTING, "sending", reserve=5)
    stock, day = journal.job_counts(), clock.now()
    assert journal.credits_since(day) == 5
    # This job costs nothing, so the sum stays the same.
    add_job(journal, "b.jpg")
    reader = StatusReader.open(journal_path)
    reader.adopt_counts(stock, {day: 77})
    assert reader.credits_since(day) == 77
    journal.transition(job, State.FAILED, "400", charge=ChargeState.RELEASED)
    assert reader.credits_since(day) == 0
    reader.adopt_counts(stock, {day: 77})
    assert reader.credits_since(day) == 0
    reader.close()


def test_only_changes_since_a_known_count_are_counted(journal: Journal) -> None:
    journal.add_jobs([new_job(f"{number}.jpg") for number in range(50)])
    assert journal.counts_by_rule() == {"scans": {State.QUEUED: 50}}
    queries: list[str] = []
    journal._connection.set_trace_callback(queries.append)
    assert [journal.counts_by_state([State.QUEUED, State.HELD]) for _ in range(3)] == [{State.QUEUED: 50}] * 3
    assert [sql for sql in queries if "FROM job" in sql] == []
    journal.transition(get_job(journal, 7), State.HELD, "wait")
    queries.clear()
    assert journal.counts_by_state([State.QUEUED, State.HELD]) == {State.QUEUED: 49, State.HELD: 1}
    assert [sql.startswith(("SELECT coalesce(max(id)", "\nWITH touched", "--")) for sql in queries] == [True] * len(
        queries
    )


def test_changes_are_found_without_reading_unchanged_jobs(journal: Journal) -> None:
    values = {"event": 1, "job": 1}
    plan = [row[3] for row in journal._connection.execute(f"EXPLAIN QUERY PLAN {job_counts._CHANGES_SQL}", values)]
    assert [step for step in plan if step.startswith(("SCAN job", "SCAN event"))] == []
    assert "SEARCH event USING INTEGER PRIMARY KEY (rowid>?)" in plan


def test_an_unchanged_flood_is_not_counted_again(journal: Journal, journal_path: Path, clock: FakeClock) -> None:
    journal.add_jobs([new_job(f"{number}.jpg", flood=True) for number in range(5)])
    queries: list[str] = []
    journal._connection.set_trace_callback(lambda sql: queries.append(sql) if "flood = 1" in sql else None)
    assert [journal.flood_counts() for _ in range(3)] == [{"scans": 5}] * 3
    assert len(queries) == 1
    journal.transition(get_job(journal, 1), State.REJECTED, "gone", completed_at=1.0)
    assert journal.flood_counts() == {"scans": 4}
    other = Journal.open_existing(journal_path, clock)
    other.approve("scans", [])
    assert journal.flood_counts() == other.flood_counts() == {}
    other.close()


def test_nothing_of_a_transaction_that_is_rolled_back_is_remembered(journal: Journal, journal_path: Path) -> None:
    job = add_job(journal)
    assert journal.counts_by_rule() == {"scans": {State.QUEUED: 1}}
    with suppress(StaleJobError), journal._transaction() as cursor:
        insert_event(cursor, job.id, 0.0, State.HELD, "held")
        cursor.execute("UPDATE job SET state = 'held'")
        assert journal.counts_by_rule() == {"scans": {State.HELD: 1}}
        raise StaleJobError
    assert journal.counts_by_rule() == {"scans": {State.QUEUED: 1}}
    journal.transition(add_job(journal, "b.jpg"), State.HELD, "held")
    assert journal.counts_by_rule() == {"scans": {State.HELD: 1, State.QUEUED: 1}} == count_from_scratch(journal_path)


def test_an_empty_journal_has_no_counts(journal: Journal) -> None:
    assert journal.job_counts() == JobCounts(0, 0, {})
    assert journal.counts_by_rule() == {}
    add_job(journal)
    assert journal.counts_by_rule() == {"scans": {State.QUEUED: 1}}
