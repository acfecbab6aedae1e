"""Opening: a journal is created once, migrated with a backup, and never silently replaced."""

import os
import shutil
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from picwish_watchd.errors import JournalError
from picwish_watchd.fs import mounts
from picwish_watchd.job import ErrorCode, Problem, State
from picwish_watchd.journal import connection, integrity, schema
from picwish_watchd.journal.connection import ensure_journal_folder
from picwish_watchd.journal.integrity import check_local_filesystem
from picwish_watchd.journal.locks import last_durable_event
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.journal.writer import Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal.job_factory import add_job, get_job


def create_journal(path: Path, clock: FakeClock, names: int) -> None:
    """Create a journal with this number of jobs and close it."""
    journal = Journal.open_for_writing(path, clock)
    for number in range(names):
        add_job(journal, f"{number}.jpg")
    journal.close()


def open_error(path: Path, clock: FakeClock) -> str:
    """Return the message with which both a writer and a reader refuse the file, which must not change."""
    before = path.read_bytes()
    with pytest.raises(JournalError) as writing:
        Journal.open_for_writing(path, clock)
    with pytest.raises(JournalError) as reading:
        JournalReader.open(path)
    assert path.read_bytes() == before
    assert writing.value.exit_code == 74
    assert writing.value.hint
    assert reading.value.message == writing.value.message
    return writing.value.message


def test_a_journal_is_made_and_found_again(journal_path: Path, clock: FakeClock) -> None:
    create_journal(journal_path, clock, 2)
    assert not (journal_path.parent / "journal.db-wal").exists()
    journal = Journal.open_for_writing(journal_path, clock)
    assert [job.relative.name for job in journal.jobs()] == ["1.jpg", "0.jpg"]
    journal.close()
    assert journal_path.parent.stat().st_mode & 0o777 == 0o700


