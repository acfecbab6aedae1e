"""Originals on real disks that are full, read-only or refuse a removal: a complete copy always exists."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.outbox.originals import Deleted, DisposalFailed, Moved, delete_original, move_original
from tests.support.mounts import run_succeeds, small_disk

DATA = b"original" * 10_000
DIGEST = sha256(DATA).hexdigest()

Outcome = object


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as mount:
        yield mount


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@contextmanager
def set_attribute(path: Path, attribute: str) -> Iterator[None]:
    """Set an attribute with chattr(1): "i" forbids all changes, "a" forbids removals, even for root."""
    if not run_succeeds("chattr", f"+{attribute}", path):
        pytest.skip("chattr is not possible with this file system or user")
    try:
        yield
    finally:
        assert run_succeeds("chattr", f"-{attribute}", path)


def write_until_full(act: Callable[[int], object]) -> None:
    def forever() -> None:
        for number in count():
            act(number)

    with pytest.raises(OSError, match="No space left"):
        forever()


@contextmanager
def fill_disk(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb") as file:
        write_until_full(lambda _: os.write(file.fileno(), bytes(4096)))
    yield
    filler.unlink()


@contextmanager
def use_all_inodes(disk: Path) -> Iterator[None]:
    folder = disk / "many"
    folder.mkdir()
    write_until_full(lambda number: (folder / str(number)).touch())
    yield
    shutil.rmtree(folder)


@contextmanager
def remount_read_only(disk: Path) -> Iterator[None]:
    os.sync()
    assert run_succeeds("mount", "-o", "remount,ro", disk)
    yield
    assert run_succeeds("mount", "-o", "remount,rw", disk)


def write_original(folder: Path) -> Path:
    path = folder / "cat.jpg"
    path.write_bytes(DATA)
    return path


def try_move(source: Path, archive: Path) -> Outcome:
    return move_original(source, stamp_of(source.lstat()), DIGEST, archive, Path("a/cat.jpg"), mode=0o640, tag="7")


def list_whole_files(*folders: Path) -> list[str]:
    """Return the names of all files below, leftovers included; each must have the complete original."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert all(path.read_bytes() == DATA for path in files)
    return sorted(f"{path.parent.name}/{path.name}" for path in files)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (fill_disk, "No space left on device"),
        (use_all_inodes, "No space left on device"),
        (remount_read_only, "Read-only file system"),
    ],
)
def test_a_full_or_read_only_archive_leaves_the_original_until_it_works(
    trouble: object, reason: str, disk: Path, inbox: Path
) -> None:
    source, archive = write_original(inbox), disk / "archive"
    (archive / "a").mkdir(parents=True)
    assert callable(trouble)
    with trouble(disk):
        assert try_move(source, archive) == DisposalFailed(reason)
        assert list_whole_files(inbox, archive) == ["inbox/cat.jpg"]
        assert try_move(source, archive) == DisposalFailed(reason)
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert list_whole_files(inbox, archive) == ["a/cat.jpg"]


def test_an_original_on_a_full_disk_can_be_moved_and_deleted(disk: Path, tmp_path: Path) -> None:
    (disk / "inbox").mkdir()
    (disk / "archive" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    source = write_original(disk / "inbox")
    with fill_disk(disk):
        assert try_move(source, disk / "archive") == Moved(disk / "archive/a/cat.jpg")
        moved = disk / "archive/a/cat.jpg"
        assert try_move(moved, tmp_path / "elsewhere") == Moved(tmp_path / "elsewhere/a/cat.jpg")
        assert list_whole_files(disk / "inbox", disk / "archive", tmp_path / "elsewhere") == ["a/cat.jpg"]
    source = write_original(disk / "inbox")
    with use_all_inodes(disk):
        assert delete_original(source, stamp_of(source.lstat()), DIGEST) == Deleted()


def test_a_read_only_inbox_keeps_its_original_and_one_copy_is_archived(disk: Path, tmp_path: Path) -> None:
    (disk / "inbox").mkdir()
    archive = tmp_path / "archive"
    archive.mkdir()
    source = write_original(disk / "inbox")
    known = stamp_of(source.lstat())
    with remount_read_only(disk):
        for _ in range(2):
            assert try_move(source, archive) == DisposalFailed("Read-only file system")
            assert list_whole_files(disk / "inbox", archive) == ["a/cat.jpg", "inbox/cat.jpg"]
        assert delete_original(source, known, DIGEST) == DisposalFailed("Read-only file system")
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert list_whole_files(disk / "inbox", archive) == ["a/cat.jpg"]


@pytest.mark.parametrize("where", ["same disk", "another disk"])
@pytest.mark.parametrize(("target", "attribute"), [("file", "i"), ("folder", "i"), ("folder", "a")])
def test_an_unremovable_original_stays_and_is_archived_at_most_once(
    target: str, attribute: str, where: str, disk: Path, inbox: Path, tmp_path: Path
) -> None:
    source = write_original(inbox)
    archive = (tmp_path if where == "same disk" else disk) / "archive"
    archive.mkdir()
    with set_attribute(source if target == "file" else inbox, attribute):
        for _ in range(2):
            assert try_move(source, archive) == DisposalFailed("Operation not permitted")
            assert list_whole_files(inbox, archive) in (["inbox/cat.jpg"], ["a/cat.jpg", "inbox/cat.jpg"])
        assert delete_original(source, stamp_of(source.lstat()), DIGEST) == DisposalFailed("Operation not permitted")
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert list_whole_files(inbox, archive) == ["a/cat.jpg"]


def test_an_original_that_is_in_use_as_a_mount_point_stays(inbox: Path, tmp_path: Path) -> None:
    source, archive = write_original(inbox), tmp_path / "archive"
    archive.mkdir()
    if not run_succeeds("mount", "--bind", source, source):
        pytest.skip("may not mount")
    try:
        assert delete_original(source, stamp_of(source.lstat()), DIGEST) == DisposalFailed("Device or resource busy")
        assert isinstance(try_move(source, archive), DisposalFailed)
        assert "inbox/cat.jpg" in list_whole_files(inbox, archive)
    finally:
        assert run_succeeds("umount", source)
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert list_whole_files(inbox, archive) == ["a/cat.jpg"]


@contextmanager
def as_other_user() -> Iterator[None]:
    """Access files from this thread as a user who owns none of them (setfsuid(2))."""
    libc = ctypes.CDLL(None)
    if os.geteuid() != 0:
        pytest.skip("needs root")
    libc.setfsuid(65534)
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.mark.parametrize("elsewhere", [None, "/dev/shm"], ids=["same disk", "another disk"])
def test_an_original_of_another_user_stays_and_is_archived_at_most_once(elsewhere: str | None) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory(dir=elsewhere) as other:
        inbox, archive = Path(one) / "inbox", Path(other) / "archive"
        for folder in (inbox, archive):
            folder.parent.chmod(0o755)
            folder.mkdir()
        archive.chmod(0o777)
        source = write_original(inbox)
        with as_other_user():
            for _ in range(2):
                assert try_move(source, archive) == DisposalFailed("Permission denied")
                assert list_whole_files(inbox, archive) in (["inbox/cat.jpg"], ["a/cat.jpg", "inbox/cat.jpg"])
            assert delete_original(source, stamp_of(source.lstat()), DIGEST) == DisposalFailed("Permission denied")
        assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
        assert list_whole_files(inbox, archive) == ["a/cat.jpg"]
