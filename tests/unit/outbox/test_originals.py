"""Originals: moved or deleted only if unchanged, and in exactly one place in the end."""

import os
import stat
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePath

import pytest

from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.fs.verdicts import Missing
from picwish_watchd.job import Stamp
from picwish_watchd.outbox import originals
from picwish_watchd.outbox.originals import (
    Deleted,
    DisposalFailed,
    Moved,
    Replaced,
    _MoveOperation,
    _SourceFile,
    delete_original,
    move_original,
)
from tests.support.race_hooks import run_after_call, run_before_call

DATA = b"original" * 100_000
DIGEST = sha256(DATA).hexdigest()
OTHER_DISK = Path("/dev/shm")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "inbox" / "a" / "cat.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    path.chmod(0o604)
    os.utime(path, ns=(1_000_000_000, 1_000_000_000))
    return path


@pytest.fixture(params=["same file system", "another file system"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "same file system":
        path = tmp_path / "archive"
        path.mkdir()
        yield path
        return
    if not OTHER_DISK.is_dir() or OTHER_DISK.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs two file systems")
    with tempfile.TemporaryDirectory(dir=OTHER_DISK) as folder:
        yield Path(folder)


def read_stamp(path: Path) -> Stamp:
    return stamp_of(path.lstat())


def archive_original(
    source: Path, archive: Path, known: Stamp | None = None, digest: str | None = DIGEST
) -> Moved | Replaced | Missing | DisposalFailed:
    return move_original(source, known or read_stamp(source), digest, archive, Path("a/cat.jpg"), mode=0o640, tag="7")


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_an_original_is_moved_with_its_subfolder_time_and_mode(source: Path, archive: Path) -> None:
    assert archive_original(source, archive) == Moved(archive / "a/cat.jpg")
    status = (archive / "a/cat.jpg").stat()
    assert (archive / "a/cat.jpg").read_bytes() == DATA
    assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (1_000_000_000, 0o604)
    assert stat.S_IMODE((archive / "a").stat().st_mode) == 0o750
    assert list_files(source.parent) == []
    assert list_files(archive) == ["a/cat.jpg"]


def test_another_file_of_that_name_in_the_archive_stays(source: Path, archive: Path) -> None:
    (archive / "a").mkdir()
    (archive / "a/cat.jpg").write_bytes(DATA[:-1] + b"!")
    (archive / "a/cat-1.jpg").mkdir()
    assert archive_original(source, archive) == Moved(archive / "a/cat-2.jpg")
    assert (archive / "a/cat-2.jpg").read_bytes() == DATA
    assert list_files(source.parent) == []


def test_a_move_cut_short_by_a_crash_ends_in_one_place_when_repeated(source: Path, archive: Path) -> None:
    (archive / "a").mkdir()
    (archive / "a/cat.jpg").write_bytes(DATA)
    assert archive_original(source, archive) == Moved(archive / "a/cat.jpg")
    assert list_files(source.parent) == []
    assert list_files(archive) == ["a/cat.jpg"]
    assert archive_original(source, archive, Stamp(1, 1, 1)) == Missing()


def test_a_move_by_link_cut_short_ends_in_one_place_when_repeated(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "a").mkdir(parents=True)
    os.link(source, archive / "a/cat.jpg")
    assert archive_original(source, archive) == Moved(archive / "a/cat.jpg")
    assert list_files(tmp_path) == ["archive/a/cat.jpg"]


def test_a_touched_file_with_the_same_bytes_is_the_same(source: Path, archive: Path) -> None:
    known = read_stamp(source)
    os.utime(source, ns=(5, 5))
    assert archive_original(source, archive, known) == Moved(archive / "a/cat.jpg")


def test_a_replaced_file_is_not_touched(source: Path, archive: Path) -> None:
    known = read_stamp(source)
    source.write_bytes(b"new content")
    assert archive_original(source, archive, known) == Replaced()
    assert archive_original(source, archive, known, digest=None) == Replaced()
    assert delete_original(source, known, DIGEST) == Replaced()
    assert source.read_bytes() == b"new content"
    source.unlink()
    source.mkdir()
    assert archive_original(source, archive, known) == Replaced()
    assert list_files(archive) == []


def test_a_file_whose_bytes_are_not_known_is_known_by_its_stamp(source: Path, archive: Path) -> None:
    assert archive_original(source, archive, digest=None) == Moved(archive / "a/cat.jpg")


def test_other_bytes_are_not_archived_as_the_jobs_original(source: Path, archive: Path) -> None:
    if archive.stat().st_dev == source.stat().st_dev:
        pytest.skip("a rename does not read the bytes")
    assert archive_original(source, archive, digest="0" * 64) == Replaced()
    assert list_files(archive) == []
    assert source.read_bytes() == DATA


def test_an_archive_that_is_away_leaves_the_original_where_it_is(source: Path, tmp_path: Path) -> None:
    assert archive_original(source, tmp_path / "away") == DisposalFailed(f"{tmp_path}/away is away")
    (tmp_path / "file").write_text("")
    assert archive_original(source, tmp_path / "file") == DisposalFailed(f"{tmp_path}/file is away")
    assert source.read_bytes() == DATA


def test_a_link_in_the_archive_leads_nowhere(source: Path, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (archive / "a").symlink_to(tmp_path / "outside")
    assert archive_original(source, archive) == DisposalFailed("Not a directory")
    assert list_files(tmp_path / "outside") == []


def test_of_a_symbolic_link_the_content_is_archived_and_its_target_stays(source: Path, archive: Path) -> None:
    link = source.with_name("link.jpg")
    link.symlink_to("cat.jpg")
    outcome = move_original(link, read_stamp(source), DIGEST, archive, Path("link.jpg"), mode=0o644, tag="7")
    assert outcome == Moved(archive / "link.jpg")
    assert not (archive / "link.jpg").is_symlink()
    assert list_files(source.parent) == ["cat.jpg"]
    link.symlink_to("cat.jpg")
    assert delete_original(link, read_stamp(source), DIGEST) == Deleted()
    assert list_files(source.parent) == ["cat.jpg"]
    link.symlink_to("nowhere")
    assert delete_original(link, read_stamp(source), DIGEST) == Missing()
    link.unlink()
    link.symlink_to("x" * 300)
    assert delete_original(link, read_stamp(source), DIGEST) == DisposalFailed("File name too long")


def test_what_is_no_file_stays(source: Path, archive: Path) -> None:
    pipe = source.with_name("pipe.jpg")
    link = source.with_name("link.jpg")
    os.mkfifo(pipe)
    link.symlink_to("cat.jpg")
    assert archive_original(pipe, archive, digest=None) == DisposalFailed("it is a named pipe; only files are moved")
    assert archive_original(link, archive, digest=None) == DisposalFailed("it is a symbolic link; only files are moved")


def test_an_original_is_deleted_once(source: Path) -> None:
    known = read_stamp(source)
    assert delete_original(source, known, DIGEST) == Deleted()
    assert delete_original(source, known, DIGEST) == Missing()
    assert list_files(source.parent) == []


def test_an_original_that_may_not_be_deleted_is_reported() -> None:
    path = Path("/proc/self/limits")
    assert isinstance(delete_original(path, read_stamp(path), None), DisposalFailed)
    long = Path("/" + "x" * 300)
    assert delete_original(long, Stamp(1, 1, 1), None) == DisposalFailed("File name too long")


def archive_replaced_original(source: Path, archive: Path, believed: Stamp) -> Moved | Replaced | DisposalFailed:
    """Archive a file that is replaced between the check and the move."""
    inbox, folder = os.open(source.parent, os.O_RDONLY), os.open(archive, os.O_RDONLY)
    try:
        original = _SourceFile(source, believed, DIGEST, is_symlink=False)
        return _MoveOperation(original, inbox, folder, archive, PurePath("cat.jpg"), "7").run()
    finally:
        os.close(inbox)
        os.close(folder)


def test_a_file_that_slips_in_at_the_last_moment_is_put_back(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    believed = read_stamp(source)
    source.write_bytes(b"new content")
    assert archive_replaced_original(source, archive, believed) == Replaced()
    assert source.read_bytes() == b"new content"
    assert list_files(archive) == []


def test_a_file_that_changes_after_it_was_copied_stays(source: Path, archive: Path) -> None:
    (archive / "cat.jpg").write_bytes(DATA)
    assert archive_replaced_original(source, archive, Stamp(1, 2, 3)) == Moved(archive / "cat.jpg")
    assert source.read_bytes() == DATA


def test_a_file_that_vanishes_meanwhile_is_gone(source: Path, archive: Path) -> None:
    known = read_stamp(source)
    source.unlink()
    with pytest.raises(FileNotFoundError):
        archive_replaced_original(source, archive, known)


def test_a_file_put_back_under_a_taken_name_goes_beside_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    believed = read_stamp(source)
    source.write_bytes(b"new content")
    run_after_call(monkeypatch, "stat", lambda: source.write_bytes(b"newer still"))
    assert archive_replaced_original(source, archive, believed) == Replaced()
    assert source.read_bytes() == b"newer still"
    assert source.with_name("cat-1.jpg").read_bytes() == b"new content"
    assert list_files(archive) == []


def test_a_file_that_vanishes_before_it_is_deleted_is_gone(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_before_call(monkeypatch, "unlink", lambda: source.rename(source.with_name("elsewhere.jpg")))
    assert delete_original(source, read_stamp(source), DIGEST) == Missing()


def test_an_archive_without_a_free_name_is_reported(
    source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(originals, "_NUMBERS_MAX", 2)
    (archive / "a/cat.jpg").mkdir(parents=True)
    (archive / "a/cat-1.jpg").mkdir()
    assert archive_original(source, archive) == DisposalFailed(
        f"{archive}/a/cat.jpg and its 1 numbered names are taken"
    )
    assert list_files(archive) == []
    assert source.read_bytes() == DATA


@pytest.mark.parametrize("call", ["fsync", "utime"], ids=["before it is copied", "while it is copied"])
def test_a_copy_whose_source_is_still_written_to_is_not_kept(
    call: str, source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if archive.stat().st_dev == source.stat().st_dev:
        pytest.skip("a rename does not read the bytes")
    run_before_call(monkeypatch, call, lambda: source.write_bytes(b"new content"))
    assert archive_original(source, archive, digest=None) == Replaced()
    assert source.read_bytes() == b"new content"
    assert list_files(archive) == []
