"""Giving room back: only with nobody at work, and only where there is room for it."""

import os
from pathlib import Path

import pytest

from picwish_watchd.errors import JournalBusyError, JournalError
from picwish_watchd.job import State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.vacuum import vacuum
from picwish_watchd.journal.writer import Journal
from tests.support.clock import FakeClock
from tests.unit.journal import children
from tests.unit.journal.journalkit import job_in, new_job
from tests.unit.journal.test_disk import mounted, mounting
from tests.unit.journal.test_prune import DAY, answers, finished, prune_all


def filled(path: Path, clock: FakeClock, number: int = 200) -> None:
    """A journal of which the half is free pages."""
    journal = Journal.open_for_writing(path, clock)
    for each in range(number):
        finished(journal, f"{each}.jpg")
    clock.advance(400 * DAY)
    prune_all(journal, clock.now())
    journal.close()


def test_the_file_gets_smaller_and_says_the_same(path: Path, clock: FakeClock) -> None:
    filled(path, clock)
    journal = Journal.open_for_writing(path, clock)
    told = answers(journal)
    journal.close()
    before, after = vacuum(path, clock)
    assert after < 0.85 * before
    assert (os.path.getsize(path), os.listdir(path.parent).count("journal.db-wal")) == (after, 0)
    journal = Journal.open_for_writing(path, clock)
    journal.verify()
    assert answers(journal) == told
    journal.close()


def test_a_reader_beside_it_is_no_hindrance(path: Path, clock: FakeClock) -> None:
    filled(path, clock)
    reader = JournalReader.open(path)
    jobs = reader.all_jobs()
    first = next(jobs)
    vacuum(path, clock)
    assert [first.id, *(job.id for job in jobs)] == list(range(1, 201))
    reader.close()


def test_it_is_refused_while_a_daemon_runs(path: Path, clock: FakeClock) -> None:
    filled(path, clock, 1)
    with children.holding("hold_daemon_lock", path), pytest.raises(JournalBusyError, match="is running"):
        vacuum(path, clock)


@pytest.mark.parametrize("state", [State.SUBMITTING, State.PENDING, State.FETCHING, State.DELIVERING])
def test_it_is_refused_while_an_image_is_on_its_way(path: Path, clock: FakeClock, state: State) -> None:
    journal = Journal.open_for_writing(path, clock)
    job_in(journal, state)
    journal.close()
    with pytest.raises(JournalBusyError, match="1 image is on the way to or from PicWish; the journal was not touched"):
        vacuum(path, clock)


def test_images_that_only_wait_are_no_hindrance(path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(path, clock)
    journal.add([new_job()])
    job_in(journal, State.HELD, "b.jpg")
    journal.close()
    vacuum(path, clock)


def test_where_there_is_no_journal_none_is_made(path: Path, clock: FakeClock) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        vacuum(path, clock)
    assert not path.parent.exists()


@mounting
def test_a_disk_with_little_room_is_told_of_and_nothing_is_touched(path: Path) -> None:
    path.parent.mkdir()
    small = mounted('mount -t tmpfs -o size=2400k tmpfs "$1"', path.parent)
    refused, after = children.run("vacuum_with_little_room", path, before=small).splitlines()
    assert refused.startswith(f"75 {path.parent} has ")
    assert "MiB are needed while the journal is written anew; it was not touched" in refused
    assert after == "1000 jobs"
