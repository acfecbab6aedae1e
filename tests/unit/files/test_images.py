"""Judging images: what is taken, what is refused and in which words, and that nothing in a file makes it raise."""

import io
import os
import socket
import struct
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from picwish_watchd.fs.verdicts import Bad, Changed, Gone, NotWhole, Unreadable
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import Inspected, Limits, inspect, inspect_result, read_exactly
from picwish_watchd.job import ErrorCode, Result, Stamp
from tests.support.pictures import KINDS, file_name, format_of, picture
from tests.support.races import before

LIMITS = Limits(max_bytes=30 * 2**20, max_side=4096)
#: A regular file that can be opened and not read (EINVAL); sysfs(5).
UNREADABLE = Path("/sys/class/net/lo/speed")
needs_sysfs = pytest.mark.skipif(not UNREADABLE.exists(), reason="needs sysfs")


def stored(folder: Path, data: bytes, name: str = "scan.jpg") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path: Path, limits: Limits = LIMITS, *, decode: bool = False) -> tuple[ErrorCode, str]:
    found = inspect(path, limits, decode=decode)
    assert isinstance(found, Bad), found
    return found.problem.code, found.problem.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_is_taken_with_its_size_hash_and_stamp(kind: str, tmp_path: Path) -> None:
    data = picture(kind)
    path = stored(tmp_path, data, file_name(kind))
    found = os.stat(path)
    stamp = Stamp(found.st_ino, len(data), found.st_mtime_ns)
    expected = Inspected(Format(format_of(kind)), 96, 64, len(data), sha256(data).hexdigest(), stamp)
    assert inspect(path, LIMITS) == expected
    assert inspect(path, LIMITS, decode=True) == expected


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    found = inspect(stored(tmp_path, picture("png"), "really-a-png.jpg"), LIMITS)
    assert isinstance(found, Inspected)
    assert found.format is Format.PNG


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_picture_is_waited_for_and_in_the_end_truncated(kind: str, tmp_path: Path) -> None:
    data = picture(kind)
    path = stored(tmp_path, data[: len(data) // 2])
    assert isinstance(inspect(path, LIMITS), NotWhole)
    code, message = refused(path, decode=True)
    assert code == ErrorCode.TRUNCATED
    assert message.startswith("scan.jpg is truncated: ")
    assert message.endswith("; copy or export it again")


def test_a_jpeg_that_only_lacks_its_end_marker_is_taken_once_a_decode_has_decided(tmp_path: Path) -> None:
    path = stored(tmp_path, picture("jpeg")[:-2] + b"\0" * 100)
    assert isinstance(inspect(path, LIMITS), NotWhole)
    found = inspect(path, LIMITS, decode=True)
    assert isinstance(found, Inspected)
    assert (found.width, found.height) == (96, 64)


def test_damage_in_the_middle_is_corrupt(tmp_path: Path) -> None:
    data = bytearray(picture("png"))
    data[len(data) // 2] ^= 0xFF
    assert refused(stored(tmp_path, bytes(data)), decode=True) == (
        ErrorCode.CORRUPT,
        "scan.jpg is corrupt: the checksum of a PNG chunk (IDAT) is wrong; copy or export it again",
    )


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "is empty"), (bytes(5000), "holds only zeros"), (b"\xff\xd8", "has only begun")]
)
def test_what_has_not_arrived_is_waited_for_and_in_the_end_truncated(data: bytes, what: str, tmp_path: Path) -> None:
    path = stored(tmp_path, data)
    found = inspect(path, LIMITS)
    assert isinstance(found, NotWhole)
    assert found.reason == f"scan.jpg {what}"
    assert refused(path, decode=True) == (ErrorCode.TRUNCATED, f"scan.jpg {what}: copy it again")


