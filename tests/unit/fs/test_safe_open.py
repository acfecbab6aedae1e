"""Opening files safely while paths change."""

import errno
import os
from pathlib import Path

import pytest

from picwish_watchd.fs.safe_open import (
    OpenFile,
    StructureError,
    describe_file_type,
    has_same_bytes,
    is_unmodified,
    open_file,
)
from picwish_watchd.fs.verdicts import Changed, Missing, Unreadable
from tests.support.race_hooks import fail_next_call, run_after_call

# Not even root may read this file; see sysfs(5).
WRITE_ONLY = Path("/sys/bus/cpu/uevent")


def open_or_fail(path: Path) -> OpenFile:
    file = open_file(path)
    assert isinstance(file, OpenFile)
    return file


def test_a_file_replaced_under_its_name_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    with open_or_fail(path) as file:
        assert is_unmodified(path, file)
        other = tmp_path / "b"
        other.write_bytes(b"two")
        os.replace(other, path)
        assert not is_unmodified(path, file)
        path.unlink()
        assert not is_unmodified(path, file)


def test_a_file_that_grows_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    with open_or_fail(path) as file:
        path.write_bytes(b"one and more")
        assert not is_unmodified(path, file)
        assert b"".join(file.iter_blocks()) == b"one"


def test_a_file_that_shrinks_while_it_is_read_gives_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    with open_or_fail(path) as file:
        os.truncate(path, 4)
        assert file.read_at(2, 8) == b"23"
        assert file.read_at(50, 8) == b""
        assert b"".join(file.iter_blocks()) == b"0123"
        with pytest.raises(StructureError):
            file.read_exact(2, 8)


def test_what_is_unknown_to_us_still_has_a_name() -> None:
    assert describe_file_type(0) == "something unknown"


@pytest.mark.parametrize("what", ["pipe", "link"])
def test_a_pipe_or_link_swapped_in_for_a_file_is_never_followed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")

    def swap() -> None:
        path.rename(tmp_path / "b")
        if what == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("b")

    run_after_call(monkeypatch, "stat", swap)
    assert open_file(path) == Changed()


def test_a_file_that_vanishes_before_it_is_opened_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    run_after_call(monkeypatch, "stat", path.unlink)
    assert open_file(path) == Missing()


@pytest.mark.skipif(not WRITE_ONLY.exists(), reason="needs sysfs")
def test_a_file_that_may_not_be_opened_is_unreadable() -> None:
    assert isinstance(open_file(WRITE_ONLY), Unreadable)


def test_a_file_that_its_server_forgets_is_unreadable_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    open_before = os.listdir("/proc/self/fd")
    fail_next_call(monkeypatch, "fstat", errno.ESTALE)
    assert open_file(path) == Unreadable("Stale file handle")
    assert os.listdir("/proc/self/fd") == open_before


def test_short_reads_are_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: real(fd, min(length, 3), offset))
    with open_or_fail(path) as file:
        assert file.read_exact(1, 8) == b"12345678"


def test_files_are_compared_to_the_last_byte_or_the_first_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(3 << 20)
    other_byte = bytes([data[0] ^ 1]), bytes([data[-1] ^ 1])
    contents = {"same": data, "first": other_byte[0] + data[1:], "last": data[:-1] + other_byte[1], "short": data[:-1]}
    files = {name: tmp_path / name for name in contents}
    for name, content in contents.items():
        files[name].write_bytes(content)
    read: list[int] = []
    real = os.pread

    def pread(fd: int, length: int, at: int) -> bytes:
        read.append(length)
        return real(fd, length, at)

    monkeypatch.setattr(os, "pread", pread)
    with open_or_fail(files["same"]) as one:
        for name, same, most in (("last", False, 8), ("first", False, 1), ("short", False, 0)):
            read.clear()
            with open_or_fail(files[name]) as other:
                assert has_same_bytes(one, other) is same
            assert sum(read) <= most << 20
        with open_or_fail(files["same"]) as other:
            assert has_same_bytes(one, other)


def test_a_file_that_is_cut_while_it_is_compared_is_not_the_same(tmp_path: Path) -> None:
    data = os.urandom(2 << 20)
    for name in "ab":
        (tmp_path / name).write_bytes(data)
    with open_or_fail(tmp_path / "a") as one, open_or_fail(tmp_path / "b") as other:
        os.truncate(tmp_path / "b", 1 << 20)
        assert not has_same_bytes(one, other)
        assert not has_same_bytes(other, one)
