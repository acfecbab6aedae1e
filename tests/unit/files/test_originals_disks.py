"""Originals on real disks that are full, read-only or will not let go: the content always exists somewhere."""

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
from picwish_watchd.outbox.originals import Deleted, Moved, Stuck, delete, move
from tests.support.mounting import small_disk, system

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
def marked(path: Path, attribute: str) -> Iterator[None]:
    """chattr(1): "i" nothing may change, "a" nothing may be removed; not even by root."""
    if not system("chattr", f"+{attribute}", path):
        pytest.skip("this file system, or this user, knows no chattr")
    try:
        yield
    finally:
        assert system("chattr", f"-{attribute}", path)


def until_no_space_is_left(act: Callable[[int], object]) -> None:
    def forever() -> None:
        for number in count():
            act(number)

    with pytest.raises(OSError, match="No space left"):
        forever()


@contextmanager
def full(disk: Path) -> Iterator[None]:
    filler = disk / "filler"
    with filler.open("wb") as file:
        until_no_space_is_left(lambda _: os.write(file.fileno(), bytes(4096)))
    yield
    filler.unlink()


@contextmanager
def without_inodes(disk: Path) -> Iterator[None]:
    folder = disk / "many"
    folder.mkdir()
    until_no_space_is_left(lambda number: (folder / str(number)).touch())
    yield
    shutil.rmtree(folder)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    os.sync()
    assert system("mount", "-o", "remount,ro", disk)
    yield
    assert system("mount", "-o", "remount,rw", disk)


def put(folder: Path) -> Path:
    path = folder / "cat.jpg"
    path.write_bytes(DATA)
    return path


def try_move(source: Path, archive: Path) -> Outcome:
    return move(source, stamp_of(source.lstat()), DIGEST, archive, Path("a/cat.jpg"), mode=0o640, tag="7")


def files(*folders: Path) -> list[str]:
    """All files below, by name, leftovers included; each must hold the whole original."""
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert all(path.read_bytes() == DATA for path in found)
    return sorted(f"{path.parent.name}/{path.name}" for path in found)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (full, "No space left on device"),
        (without_inodes, "No space left on device"),
        (read_only, "Read-only file system"),
    ],
)
def test_an_archive_that_takes_nothing_leaves_the_original_and_no_litter_and_gets_it_later(
    trouble: object, reason: str, disk: Path, inbox: Path
) -> None:
    source, archive = put(inbox), disk / "archive"
    (archive / "a").mkdir(parents=True)
    assert callable(trouble)
    with trouble(disk):
        assert try_move(source, archive) == Stuck(reason)
        assert files(inbox, archive) == ["inbox/cat.jpg"]
        assert try_move(source, archive) == Stuck(reason)
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert files(inbox, archive) == ["a/cat.jpg"]


def test_an_original_on_a_full_disk_is_moved_within_it_from_it_and_deleted(disk: Path, tmp_path: Path) -> None:
    (disk / "inbox").mkdir()
    (disk / "archive" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    source = put(disk / "inbox")
    with full(disk):
        assert try_move(source, disk / "archive") == Moved(disk / "archive/a/cat.jpg")
        moved = disk / "archive/a/cat.jpg"
        assert try_move(moved, tmp_path / "elsewhere") == Moved(tmp_path / "elsewhere/a/cat.jpg")
        assert files(disk / "inbox", disk / "archive", tmp_path / "elsewhere") == ["a/cat.jpg"]
    source = put(disk / "inbox")
    with without_inodes(disk):
        assert delete(source, stamp_of(source.lstat()), DIGEST) == Deleted()


def test_an_inbox_that_became_read_only_keeps_its_original_and_the_archive_gets_one_copy(
    disk: Path, tmp_path: Path
) -> None:
    (disk / "inbox").mkdir()
    archive = tmp_path / "archive"
    archive.mkdir()
    source = put(disk / "inbox")
    known = stamp_of(source.lstat())
    with read_only(disk):
        for _ in range(2):
            assert try_move(source, archive) == Stuck("Read-only file system")
            assert files(disk / "inbox", archive) == ["a/cat.jpg", "inbox/cat.jpg"]
        assert delete(source, known, DIGEST) == Stuck("Read-only file system")
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert files(disk / "inbox", archive) == ["a/cat.jpg"]


@pytest.mark.parametrize("where", ["same disk", "another disk"])
@pytest.mark.parametrize(("target", "attribute"), [("file", "i"), ("folder", "i"), ("folder", "a")])
def test_an_original_that_may_not_be_removed_stays_whole_and_is_archived_at_most_once(
    target: str, attribute: str, where: str, disk: Path, inbox: Path, tmp_path: Path
) -> None:
    source = put(inbox)
    archive = (tmp_path if where == "same disk" else disk) / "archive"
    archive.mkdir()
    with marked(source if target == "file" else inbox, attribute):
        for _ in range(2):
            assert try_move(source, archive) == Stuck("Operation not permitted")
            assert files(inbox, archive) in (["inbox/cat.jpg"], ["a/cat.jpg", "inbox/cat.jpg"])
        assert delete(source, stamp_of(source.lstat()), DIGEST) == Stuck("Operation not permitted")
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert files(inbox, archive) == ["a/cat.jpg"]


def test_an_original_that_is_in_use_as_a_mount_point_stays(inbox: Path, tmp_path: Path) -> None:
    source, archive = put(inbox), tmp_path / "archive"
    archive.mkdir()
    if not system("mount", "--bind", source, source):
        pytest.skip("may not mount")
    try:
        assert delete(source, stamp_of(source.lstat()), DIGEST) == Stuck("Device or resource busy")
        assert isinstance(try_move(source, archive), Stuck)
        assert "inbox/cat.jpg" in files(inbox, archive)
    finally:
        assert system("umount", source)
    assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
    assert files(inbox, archive) == ["a/cat.jpg"]


@contextmanager
def nobody() -> Iterator[None]:
    """This thread's files are looked at with the eyes of a user who owns none of them (setfsuid(2))."""
    libc = ctypes.CDLL(None)
    if os.geteuid() != 0:
        pytest.skip("needs root")
    libc.setfsuid(65534)
    try:
        yield
    finally:
        libc.setfsuid(0)


@pytest.mark.parametrize("elsewhere", [None, "/dev/shm"], ids=["same disk", "another disk"])
def test_an_original_in_a_folder_of_somebody_else_stays_and_is_archived_at_most_once(elsewhere: str | None) -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory(dir=elsewhere) as other:
        inbox, archive = Path(one) / "inbox", Path(other) / "archive"
        for folder in (inbox, archive):
            folder.parent.chmod(0o755)
            folder.mkdir()
        archive.chmod(0o777)
        source = put(inbox)
        with nobody():
            for _ in range(2):
                assert try_move(source, archive) == Stuck("Permission denied")
                assert files(inbox, archive) in (["inbox/cat.jpg"], ["a/cat.jpg", "inbox/cat.jpg"])
            assert delete(source, stamp_of(source.lstat()), DIGEST) == Stuck("Permission denied")
        assert try_move(source, archive) == Moved(archive / "a/cat.jpg")
        assert files(inbox, archive) == ["a/cat.jpg"]
