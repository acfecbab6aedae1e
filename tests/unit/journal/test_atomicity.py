"""A job's change, its history event and its credits are written together or not at all, whenever the process dies."""

import sqlite3
from pathlib import Path

import pytest

from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.writer import ChargeState, Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal import child_processes
from tests.unit.journal.job_factory import add_job, get_job, new_job

FAILING_TRIGGER = "CREATE TEMP TRIGGER no BEFORE INSERT ON {} BEGIN SELECT raise(ABORT, 'no'); END"


@pytest.mark.parametrize("table", ["event", "charge"])
def test_a_transition_that_fails_half_way_changes_nothing(journal: Journal, table: str) -> None:
    job = add_job(journal)
    history = journal.history(job.id)
    journal._connection.execute(FAILING_TRIGGER.format(table))
    with pytest.raises(sqlite3.IntegrityError):
        journal.transition(job, State.SUBMITTING, "sending", reserve=5)
    assert get_job(journal, job.id) == job
    assert journal.history(job.id) == history
    assert journal.credits_since(0) == 0
    journal._connection.execute("DROP TRIGGER no")
    assert journal.transition(job, State.SUBMITTING, "sending", reserve=5).state is State.SUBMITTING


def test_of_many_jobs_all_are_added_or_none(journal: Journal) -> None:
    bad = new_job("c.jpg", sha256=b"not a text")
    with pytest.raises(sqlite3.IntegrityError):
        journal.add_jobs([new_job("a.jpg"), new_job("b.jpg"), bad])
    assert journal.jobs() == []
    assert journal.last_event_id() == 0


def test_a_kill_at_any_statement_keeps_state_history_and_ledger_consistent(
    journal_path: Path, clock: FakeClock
) -> None:
    base = journal_path.parents[1]
    child_processes.run_child("crash_in_moves", base)
    states = []
    for folder in sorted(base.iterdir()):
        journal = Journal.open_for_writing(folder / "state" / "journal.db", clock)
        [job] = journal.jobs()
        moves, counted, doubtful = {
            State.QUEUED: (0, 0, 0),
            State.SUBMITTING: (1, 5, 0),
            State.HELD: (2, 5, 5),
        }[job.state]
        assert len(journal.history(job.id)) == 1 + moves
        assert (journal.credits_since(0), job.credits_in_doubt) == (counted, doubtful)
        journal.check_integrity()
        journal.close()
        states.append(moves)
    assert states == sorted(states)
    assert set(states) == {0, 1, 2}


def test_a_kill_during_creation_leaves_no_half_made_journal(journal_path: Path, clock: FakeClock) -> None:
    base = journal_path.parents[1]
    child_processes.run_child("crash_in_creation", base)
    exists = []
    for folder in sorted(base.iterdir()):
        journal_file = folder / "state" / "journal.db"
        if journal_file.exists():
            reader = JournalReader.open(journal_file)
            assert len(reader.jobs()) in {0, 3}
            reader.close()
        exists.append(journal_file.exists())
        journal = Journal.open_for_writing(journal_file, clock)
        assert len(journal.jobs()) in {0, 3}
        assert len(journal.jobs()) == journal.last_event_id()
        journal.transition(add_job(journal), State.HELD, "it works", charge=ChargeState.DOUBTFUL)
        journal.close()
        assert not journal_file.with_name("journal.db.new").exists()
    assert exists == sorted(exists)
    assert set(exists) == {False, True}
