"""Originals: moved or deleted only if still the same, and in exactly one place in the end."""

import os
import stat
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path, PurePath

import pytest

from picwish_watchd.fs.safe_open import stamp_of
from picwish_watchd.fs.verdicts import Gone
from picwish_watchd.job import Stamp
from picwish_watchd.outbox import originals
from picwish_watchd.outbox.originals import Deleted, Moved, Replaced, Stuck, _Errand, _Original, delete, move
from tests.support.races import after, before

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


def stamp(path: Path) -> Stamp:
    return stamp_of(path.lstat())


def moved(
    source: Path, archive: Path, known: Stamp | None = None, digest: str | None = DIGEST
) -> Moved | Replaced | Gone | Stuck:
    return move(source, known or stamp(source), digest, archive, Path("a/cat.jpg"), mode=0o640, tag="7")


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_an_original_is_moved_with_its_subfolder_time_and_mode(source: Path, archive: Path) -> None:
    assert moved(source, archive) == Moved(archive / "a/cat.jpg")
    found = (archive / "a/cat.jpg").stat()
    assert (archive / "a/cat.jpg").read_bytes() == DATA
    assert (found.st_mtime_ns, stat.S_IMODE(found.st_mode)) == (1_000_000_000, 0o604)
    assert stat.S_IMODE((archive / "a").stat().st_mode) == 0o750
    assert tree(source.parent) == []
    assert tree(archive) == ["a/cat.jpg"]


def test_another_file_of_that_name_in_the_archive_stays(source: Path, archive: Path) -> None:
    (archive / "a").mkdir()
    (archive / "a/cat.jpg").write_bytes(DATA[:-1] + b"!")
    (archive / "a/cat-1.jpg").mkdir()
    assert moved(source, archive) == Moved(archive / "a/cat-2.jpg")
    assert (archive / "a/cat-2.jpg").read_bytes() == DATA
    assert tree(source.parent) == []


def test_a_move_cut_short_by_a_crash_ends_in_one_place_when_repeated(source: Path, archive: Path) -> None:
    (archive / "a").mkdir()
    (archive / "a/cat.jpg").write_bytes(DATA)
    assert moved(source, archive) == Moved(archive / "a/cat.jpg")
    assert tree(source.parent) == []
    assert tree(archive) == ["a/cat.jpg"]
    assert moved(source, archive, Stamp(1, 1, 1)) == Gone()