def sized_beforehand(path: Path, data: bytes, written: list[tuple[int, int]]) -> None:
    """As a copy over SMB or a download in pieces leaves it: at its full size, with ``written`` ranges filled in."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), len(data))
        for start, end in written:
            os.pwrite(file.fileno(), data[start:end], start)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_its_full_size_is_waited_for_until_all_of_it_is_written(kind: str, tmp_path: Path) -> None:
    data = picture(kind, 320, 240) + bytes(8192)
    end, path = len(data) - 8192, tmp_path / "scan.jpg"
    block = 4096 * (end // 4096 // 2)
    head, tail = (0, block), (block + 4096, end)
    for written in ([head], [head, tail], [(0, 1), tail]):
        sized_beforehand(path, data, written)
        assert not isinstance(inspect(path, LIMITS), Inspected), written
    sized_beforehand(path, data, [(0, end)])
    found = inspect(path, LIMITS)
    assert isinstance(found, NotWhole), "what comes behind the picture would make another content of it"
    assert found.reason == "scan.jpg is not whole: not all of it is written yet"
    assert isinstance(inspect(path, LIMITS, decode=True), Inspected)
    path.write_bytes(data)
    assert isinstance(inspect(path, LIMITS), Inspected)


def test_a_black_picture_kept_with_holes_is_taken_in_the_end(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (320, 240)).save(sink, "BMP")
    path = tmp_path / "black.bmp"
    sized_beforehand(path, sink.getvalue(), [(0, 4096)])
    assert isinstance(inspect(path, LIMITS), NotWhole)
    assert isinstance(inspect(path, LIMITS, decode=True), Inspected)


def test_a_known_kind_is_unsupported_and_named(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("P", (8, 8)).save(sink, "GIF")
    assert refused(stored(tmp_path, sink.getvalue())) == (
        ErrorCode.UNSUPPORTED_FORMAT,
        "scan.jpg is a GIF image; PicWish takes JPEG, PNG, WebP, BMP and TIFF: convert it first",
    )


def test_a_camera_raw_file_is_unsupported_though_it_looks_like_a_tiff(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    path = stored(tmp_path, sink.getvalue())
    assert refused(path)[0] == ErrorCode.UNSUPPORTED_FORMAT
    assert inspect_result(path) == "the result is a camera raw file (DNG)"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"hello", "is a text, not an image"),
        (b"<html>", "is an HTML page, not an image"),
        (b"\1\2\3\4", "is not an image"),
    ],
)
def test_no_image_at_all_is_refused_at_once(data: bytes, what: str, tmp_path: Path) -> None:
    assert refused(stored(tmp_path, data)) == (ErrorCode.NOT_AN_IMAGE, f"scan.jpg {what}")


def test_too_many_bytes_are_told_with_number_and_limit(tmp_path: Path) -> None:
    path = stored(tmp_path, picture("bmp", 600, 600))
    code, message = refused(path, Limits(2**20, 4096))
    assert code == ErrorCode.FILE_TOO_LARGE
    assert message == "scan.jpg is 1.030 MiB; PicWish takes at most 1 MiB; make it smaller, for example as a JPEG"
    assert "is 1.1 MB; PicWish takes at most 1 MB" in refused(path, Limits(10**6, 4096))[1]
    size = path.stat().st_size
    assert f"is {size / 1e6:.6f} MB; PicWish takes at most 1.08005 MB" in refused(path, Limits(size - 4, 4096))[1]


def test_too_many_pixels_are_told_with_number_and_limit(tmp_path: Path) -> None:
    path = stored(tmp_path, picture("jpeg", 90, 70))
    assert refused(path, Limits(2**20, 80)) == (
        ErrorCode.RESOLUTION_TOO_HIGH,
        "scan.jpg has 90 x 70 pixels; PicWish takes at most 80 x 80: make it smaller first",
    )
    assert isinstance(inspect(path, Limits(2**20, 90)), Inspected)


def test_a_bomb_is_refused_by_its_header_and_never_decoded(tmp_path: Path) -> None:
    data = bytearray(picture("png"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    path = stored(tmp_path, bytes(data))
    assert refused(path, decode=True)[0] in (ErrorCode.RESOLUTION_TOO_HIGH, ErrorCode.CORRUPT)
    data[16:24] = (9_000).to_bytes(4, "big") * 2
    assert refused(stored(tmp_path, bytes(data)), decode=True)[0] in (ErrorCode.RESOLUTION_TOO_HIGH, ErrorCode.CORRUPT)
    cut = stored(tmp_path, picture("jpeg", 90, 70)[:-500])
    assert refused(cut, Limits(2**20, 80), decode=True)[0] == ErrorCode.RESOLUTION_TOO_HIGH


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(stored(tmp_path, picture()))
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket.jpg"))
    server.close()
    for name, what in [
        ("pipe", "a named pipe"),
        ("folder", "a folder"),
        ("link", "a symbolic link"),
        ("socket", "a socket"),
    ]:
        path = tmp_path / f"{name}.jpg"
        assert refused(path) == (ErrorCode.NOT_AN_IMAGE, f"{name}.jpg is {what}, not a file")
        assert read_exactly(path, "", 0) == Changed()
    assert refused(Path("/dev/null")) == (ErrorCode.NOT_AN_IMAGE, "null is a device, not a file")
    assert inspect_result(tmp_path / "folder.jpg") == "the result is a folder"


def test_links_are_followed_when_told(tmp_path: Path) -> None:
    data = picture()
    link = tmp_path / "link.jpg"
    link.symlink_to(stored(tmp_path, data))
    assert isinstance(inspect(link, LIMITS, follow_symlinks=True), Inspected)
    assert read_exactly(link, sha256(data).hexdigest(), len(data), follow_symlinks=True) == bytearray(data)


def test_a_file_that_is_not_there_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    assert inspect(path, LIMITS) == Gone()
    assert inspect(stored(tmp_path, b"x", "file") / "below.jpg", LIMITS) == Gone()
    assert read_exactly(path, "", 0) == Gone()
    with pytest.raises(OSError, match=r"scan\.jpg"):
        inspect_result(path)


def test_a_name_that_the_system_refuses_is_unreadable(tmp_path: Path) -> None:
    assert inspect(tmp_path / ("x" * 300), LIMITS) == Unreadable("File name too long")


@needs_sysfs
def test_a_file_that_cannot_be_read_says_nothing_about_the_image() -> None:
    assert inspect(UNREADABLE, LIMITS) == Unreadable("Invalid argument")
    assert read_exactly(UNREADABLE, "", 4096) == Unreadable("Invalid argument")
    with pytest.raises(OSError, match="Invalid argument"):
        inspect_result(UNREADABLE)


def test_odd_names_are_shown_as_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    assert refused(stored(tmp_path, b"hello", name))[1] == "caf\\xe9\\n.jpg is a text, not an image"


def test_only_the_bytes_that_were_judged_are_read_for_sending(tmp_path: Path) -> None:
    data = picture("bmp", 700, 700)
    path, digest = stored(tmp_path, data), sha256(data).hexdigest()
    found = read_exactly(path, digest, len(data))
    assert isinstance(found, bytearray)
    assert found == data
    assert read_exactly(path, digest, len(data) - 1) == Changed()
    stored(tmp_path, data[:-1] + b"!")
    assert read_exactly(path, digest, len(data)) == Changed()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_result_is_told_with_its_size_and_hash(kind: str, tmp_path: Path) -> None:
    data = picture(kind)
    found = inspect_result(stored(tmp_path, data, "7.result"))
    assert found == Result(format_of(kind), 96, 64, len(data), sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the result is empty"),
        (b"<!doctype html><title>404", "the result is an HTML page, not an image"),
        (b'{"error": 1}', "the result is a JSON document, not an image"),
        (b"\1\2", "the result is not an image"),
        (b"GIF89a", "the result is a GIF image, none of JPEG, PNG, WebP, BMP, TIFF"),
        (picture("jpeg")[:-300], "the result is not a whole JPEG image: the JPEG has no end-of-image marker"),
    ],
)
def test_what_is_no_result_is_told(data: bytes, reason: str, tmp_path: Path) -> None:
    assert inspect_result(stored(tmp_path, data)) == reason


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_makes_inspect_raise_or_wait_for_ever(kind: str, tmp_path: Path) -> None:
    whole = picture(kind, 24, 16)
    path = tmp_path / "scan"

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 60))
    def damage(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(whole)
        for place, value in changes:
            data[place] = value
        path.write_bytes(data[: len(data) - cut])
        assert isinstance(inspect(path, LIMITS), Inspected | NotWhole | Bad)
        assert isinstance(inspect(path, LIMITS, decode=True), Inspected | Bad)

    damage()


def test_a_file_that_shrinks_while_it_is_read_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture()
    path = stored(tmp_path, data)
    before(monkeypatch, "preadv", lambda: os.truncate(path, 0))
    assert read_exactly(path, sha256(data).hexdigest(), len(data)) == Changed()


def test_a_file_that_changes_while_it_is_judged_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, picture())
    before(monkeypatch, "pread", lambda: path.write_bytes(b"something else"))
    assert inspect(path, LIMITS) == Changed()


def flawed_tiff(width: int = 100, height: int = 100) -> bytes:
    """Its directory stands at its end, and has an entry of nobody's that points beyond that: readers pass it over."""
    data = bytes(range(256)) * (width * height * 3 // 256 + 1)
    data = data[: width * height * 3]
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
        (277, 3, 1, 3), (278, 3, 1, height), (279, 4, 1, len(data)), (65000, 2, 1000, 10**7),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(entries)) + table + bytes(4)


def test_a_flawed_tiff_that_is_to_be_made_smaller_is_judged_by_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(flawed_tiff())
    small = Limits(max_bytes=20_000, max_side=4096, fitting=True)
    assert isinstance(inspect(path, small), NotWhole)
    found = inspect(path, small, decode=True)
    assert isinstance(found, Inspected)
    assert (found.width, found.height) == (100, 100)
    path.write_bytes(flawed_tiff()[:25_000])
    found = inspect(path, small, decode=True)
    assert isinstance(found, Bad)
    assert found.problem.code is ErrorCode.TRUNCATED
    for hostile in (b"II*\0\xff\xff\xff\x7f", b"II*\0\0\0\0\0", flawed_tiff(0, 5)):
        path.write_bytes(hostile + bytes(20_000))
        assert isinstance(inspect(path, small, decode=True), Bad)
