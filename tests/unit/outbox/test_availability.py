"""Whether a folder can be used, and the reason that is given if not."""

import os
import stat
from pathlib import Path

import pytest

from picwish_watchd.fs import hang_guard
from picwish_watchd.fs.atomic_write import FolderUnavailable, NoSpace
from picwish_watchd.fs.mounts import AcceptedMount, Mount
from picwish_watchd.outbox.availability import (
    LOST,
    describe_hang,
    ensure_usable,
    find_write_problem,
    why_absent,
    why_full,
    why_unavailable,
)

ANYWHERE = AcceptedMount("scans", None)


def test_a_folder_that_can_be_used_has_no_reason(tmp_path: Path) -> None:
    assert why_unavailable(tmp_path, ANYWHERE) is None
    assert find_write_problem(tmp_path, ANYWHERE, seen=True, min_free=1) is None
    assert ensure_usable(tmp_path, 0o644, ANYWHERE, seen=False, min_free=1) is None


def test_a_target_folder_is_made_once_and_afterwards_only_waited_for(tmp_path: Path) -> None:
    outbox = tmp_path / "outbox"
    assert find_write_problem(outbox, ANYWHERE, seen=False) is None
    assert not outbox.exists()
    assert ensure_usable(outbox, 0o644, ANYWHERE, seen=False) is None
    outbox.rmdir()
    assert find_write_problem(outbox, ANYWHERE, seen=True) == FolderUnavailable(LOST)
    assert ensure_usable(outbox, 0o644, ANYWHERE, seen=True) == FolderUnavailable(LOST)
    assert not outbox.exists()


def test_a_target_folder_without_a_parent_cannot_be_made(tmp_path: Path) -> None:
    reason = why_absent(tmp_path / "away" / "outbox", ANYWHERE, seen=False)
    assert reason == f"{tmp_path}/away is not there; make it, or mount what it is on"


@pytest.mark.parametrize("seen", [True, False])
def test_a_file_in_its_place_is_no_folder(tmp_path: Path, seen: bool) -> None:
    file = tmp_path / "outbox"
    file.touch()
    problem = find_write_problem(file, ANYWHERE, seen=seen)
    assert isinstance(problem, FolderUnavailable)
    assert problem.reason.startswith("it is not a folder; ")
    assert why_unavailable(file, ANYWHERE) == problem.reason


def test_a_folder_on_another_mount_names_the_rule_to_approve(tmp_path: Path) -> None:
    accepted = AcceptedMount("scans", Mount("/gone", "nfs4"))
    reason = why_unavailable(tmp_path, accepted)
    assert reason is not None
    assert "was on the nfs4 mounted at /gone before" in reason
    assert reason.endswith("or accept this one with `picwish-watchd approve scans`")
    assert why_unavailable(tmp_path, None) is None
    for seen in (True, False):
        assert ensure_usable(tmp_path, 0o644, accepted, seen=seen) == FolderUnavailable(reason)


def test_a_folder_without_write_permission_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    problem = find_write_problem(tmp_path, ANYWHERE, seen=True)
    assert isinstance(problem, FolderUnavailable)
    assert problem.reason.startswith("it is not writable; ")
    assert stat.S_ISDIR(tmp_path.stat().st_mode)


def test_a_full_folder_says_how_much_is_free_and_how_much_must_be(tmp_path: Path) -> None:
    problem = find_write_problem(tmp_path, ANYWHERE, seen=True, min_free=2**60)
    assert isinstance(problem, NoSpace)
    assert problem.reason.startswith("it has only ")
    assert problem.reason.endswith(" MiB free, and min_free is 1099511627776 MiB; make room there")
    assert why_full(tmp_path, 1) is None
    assert why_full(tmp_path / "away", 1) == FolderUnavailable("No such file or directory")


def test_a_folder_without_free_inodes_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = list(os.statvfs(tmp_path))
    # f_files and f_favail.
    values[5], values[7] = 100, 0
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(values))
    problem = why_full(tmp_path, 1)
    assert isinstance(problem, NoSpace)
    assert "no inodes for another file" in problem.reason


def test_a_folder_that_hangs_says_for_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang_guard, "HANG_TIMEOUT", 0.5)
    assert describe_hang() == "it has not answered for 0.5 s; check the server that it is mounted from"
    assert describe_hang(300) == "it has not answered for 5 min; check the server that it is mounted from"
