"""Vacuum: only while no program uses the journal, and only with enough free space."""

import os
from pathlib import Path

import pytest

from picwish_watchd.errors import JournalBusyError, JournalError
from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.vacuum import vacuum_journal
from picwish_watchd.journal.writer import Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal import child_processes
from tests.unit.journal.job_factory import add_job_in_state, new_job
from tests.unit.journal.test_disk import mount_command, mounting
from tests.unit.journal.test_prune import DAY, add_done_job, prune_all, query_everything


def fill_with_free_pages(path: Path, clock: FakeClock, number: int = 200) -> None:
    """Create a journal of which half the pages are free."""
    journal = Journal.open_for_writing(path, clock)
    for each in range(number):
        add_done_job(journal, f"{each}.jpg")
    clock.advance(400 * DAY)
    prune_all(journal, clock.now())
    journal.close()


def test_the_file_gets_smaller_and_keeps_its_content(journal_path: Path, clock: FakeClock) -> None:
    fill_with_free_pages(journal_path, clock)
    journal = Journal.open_for_writing(journal_path, clock)
    content = query_everything(journal)
    journal.close()
    before, after = vacuum_journal(journal_path, clock)
    assert after < 0.85 * before
    assert (os.path.getsize(journal_path), os.listdir(journal_path.parent).count("journal.db-wal")) == (after, 0)
    journal = Journal.open_for_writing(journal_path, clock)
    journal.check_integrity()
    assert query_everything(journal) == content
    journal.close()


def test_a_concurrent_reader_does_not_prevent_a_vacuum(journal_path: Path, clock: FakeClock) -> None:
    fill_with_free_pages(journal_path, clock)
    reader = JournalReader.open(journal_path)
    jobs = reader.iter_jobs()
    first = next(jobs)
    vacuum_journal(journal_path, clock)
    assert [first.id, *(job.id for job in jobs)] == list(range(1, 201))
    reader.close()


def test_a_vacuum_is_refused_while_a_daemon_runs(journal_path: Path, clock: FakeClock) -> None:
    fill_with_free_pages(journal_path, clock, 1)
    with (
        child_processes.child_holding("hold_daemon_lock", journal_path),
        pytest.raises(JournalBusyError, match="is running"),
    ):
        vacuum_journal(journal_path, clock)


@pytest.mark.parametrize("state", [State.SUBMITTING, State.PENDING, State.FETCHING, State.DELIVERING])
def test_a_vacuum_is_refused_while_an_image_is_in_flight(journal_path: Path, clock: FakeClock, state: State) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    add_job_in_state(journal, state)
    journal.close()
    with pytest.raises(JournalBusyError, match="1 image is on the way to or from PicWish; the journal was not changed"):
        vacuum_journal(journal_path, clock)


def test_queued_images_do_not_prevent_a_vacuum(journal_path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    journal.add_jobs([new_job()])
    add_job_in_state(journal, State.HELD, "b.jpg")
    journal.close()
    vacuum_journal(journal_path, clock)


def test_where_there_is_no_journal_none_is_made(journal_path: Path, clock: FakeClock) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        vacuum_journal(journal_path, clock)
    assert not journal_path.parent.exists()


@mounting
def test_a_vacuum_without_disk_space_is_refused_and_changes_nothing(journal_path: Path) -> None:
    journal_path.parent.mkdir()
    small = mount_command('mount -t tmpfs -o size=2400k tmpfs "$1"', journal_path.parent)
    refused, after = child_processes.run_child("vacuum_with_little_room", journal_path, before=small).splitlines()
    assert refused.startswith(f"75 {journal_path.parent} has ")
    assert "MiB are needed while the journal is rewritten; it was not changed" in refused
    assert after == "1000 jobs"
