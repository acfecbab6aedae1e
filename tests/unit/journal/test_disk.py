"""The disk below the journal: full, read-only, another user's. Each is told, and nothing is half written."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from picwish_watchd.journal.writer import Journal
from tests.support.clock import FakeClock
from tests.unit.journal import children
from tests.unit.journal.journalkit import add_job

_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private")


def _can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*_OWN_MOUNTS, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


mounting = pytest.mark.skipif(not _can_mount(), reason="needs the right to mount file systems of its own")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def mount_command(script: str, *arguments: Path) -> tuple[str, ...]:
    """The beginning of a command that first runs a line of shell among mounts of its own."""
    return (*_OWN_MOUNTS, "sh", "-ec", f'{script}; shift {len(arguments)}; exec "$@"', "sh", *map(str, arguments))


@mounting
def test_a_full_disk_refuses_the_write_and_keeps_all_before_it(path: Path) -> None:
    path.parent.mkdir()
    small = mount_command('mount -t tmpfs -o size=640k tmpfs "$1"', path.parent)
    refused, kept, after = children.run_child("fill_and_free", path, before=small).splitlines()
    assert refused.startswith("75 the disk of the journal is full: ")
    assert kept == "1 submitting"
    assert after == "pending 5"


@mounting
def test_a_new_journal_that_finds_no_room_is_not_half_made(path: Path) -> None:
    small = mount_command('mount -t tmpfs -o size=256k tmpfs "$1"', path.parents[1])
    refused, there, after = children.run_child("begin_on_a_full_disk", path, before=small).splitlines()
    assert refused.startswith("75 the disk of the journal is full: ")
    assert there == "False"
    assert after == "1 jobs"


@mounting
def test_an_upgrade_that_finds_no_room_leaves_the_journal_as_it_was(path: Path) -> None:
    path.parent.mkdir()
    small = mount_command('mount -t tmpfs -o size=512k tmpfs "$1"', path.parent)
    refused, after = children.run_child("upgrade_on_a_full_disk", path, before=small).splitlines()
    assert refused.startswith("75 the disk of the journal is full: ")
    assert after == "1 jobs"


@mounting
def test_a_read_only_file_system_can_be_read_and_not_written(path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(path, clock)
    add_job(journal)
    journal.close()
    read_only = mount_command('mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"', path.parent)
    assert children.run_child("read", path, before=read_only) == "1 jobs\n"
    said = children.run_child("write", path, before=read_only)
    assert said == f"74 the lock file {path}.write cannot be opened: Read-only file system\n"


@mounting
def test_a_read_only_journal_in_a_writable_folder_is_told(path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(path, clock)
    add_job(journal)
    journal.close()
    read_only = mount_command('mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"', path)
    assert children.run_child("write", path, before=read_only).startswith(f"74 the journal is read-only: {path}")


@as_root
def test_a_user_who_may_not_enter_the_folder_is_told_so(journal: Journal, path: Path) -> None:
    os.chmod(path.parents[1], 0o755)
    said = children.run_child("read_as_nobody", path)
    assert said == f"74 the journal {path} cannot be opened: Permission denied\n"


@as_root
def test_a_user_who_may_only_read_sees_the_journal_beside_the_daemon(journal: Journal, path: Path) -> None:
    for folder in path.parents[:2]:
        os.chmod(folder, 0o755)
    add_job(journal)
    assert children.run_child("read_as_nobody", path) == "1 jobs\n"


@as_root
def test_a_user_who_may_only_read_sees_the_journal_of_an_ended_daemon(path: Path, clock: FakeClock) -> None:
    journal = Journal.open_for_writing(path, clock)
    add_job(journal)
    journal.close()
    for folder in path.parents[:2]:
        os.chmod(folder, 0o755)
    assert children.run_child("read_as_nobody", path) == "1 jobs\n"


@as_root
def test_a_user_who_may_not_read_the_file_is_told_so(journal: Journal, path: Path) -> None:
    for folder in path.parents[:2]:
        os.chmod(folder, 0o755)
    os.chmod(path, 0o600)
    assert children.run_child("read_as_nobody", path).startswith("74 the journal cannot be opened: ")


@as_root
def test_a_user_who_may_only_read_sees_what_a_killed_daemon_had_committed(journal: Journal, path: Path) -> None:
    add_job(journal)
    killed = path.with_name("killed.db")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{killed}{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())
    for folder in path.parents[:2]:
        os.chmod(folder, 0o755)
    assert children.run_child("read_as_nobody", killed) == "1 jobs\n"