def test_a_move_by_link_cut_short_ends_in_one_place_when_repeated(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    (archive / "a").mkdir(parents=True)
    os.link(source, archive / "a/cat.jpg")
    assert moved(source, archive) == Moved(archive / "a/cat.jpg")
    assert tree(tmp_path) == ["archive/a/cat.jpg"]


def test_a_touched_file_with_the_same_bytes_is_the_same(source: Path, archive: Path) -> None:
    known = stamp(source)
    os.utime(source, ns=(5, 5))
    assert moved(source, archive, known) == Moved(archive / "a/cat.jpg")


def test_a_replaced_file_is_not_touched(source: Path, archive: Path) -> None:
    known = stamp(source)
    source.write_bytes(b"new content")
    assert moved(source, archive, known) == Replaced()
    assert moved(source, archive, known, digest=None) == Replaced()
    assert delete(source, known, DIGEST) == Replaced()
    assert source.read_bytes() == b"new content"
    source.unlink()
    source.mkdir()
    assert moved(source, archive, known) == Replaced()
    assert tree(archive) == []


def test_a_file_whose_bytes_are_not_known_is_known_by_its_stamp(source: Path, archive: Path) -> None:
    assert moved(source, archive, digest=None) == Moved(archive / "a/cat.jpg")


def test_bytes_that_are_not_the_jobs_are_not_archived_as_the_jobs(source: Path, archive: Path) -> None:
    if archive.stat().st_dev == source.stat().st_dev:
        pytest.skip("a rename does not read the bytes")
    assert moved(source, archive, digest="0" * 64) == Replaced()
    assert tree(archive) == []
    assert source.read_bytes() == DATA


def test_an_archive_that_is_away_leaves_the_original_where_it_is(source: Path, tmp_path: Path) -> None:
    assert moved(source, tmp_path / "away") == Stuck(f"{tmp_path}/away is away")
    (tmp_path / "file").write_text("")
    assert moved(source, tmp_path / "file") == Stuck(f"{tmp_path}/file is away")
    assert source.read_bytes() == DATA


def test_a_link_in_the_archive_leads_nowhere(source: Path, archive: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (archive / "a").symlink_to(tmp_path / "outside")
    assert moved(source, archive) == Stuck("Not a directory")
    assert tree(tmp_path / "outside") == []


def test_of_a_symbolic_link_the_content_is_archived_and_its_target_stays(source: Path, archive: Path) -> None:
    link = source.with_name("link.jpg")
    link.symlink_to("cat.jpg")
    found = move(link, stamp(source), DIGEST, archive, Path("link.jpg"), mode=0o644, tag="7")
    assert found == Moved(archive / "link.jpg")
    assert not (archive / "link.jpg").is_symlink()
    assert tree(source.parent) == ["cat.jpg"]
    link.symlink_to("cat.jpg")
    assert delete(link, stamp(source), DIGEST) == Deleted()
    assert tree(source.parent) == ["cat.jpg"]
    link.symlink_to("nowhere")
    assert delete(link, stamp(source), DIGEST) == Gone()
    link.unlink()
    link.symlink_to("x" * 300)
    assert delete(link, stamp(source), DIGEST) == Stuck("File name too long")


def test_what_is_no_file_stays(source: Path, archive: Path) -> None:
    pipe = source.with_name("pipe.jpg")
    link = source.with_name("link.jpg")
    os.mkfifo(pipe)
    link.symlink_to("cat.jpg")
    assert moved(pipe, archive, digest=None) == Stuck("it is a named pipe; only files are moved")
    assert moved(link, archive, digest=None) == Stuck("it is a symbolic link; only files are moved")


def test_an_original_is_deleted_once(source: Path) -> None:
    known = stamp(source)
    assert delete(source, known, DIGEST) == Deleted()
    assert delete(source, known, DIGEST) == Gone()
    assert tree(source.parent) == []


def test_what_may_not_be_deleted_is_told() -> None:
    path = Path("/proc/self/limits")
    assert isinstance(delete(path, stamp(path), None), Stuck)
    long = Path("/" + "x" * 300)
    assert delete(long, Stamp(1, 1, 1), None) == Stuck("File name too long")


def errand(source: Path, archive: Path, believed: Stamp) -> Moved | Replaced | Stuck:
    """A move whose file was replaced between the look at it and the act."""
    inbox, folder = os.open(source.parent, os.O_RDONLY), os.open(archive, os.O_RDONLY)
    try:
        original = _Original(source, believed, DIGEST, link=False)
        return _Errand(original, inbox, folder, archive, PurePath("cat.jpg"), "7").run()
    finally:
        os.close(inbox)
        os.close(folder)


def test_a_file_that_slips_in_at_the_last_moment_is_put_back(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    believed = stamp(source)
    source.write_bytes(b"new content")
    assert errand(source, archive, believed) == Replaced()
    assert source.read_bytes() == b"new content"
    assert tree(archive) == []


def test_a_file_that_changes_after_it_was_copied_stays(source: Path, archive: Path) -> None:
    (archive / "cat.jpg").write_bytes(DATA)
    assert errand(source, archive, Stamp(1, 2, 3)) == Moved(archive / "cat.jpg")
    assert source.read_bytes() == DATA


def test_a_file_that_vanishes_meanwhile_is_gone(source: Path, archive: Path) -> None:
    known = stamp(source)
    source.unlink()
    with pytest.raises(FileNotFoundError):
        errand(source, archive, known)


def test_what_slips_in_and_finds_its_name_taken_again_goes_back_beside_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    believed = stamp(source)
    source.write_bytes(b"new content")
    after(monkeypatch, "stat", lambda: source.write_bytes(b"newer still"))
    assert errand(source, archive, believed) == Replaced()
    assert source.read_bytes() == b"newer still"
    assert source.with_name("cat-1.jpg").read_bytes() == b"new content"
    assert tree(archive) == []


def test_a_file_that_vanishes_before_it_is_deleted_is_gone(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before(monkeypatch, "unlink", lambda: source.rename(source.with_name("elsewhere.jpg")))
    assert delete(source, stamp(source), DIGEST) == Gone()


def test_an_archive_full_of_that_name_is_told(source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(originals, "_NUMBERS_MAX", 2)
    (archive / "a/cat.jpg").mkdir(parents=True)
    (archive / "a/cat-1.jpg").mkdir()
    assert moved(source, archive) == Stuck(f"{archive}/a/cat.jpg and its 1 numbered names are taken")
    assert tree(archive) == []
    assert source.read_bytes() == DATA


@pytest.mark.parametrize("call", ["fsync", "utime"], ids=["before it is copied", "while it is copied"])
def test_a_copy_whose_source_is_still_written_to_is_not_kept(
    call: str, source: Path, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if archive.stat().st_dev == source.stat().st_dev:
        pytest.skip("a rename does not read the bytes")
    before(monkeypatch, call, lambda: source.write_bytes(b"new content"))
    assert moved(source, archive, digest=None) == Replaced()
    assert source.read_bytes() == b"new content"
    assert tree(archive) == []
