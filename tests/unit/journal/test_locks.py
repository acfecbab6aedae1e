"""The two locks: one daemon per journal and one write transaction at a time; both end with their process."""

import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from picwish_watchd.errors import JournalBusyError, JournalError
from picwish_watchd.journal import locks
from picwish_watchd.journal.locks import DaemonLock
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.writer import Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal import child_processes
from tests.unit.journal.job_factory import add_job, get_job


@pytest.fixture
def state_folder(journal_path: Path) -> Path:
    journal_path.parent.mkdir()
    return journal_path.parent


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(journal_path: Path, state_folder: Path) -> None:
    lock = DaemonLock(journal_path)
    lock.acquire()
    output = child_processes.run_child("try_daemon_lock", journal_path)
    assert output == f"75 another picwish-watchd (pid {os.getpid()}) is running on this journal\n"
    lock.release()
    lock.release()
    assert child_processes.run_child("try_daemon_lock", journal_path) == ""


def test_the_owner_is_known_while_it_runs_and_no_longer_than_that(journal_path: Path, state_folder: Path) -> None:
    lock = DaemonLock(journal_path)
    assert lock.owner_pid() is None
    assert list(state_folder.iterdir()) == []
    with child_processes.child_holding("hold_daemon_lock", journal_path) as child:
        assert lock.owner_pid() == child.pid
        with pytest.raises(JournalBusyError, match=f"pid {child.pid}") as caught:
            lock.acquire()
        assert caught.value.exit_code == 75
        child.kill()
    assert lock.owner_pid() is None
    lock.acquire()
    assert lock.owner_pid() == os.getpid()
    lock.release()


def test_an_owner_without_a_pid_is_detected_as_unknown(journal_path: Path, state_folder: Path) -> None:
    lock = DaemonLock(journal_path)
    with lock.path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert lock.owner_pid() == 0
        with pytest.raises(JournalBusyError, match="pid unknown"):
            lock.acquire()


def test_reading_the_lock_does_not_keep_a_daemon_from_starting(journal_path: Path, state_folder: Path) -> None:
    lock = DaemonLock(journal_path)
    with lock.path.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        over = threading.Timer(0.02, fcntl.flock, (looking, fcntl.LOCK_UN))
        over.start()
        lock.acquire()
        over.join()
    lock.release()


def test_a_lock_file_that_is_a_link_or_in_a_missing_folder_is_refused(journal_path: Path, state_folder: Path) -> None:
    lock = DaemonLock(journal_path)
    lock.path.symlink_to("/etc/hostname")
    with pytest.raises(JournalError, match="cannot be opened"):
        lock.acquire()
    with pytest.raises(JournalError, match="cannot be opened: No such file"):
        DaemonLock(journal_path.parent / "no" / "journal.db").acquire()


def test_writers_of_several_processes_take_turns_and_lose_nothing(journal: Journal, journal_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        running = [
            pool.submit(child_processes.run_child, "add_jobs", journal_path, f"rule-{number}", "30")
            for number in range(3)
        ]
        for number in range(30):
            add_job(journal, f"{number}.jpg")
        for each in running:
            each.result()
    assert sorted(sum(states.values()) for states in journal.counts_by_rule().values()) == [30, 30, 30, 30]
    journal.check_integrity()


def test_a_writer_gives_up_on_a_process_that_keeps_the_lock(
    journal: Journal, journal_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = add_job(journal)
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 0.05)
    with child_processes.child_holding("hold_write_lock", journal_path):
        with pytest.raises(JournalError, match="another process has kept the journal locked") as caught:
            journal.update(job, note="never")
        assert caught.value.exit_code == 75
        assert get_job(journal, job.id).note is None
    assert journal.update(job, note="later").note == "later"


def test_a_writer_waits_for_a_short_hold(journal: Journal, journal_path: Path) -> None:
    job = add_job(journal)
    with child_processes.child_holding("hold_write_lock", journal_path) as child:
        assert child.stdin is not None
        over = threading.Timer(0.05, child.stdin.close)
        over.start()
        assert journal.update(job, note="in the end").note == "in the end"
        over.join()


def test_a_lock_of_another_program_is_reported(journal: Journal, journal_path: Path) -> None:
    job = add_job(journal)
    journal._connection.execute("PRAGMA busy_timeout = 10")
    with (
        child_processes.child_holding("hold_transaction", journal_path),
        pytest.raises(JournalError, match="another program keeps the journal locked"),
    ):
        journal.update(job, note="never")
    assert journal.update(job, note="later").note == "later"


def test_only_writes_of_other_processes_are_noticed(journal: Journal, journal_path: Path) -> None:
    add_job(journal)
    before = journal.data_version()
    add_job(journal)
    assert journal.data_version() == before
    child_processes.run_child("add_jobs", journal_path, "other", "1")
    assert journal.data_version() != before
    assert len(journal.jobs()) == 3


def test_a_reader_sees_what_a_killed_daemon_had_committed(journal_path: Path, clock: FakeClock) -> None:
    Journal.open_for_writing(journal_path, clock).close()
    writer = Journal.open_for_writing(journal_path, clock)
    add_job(writer)
    copy = journal_path.parent / "killed.db"
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{journal_path}{suffix}").read_bytes())
    writer.close()
    reader = JournalReader.open(copy)
    assert len(reader.jobs()) == 1
    reader.close()
