"""Putting files under their names: durable, never over another file, and never in a folder behind a link."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picwish_watchd.fs import atomic_write
from picwish_watchd.fs.atomic_write import (
    FolderUnavailable,
    NameRefused,
    NoSpace,
    RenameMethod,
    classify_write_error,
    ensure_root,
    folder_mode,
    open_folder,
    rename_by_link,
    rename_by_placeholder,
    rename_by_renameat2,
    rename_durably,
    rename_noreplace,
    write_part,
)
from picwish_watchd.fs.durability import sync_folder
from tests.support.race_hooks import fail_next_call, run_before_call


@contextmanager
def open_directory(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


RENAME_METHODS = [rename_by_renameat2, rename_by_link, rename_by_placeholder]


@pytest.mark.parametrize("method", RENAME_METHODS)
def test_each_method_renames_and_leaves_nothing_behind(method: RenameMethod, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    with open_directory(tmp_path) as folder:
        method(folder, "part", folder, "final")
    assert os.listdir(tmp_path) == ["final"]
    assert (tmp_path / "final").read_text() == "new"


@pytest.mark.parametrize("method", RENAME_METHODS)
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_no_method_overwrites_anything(method: RenameMethod, kind: str, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    final = tmp_path / "final"
    if kind == "file":
        final.write_text("old")
    elif kind == "folder":
        final.mkdir()
    else:
        final.symlink_to("nowhere")
    with open_directory(tmp_path) as folder, pytest.raises(FileExistsError):
        method(folder, "part", folder, "final")
    assert sorted(os.listdir(tmp_path)) == ["final", "part"]
    assert (tmp_path / "part").read_text() == "new"


def test_a_link_that_was_made_though_the_answer_was_lost_counts_as_made(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    os.link(tmp_path / "part", tmp_path / "final")
    with open_directory(tmp_path) as folder:
        rename_by_link(folder, "part", folder, "final")
    assert os.listdir(tmp_path) == ["final"]


def test_a_placeholder_is_removed_again_if_the_rename_fails(tmp_path: Path) -> None:
    with open_directory(tmp_path) as folder, pytest.raises(FileNotFoundError):
        rename_by_placeholder(folder, "part", folder, "final")
    assert os.listdir(tmp_path) == []


def failing_method(number: int) -> RenameMethod:
    def method(source: int, name: str, target: int, final: str) -> None:
        raise OSError(number, os.strerror(number))

    return method


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_an_unsupported_method_falls_back_to_the_next(number: int, tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    with open_directory(tmp_path) as folder:
        rename_noreplace(
            folder, "part", folder, "final", [failing_method(number), failing_method(number), rename_by_placeholder]
        )
    assert os.listdir(tmp_path) == ["final"]


def test_a_c_library_without_renameat2_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_write, "_renameat2", None)
    (tmp_path / "part").write_text("new")
    with open_directory(tmp_path) as folder:
        assert rename_durably(folder, "part", folder, "final")
    assert os.listdir(tmp_path) == ["final"]


def test_other_errors_do_not_fall_back_to_the_next_method(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("new")
    with open_directory(tmp_path) as folder, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        rename_noreplace(folder, "part", folder, "final", [failing_method(errno.EIO), rename_by_link])
    assert os.listdir(tmp_path) == ["part"]


def test_replacing_replaces_files_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    with open_directory(tmp_path) as folder:
        for final, done in [("file", True), ("folder", False), ("link", False), ("absent", True)]:
            (tmp_path / "part").write_text(final)
            assert rename_durably(folder, "part", folder, final, replace=True) is done
    assert (tmp_path / "file").read_text() == "file"
    assert (tmp_path / "absent").read_text() == "absent"
    assert (tmp_path / "link").is_symlink()


def test_every_error_has_a_meaning() -> None:
    meanings = {number: type(classify_write_error(OSError(number, os.strerror(number)))) for number in errno.errorcode}
    assert set(meanings.values()) == {FolderUnavailable, NoSpace, NameRefused}
    assert meanings[errno.ENOSPC] is meanings[errno.EDQUOT] is NoSpace
    assert meanings[errno.ENAMETOOLONG] is meanings[errno.EILSEQ] is meanings[errno.ELOOP] is NameRefused
    for number in (errno.EROFS, errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOENT, errno.EHOSTDOWN):
        assert meanings[number] is FolderUnavailable
    assert classify_write_error(OSError("no number")) == FolderUnavailable("no number")


def test_an_outbox_is_made_if_its_parent_exists_with_a_mode_to_match(tmp_path: Path) -> None:
    root = tmp_path / "outbox"
    assert ensure_root(root, 0o640) is None
    assert stat.S_IMODE(root.stat().st_mode) == 0o750
    assert ensure_root(root, 0o666) is None
    assert stat.S_IMODE(root.stat().st_mode) == 0o750


def test_an_outbox_below_a_folder_that_is_away_is_never_made(tmp_path: Path) -> None:
    assert ensure_root(tmp_path / "mount" / "outbox", 0o644) == FolderUnavailable(
        f"{tmp_path}/mount/outbox: No such file or directory"
    )
    assert os.listdir(tmp_path) == []


def test_a_file_or_a_dangling_link_where_the_outbox_should_be_is_not_an_outbox(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    assert isinstance(ensure_root(tmp_path / "file", 0o644), FolderUnavailable)
    assert isinstance(ensure_root(tmp_path / "link", 0o644), FolderUnavailable)
    with pytest.raises(FileNotFoundError), open_folder(tmp_path / "file", (), 0o644):
        pass


def test_missing_subfolders_are_created_with_any_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        with open_folder(tmp_path, ("a", "b"), 0o644) as folder:
            assert os.path.samestat(os.fstat(folder), os.stat(tmp_path / "a" / "b"))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o755


def test_a_setgid_folder_hands_its_group_on(tmp_path: Path) -> None:
    tmp_path.chmod(0o2775)
    with open_folder(tmp_path, ("a", "b"), 0o664):
        pass
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o2775


def test_no_link_below_the_root_is_followed_and_the_root_itself_may_be_one(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (root / "way-out").symlink_to(outside)
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(OSError, match="Not a directory"), open_folder(root, ("way-out",), 0o644):
        pass
    with open_folder(tmp_path / "link", ("inside",), 0o644):
        assert (root / "inside").is_dir()
    assert os.listdir(outside) == []


def test_neither_an_error_nor_ctrl_c_leaves_a_part_file(tmp_path: Path) -> None:
    def interrupted() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with open_directory(tmp_path) as folder, pytest.raises(KeyboardInterrupt):
        write_part(folder, interrupted(), tag="7", mode=0o644)
    assert os.listdir(tmp_path) == []


def test_a_part_has_its_mode_with_any_umask_and_its_time_if_given(tmp_path: Path) -> None:
    with open_directory(tmp_path) as folder:
        name, _ = write_part(folder, [b"x", b""], tag="7", mode=0o666, mtime_ns=5_000_000_000)
    status = (tmp_path / name).stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_size) == (0o666, 5_000_000_000, 1)
    assert name.startswith(".picwish-7-")
    assert name.endswith(".part")


def test_a_failed_sync_is_reported_unless_sync_is_unsupported() -> None:
    reader, writer = os.pipe()
    try:
        # It raises EINVAL.
        sync_folder(reader)
    finally:
        os.close(reader)
        os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_folder(reader)


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o644, 0o755), (0o600, 0o700), (0o664, 0o775), (0o400, 0o700), (0o666, 0o777)]
)
def test_a_folder_has_x_where_its_files_have_r(mode: int, expected: int) -> None:
    assert folder_mode(mode) == expected


def test_a_subfolder_that_somebody_else_makes_at_the_same_moment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_before_call(monkeypatch, "mkdir", (tmp_path / "a").mkdir)
    with open_folder(tmp_path, ("a",), 0o644) as folder:
        assert os.path.samestat(os.fstat(folder), os.stat(tmp_path / "a"))


@pytest.mark.parametrize(("number", "refused"), [(errno.EPERM, False), (errno.EIO, True)])
def test_a_file_system_without_modes_is_fine_and_a_broken_one_is_reported(
    number: int, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_next_call(monkeypatch, "fchmod", number)
    outcome = ensure_root(tmp_path / "outbox", 0o644)
    assert outcome == (FolderUnavailable(f"{tmp_path}/outbox: Input/output error") if refused else None)


def test_an_outbox_on_a_full_disk_has_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_next_call(monkeypatch, "mkdir", errno.ENOSPC)
    assert ensure_root(tmp_path / "outbox", 0o644) == NoSpace("No space left on device")
