"""The journal's disk is full, read-only or another user's: errors are reported and nothing is half written."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from picwish_watchd.journal.writer import Journal
from tests.support.fake_clock import FakeClock
from tests.unit.journal import child_processes
from tests.unit.journal.job_factory import add_job

_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*_OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


mounting = pytest.mark.skipif(not _can_mount(), reason="needs the right to mount file systems of its own")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def mount_command(script: str, *arguments: Path) -> tuple[str, ...]:
    """Return a command prefix that runs a line of shell in a mount namespace of its own."""
    return (*_OWN_MOUNTS, "sh", "-ec", f'{script}; shift {len(arguments)}; exec "$@"', "sh", *map(str, arguments))


@mounting
def test_a_full_disk_refuses_the_write_and_keeps_all_before_it(journal_path: Path) -> None:
    journal_path.parent.mkdir()
    small = mount_command('mount -t tmpfs -o size=640k tmpfs "$1"', journal_path.parent)
    refused, before, after = child_processes.run_child("fill_and_free", journal_path, before=small).splitlines()
    assert refused.startswith("75 the disk of the journal is full: ")
    assert before == "1 submitting"
    assert after == "pending 5"


@mounting
def test_a_new_journal_that_finds_no_room_is_not_half_made(journal_path: Path) -> None:
    small = mount_command('mount -t tmpfs -o size=256k tmpfs "$1"', journal_path.parents[1])
    refused, there, after = child_processes.run_child("begin_on_a_full_disk", journal_path, before=small).splitlines()
    assert refused.startswith("75 the disk of the journal is full: ")
    assert there == "False"
    assert after == "1 jobs"


@mounting
def test_an_upgrade_that_finds_no_room_leaves_the_journal_as_it_was(journal_path: Path) -> None:
    journal_path.parent.mkdir()
    small = mount_command('mount -t tmpfs -o size=512k tmpfs "$1"', journal_path.parent)
    refused, after = child_processes.run_child("upgrade_on_a_full_disk", journal_path, before=small).splitlines()
    assert refused.startswith("75 the disk of the journal is full: ")
    assert after == "1 jobs"


@mounting
def test_a_read_only_file_system_can_be_read_and_not_written(journal_path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    add_job(journal)
    journal.close()
    read_only = mount_command('mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"', journal_path.parent)
    assert child_processes.run_child("read", journal_path, before=read_only) == "1 jobs\n"
    output = child_processes.run_child("write", journal_path, before=read_only)
    assert output == f"74 the lock file {journal_path}.write cannot be opened: Read-only file system\n"


@mounting
def test_a_read_only_journal_in_a_writable_folder_is_reported(journal_path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    add_job(journal)
    journal.close()
    read_only = mount_command('mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"', journal_path)
    assert child_processes.run_child("write", journal_path, before=read_only).startswith(
        f"74 the journal is read-only: {journal_path}"
    )


@as_root
def test_a_folder_that_the_user_may_not_enter_is_reported(journal: Journal, journal_path: Path) -> None:
    os.chmod(journal_path.parents[1], 0o755)
    output = child_processes.run_child("read_as_nobody", journal_path)
    assert output == f"74 the journal {journal_path} cannot be opened: Permission denied\n"


@as_root
def test_a_user_with_read_access_reads_the_journal_beside_the_daemon(journal: Journal, journal_path: Path) -> None:
    for folder in journal_path.parents[:2]:
        os.chmod(folder, 0o755)
    add_job(journal)
    assert child_processes.run_child("read_as_nobody", journal_path) == "1 jobs\n"


@as_root
def test_a_user_with_read_access_reads_the_journal_of_an_ended_daemon(journal_path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(journal_path, clock)
    add_job(journal)
    journal.close()
    for folder in journal_path.parents[:2]:
        os.chmod(folder, 0o755)
    assert child_processes.run_child("read_as_nobody", journal_path) == "1 jobs\n"


@as_root
def test_a_file_that_the_user_may_not_read_is_reported(journal: Journal, journal_path: Path) -> None:
    for folder in journal_path.parents[:2]:
        os.chmod(folder, 0o755)
    os.chmod(journal_path, 0o600)
    assert child_processes.run_child("read_as_nobody", journal_path).startswith("74 the journal cannot be opened: ")


@as_root
def test_a_user_with_read_access_reads_what_a_killed_daemon_had_committed(journal: Journal, journal_path: Path) -> None:
    add_job(journal)
    killed = journal_path.with_name("killed.db")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{killed}{suffix}").write_bytes(Path(f"{journal_path}{suffix}").read_bytes())
    for folder in journal_path.parents[:2]:
        os.chmod(folder, 0o755)
    assert child_processes.run_child("read_as_nobody", killed) == "1 jobs\n"