def test_commits_are_synced_so_that_a_power_cut_loses_none(journal: Journal, journal_path: Path) -> None:
    journal.transition(add_job(journal), State.SUBMITTING, "sending it", reserve=5)
    with closing(sqlite3.connect(journal_path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_power_cut_may_lose_queued_jobs_and_the_journal_still_opens(journal_path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    sent = journal.transition(add_job(journal, "sent.jpg"), State.SUBMITTING, "sending it", reserve=5)
    copy = journal_path.with_name("left.db")
    shutil.copyfile(journal_path, copy)
    shutil.copyfile(f"{journal_path}-wal", f"{copy}-wal")
    add_job(journal, "waits.jpg")
    # The system may have written it to the disk already.
    shutil.copyfile(f"{journal_path}.write", f"{copy}.write")
    journal.close()
    after = Journal.open_for_writing(copy, clock)
    assert after.jobs() == [sent]
    after.close()


@pytest.mark.parametrize(
    "end", [{"problem": Problem(ErrorCode.CORRUPT, "is corrupt")}, {"result_of": Path("/outbox/a.jpg")}]
)
def test_a_job_added_as_finished_is_synced_before_its_file_moves(
    journal_path: Path, clock: FakeClock, end: dict[str, Any]
) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    before = integrity.last_event_id(journal._connection)
    add_job(journal, **end)
    assert last_durable_event(journal_path) == integrity.last_event_id(journal._connection) > before
    journal.close()


def test_a_folder_whose_parent_is_missing_is_not_made(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(JournalError, match="cannot be created: No such file") as caught:
        Journal.open_for_writing(tmp_path / "no" / "state" / "journal.db", clock)
    assert caught.value.hint
    ensure_journal_folder(tmp_path / "journal.db")


def test_a_reader_makes_no_journal(journal_path: Path) -> None:
    with pytest.raises(JournalError, match=f"there is no journal at {journal_path}"):
        JournalReader.open(journal_path)
    with pytest.raises(JournalError, match="there is no journal"):
        JournalReader.open(Path(__file__) / "journal.db")
    assert not journal_path.parent.exists()


def test_a_reader_opens_a_journal_whose_name_needs_quoting(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "Straße 100%?#&" / os.fsdecode(b"j\xf6urnal.db")
    create_journal(path, clock, 1)
    reader = JournalReader.open(path)
    assert len(reader.jobs()) == 1
    reader.close()


def test_another_programs_database_is_refused_and_not_touched(journal_path: Path, clock: FakeClock) -> None:
    journal_path.parent.mkdir()
    with closing(sqlite3.connect(journal_path)) as other:
        other.execute("CREATE TABLE contacts (name TEXT)")
    assert open_error(journal_path, clock) == f"{journal_path} is not a journal of picwish-watchd"


def test_a_newer_journal_is_refused_and_not_touched(journal_path: Path, clock: FakeClock) -> None:
    create_journal(journal_path, clock, 1)
    with closing(sqlite3.connect(journal_path)) as other:
        other.execute("PRAGMA user_version = 99")
        other.execute("PRAGMA journal_mode = DELETE")
    assert "written by a newer picwish-watchd (schema 99; this one knows" in open_error(journal_path, clock)


@pytest.mark.parametrize("content", [b"not a database, but longer than its header is " * 50, b"short"])
def test_a_file_that_is_no_database_is_refused_and_not_touched(
    journal_path: Path, clock: FakeClock, content: bytes
) -> None:
    journal_path.parent.mkdir()
    journal_path.write_bytes(content)
    assert "the journal is damaged or not an SQLite file" in open_error(journal_path, clock)


def test_a_folder_in_the_journals_place_is_refused(journal_path: Path, clock: FakeClock) -> None:
    journal_path.mkdir(parents=True)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open_for_writing(journal_path, clock)


def test_an_empty_journal_is_not_taken_for_a_new_one(journal_path: Path, clock: FakeClock) -> None:
    journal_path.parent.mkdir()
    journal_path.touch()
    with pytest.raises(JournalError, match=r"is empty \(0 bytes\): it was cut off"):
        Journal.open_for_writing(journal_path, clock)
    assert journal_path.stat().st_size == 0


def test_a_journal_that_lost_its_file_but_not_its_wal_is_not_created_again(
    journal_path: Path, clock: FakeClock
) -> None:
    journal_path.parent.mkdir()
    journal_path.with_name("journal.db-wal").write_bytes(b"what was committed last")
    with pytest.raises(JournalError, match="is gone, but its companion"):
        Journal.open_for_writing(journal_path, clock)
    assert not journal_path.exists()
    assert journal_path.with_name("journal.db-wal").read_bytes() == b"what was committed last"


def test_a_journal_whose_wal_was_removed_after_an_unclean_end_is_refused(journal_path: Path, clock: FakeClock) -> None:
    create_journal(journal_path, clock, 1)
    shm = journal_path.with_name("journal.db-shm")
    shm.write_bytes(b"left by a daemon that was killed")
    assert "lost its companion" in open_error(journal_path, clock)
    assert not journal_path.with_name("journal.db-wal").exists()
    shm.unlink()
    JournalReader.open(journal_path).close()


def damage_pages(path: Path) -> None:
    """Overwrite all pages but the first."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def test_damaged_pages_are_reported_as_damage_by_every_read(journal_path: Path, clock: FakeClock) -> None:
    create_journal(journal_path, clock, 300)
    reader = JournalReader.open(journal_path)
    damage_pages(journal_path)
    anew = partial(JournalReader.open, journal_path)
    for read in (
        reader.jobs,
        reader.counts_by_rule,
        reader.check_integrity,
        lambda: list(reader.known_files("scans")),
        anew,
    ):
        with pytest.raises(JournalError, match="the journal is damaged") as caught:
            read()
        assert caught.value.hint is not None
        assert "restore" in caught.value.hint
    reader.close()


def test_damage_is_found_at_the_start_after_an_unclean_end(journal_path: Path, clock: FakeClock) -> None:
    create_journal(journal_path, clock, 300)
    open_journal = Journal.open_for_writing(journal_path, clock)
    add_job(open_journal)
    copy = journal_path.parent / "copy.db"
    for suffix in ("", "-wal"):
        Path(f"{copy}{suffix}").write_bytes(Path(f"{journal_path}{suffix}").read_bytes())
    open_journal.close()
    damage_pages(copy)
    with pytest.raises(JournalError, match=f"the journal is damaged: {copy}"):
        Journal.open_for_writing(copy, clock)


@pytest.mark.parametrize("how", ["deleted", "renamed", "replaced"])
def test_a_journal_taken_away_under_the_daemon_stops_it_and_takes_no_writes(
    journal_path: Path, clock: FakeClock, how: str
) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    job = add_job(journal)
    elsewhere = journal_path.with_name("elsewhere.db")
    if how == "replaced":
        elsewhere.write_bytes(journal_path.read_bytes())
        os.replace(elsewhere, journal_path)
    elif how == "renamed":
        os.rename(journal_path, elsewhere)
    else:
        journal_path.unlink()
    with pytest.raises(JournalError, match="was moved, replaced or deleted"):
        journal.update(job, note="into nowhere")
    with pytest.raises(JournalError, match="was moved, replaced or deleted"):
        add_job(journal)
    assert get_job(journal, job.id).note is None
    assert len(journal.jobs()) == 1
    journal.close()


def test_a_journal_on_a_network_file_system_is_refused_before_anything_is_made(
    journal_path: Path, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / {journal_path.parent.parent} rw - nfs4 nas:/x rw\n", "utf-8"
    )
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    with pytest.raises(JournalError, match=f"network file system \\(nfs4 at {journal_path.parent.parent}\\)"):
        Journal.open_for_writing(journal_path, clock)
    assert not journal_path.parent.exists()
    table.write_text("1 0 8:1 / / rw - ext4 /dev/sda rw\n", "utf-8")
    check_local_filesystem(journal_path)


MIGRATION = "ALTER TABLE job ADD COLUMN colour TEXT;\nUPDATE job SET colour = 'grey';\n"


def add_migration(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Pretend that the program has one more migration."""
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    for module in (schema, connection, integrity):
        monkeypatch.setattr(module, "VERSION", len(schema.MIGRATIONS))


def test_an_older_journal_is_brought_up_to_date_and_a_copy_of_it_is_kept(
    journal_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_journal(journal_path, clock, 3)
    old = schema.VERSION
    backup = journal_path.with_name(f"journal.db.schema{old}.bak")
    backup.write_bytes(b"left over by a try that was interrupted")
    with monkeypatch.context() as newer:
        add_migration(newer, MIGRATION)
        journal = Journal.open_for_writing(journal_path, clock)
        assert len(journal.jobs()) == 3
        journal.close()
        with closing(sqlite3.connect(journal_path)) as other:
            assert other.execute("SELECT DISTINCT colour FROM job").fetchall() == [("grey",)]
            assert other.execute("PRAGMA user_version").fetchone() == (old + 1,)
    with pytest.raises(JournalError, match="newer picwish-watchd"):
        Journal.open_for_writing(journal_path, clock)
    os.replace(backup, journal_path)
    journal = Journal.open_for_writing(journal_path, clock)
    assert len(journal.jobs()) == 3
    journal.close()


def test_a_step_that_fails_leaves_the_older_journal_as_it_was(
    journal_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_journal(journal_path, clock, 3)
    with monkeypatch.context() as newer:
        add_migration(newer, MIGRATION + "INSERT INTO nowhere VALUES (1);\n")
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            Journal.open_for_writing(journal_path, clock)
    journal = Journal.open_for_writing(journal_path, clock)
    assert len(journal.jobs()) == 3
    columns = journal._connection.execute("SELECT name FROM pragma_table_info('job')").fetchall()
    assert "colour" not in {column["name"] for column in columns}
    journal.close()


def test_an_index_that_a_journal_lacks_is_made_when_it_is_opened(journal_path: Path, clock: FakeClock) -> None:
    Journal.open_for_writing(journal_path, clock).close()
    with closing(sqlite3.connect(journal_path)) as connection:
        connection.execute("DROP INDEX job_next")
    JournalReader.open(journal_path).close()
    Journal.open_for_writing(journal_path, clock).close()
    with closing(sqlite3.connect(journal_path)) as connection:
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'job_next'").fetchone() == (1,)


def test_a_new_journal_needs_no_copy(journal_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    add_migration(monkeypatch, MIGRATION)
    create_journal(journal_path, clock, 1)
    assert [entry.name for entry in journal_path.parent.iterdir() if entry.name.endswith(".bak")] == []


def test_a_journal_that_lost_its_last_events_is_refused(journal_path: Path, clock: FakeClock) -> None:
    """As after `rm journal.db-*` beside a killed daemon, or with an older copy of the file."""
    create_journal(journal_path, clock, 2)
    older = journal_path.read_bytes()
    journal = Journal.open_for_writing(journal_path, clock)
    job = journal.jobs()[0]
    journal.transition(job, State.SUBMITTING, "sending it", reserve=5)
    journal.close()
    newer = journal_path.read_bytes()
    journal_path.write_bytes(older)
    for _ in range(2):
        for opening in (
            partial(Journal.open_for_writing, journal_path, clock),
            partial(JournalReader.open, journal_path),
        ):
            with pytest.raises(JournalError, match="older than what was last written to it: 1 entry is missing"):
                opening()
    journal_path.write_bytes(newer)
    Journal.open_for_writing(journal_path, clock).close()
    journal_path.write_bytes(older)
    # A user's decision.
    journal_path.with_name("journal.db.write").unlink()
    Journal.open_for_writing(journal_path, clock).close()


def test_a_lost_journal_is_created_again_only_after_its_lock_file_is_removed(
    journal_path: Path, clock: FakeClock
) -> None:
    create_journal(journal_path, clock, 3)
    journal = Journal.open_for_writing(journal_path, clock)
    journal.transition(journal.jobs()[0], State.SUBMITTING, "sending it", reserve=5)
    journal.close()
    journal_path.rename(journal_path.with_name("old.db"))
    for _ in range(2):
        with pytest.raises(JournalError, match=r"is gone: .* shows that it existed"):
            Journal.open_for_writing(journal_path, clock)
    # A user's decision.
    journal_path.with_name("journal.db.write").unlink()
    create_journal(journal_path, clock, 1)
    journal = Journal.open_for_writing(journal_path, clock)
    assert len(journal.jobs()) == 1
    journal.close()


def test_a_foreign_reader_after_a_kill_does_no_harm(journal_path: Path, clock: FakeClock) -> None:
    """sqlite3 writes the WAL into the file and removes it when it closes the last connection."""
    create_journal(journal_path, clock, 1)
    journal = Journal.open_for_writing(journal_path, clock)
    journal.transition(journal.jobs()[0], State.SUBMITTING, "sending it", reserve=5)
    killed = journal_path.with_name("killed")
    killed.mkdir()
    for name in ("journal.db", "journal.db-wal", "journal.db-shm", "journal.db.write"):
        (killed / name).write_bytes(journal_path.with_name(name).read_bytes())
    journal.close()
    with closing(sqlite3.connect(killed / "journal.db")) as foreign:
        foreign.execute("SELECT count(*) FROM job").fetchone()
    assert not (killed / "journal.db-wal").exists()
    again = Journal.open_for_writing(killed / "journal.db", clock)
    assert again.jobs()[0].state is State.SUBMITTING
    again.close()
