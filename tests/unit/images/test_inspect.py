"""Inspecting images: what is accepted, what is refused with which message; no file content raises an exception."""

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

from picwish_watchd.fs.verdicts import Changed, Incomplete, Missing, Rejected, Unreadable
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import ImageLimits, ValidImage, inspect_image, inspect_result, read_verified
from picwish_watchd.job import ErrorCode, Result, Stamp
from tests.support.race_hooks import run_before_call
from tests.support.sample_images import KINDS, file_name, format_of, make_image

LIMITS = ImageLimits(max_bytes=30 * 2**20, max_side=4096)
#: A regular file that can be opened but not read (EINVAL); see sysfs(5).
UNREADABLE = Path("/sys/class/net/lo/speed")
needs_sysfs = pytest.mark.skipif(not UNREADABLE.exists(), reason="needs sysfs")


def write_file(folder: Path, data: bytes, name: str = "scan.jpg") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def inspect_error(path: Path, limits: ImageLimits = LIMITS, *, decode: bool = False) -> tuple[ErrorCode, str]:
    verdict = inspect_image(path, limits, decode=decode)
    assert isinstance(verdict, Rejected), verdict
    return verdict.problem.code, verdict.problem.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_is_taken_with_its_size_hash_and_stamp(kind: str, tmp_path: Path) -> None:
    data = make_image(kind)
    path = write_file(tmp_path, data, file_name(kind))
    status = os.stat(path)
    stamp = Stamp(status.st_ino, len(data), status.st_mtime_ns)
    expected = ValidImage(Format(format_of(kind)), 96, 64, len(data), sha256(data).hexdigest(), stamp)
    assert inspect_image(path, LIMITS) == expected
    assert inspect_image(path, LIMITS, decode=True) == expected


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    verdict = inspect_image(write_file(tmp_path, make_image("png"), "really-a-png.jpg"), LIMITS)
    assert isinstance(verdict, ValidImage)
    assert verdict.format is Format.PNG


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_image_is_waited_for_and_finally_refused(kind: str, tmp_path: Path) -> None:
    data = make_image(kind)
    path = write_file(tmp_path, data[: len(data) // 2])
    assert isinstance(inspect_image(path, LIMITS), Incomplete)
    code, message = inspect_error(path, decode=True)
    assert code == ErrorCode.TRUNCATED
    assert message.startswith("scan.jpg is truncated: ")
    assert message.endswith("; copy or export it again")


def test_a_jpeg_without_its_end_marker_is_accepted_after_a_decode(tmp_path: Path) -> None:
    path = write_file(tmp_path, make_image("jpeg")[:-2] + b"\0" * 100)
    assert isinstance(inspect_image(path, LIMITS), Incomplete)
    verdict = inspect_image(path, LIMITS, decode=True)
    assert isinstance(verdict, ValidImage)
    assert (verdict.width, verdict.height) == (96, 64)


def test_damage_in_the_middle_is_corrupt(tmp_path: Path) -> None:
    data = bytearray(make_image("png"))
    data[len(data) // 2] ^= 0xFF
    assert inspect_error(write_file(tmp_path, bytes(data)), decode=True) == (
        ErrorCode.CORRUPT,
        "scan.jpg is corrupt: the checksum of a PNG chunk (IDAT) is wrong; copy or export it again",
    )


@pytest.mark.parametrize(
    ("data", "what"), [(b"", "is empty"), (bytes(5000), "holds only zeros"), (b"\xff\xd8", "has only begun")]
)
def test_missing_data_is_waited_for_and_finally_refused_as_truncated(data: bytes, what: str, tmp_path: Path) -> None:
    path = write_file(tmp_path, data)
    verdict = inspect_image(path, LIMITS)
    assert isinstance(verdict, Incomplete)
    assert verdict.reason == f"scan.jpg {what}"
    assert inspect_error(path, decode=True) == (ErrorCode.TRUNCATED, f"scan.jpg {what}: copy it again")


def write_preallocated(path: Path, data: bytes, written: list[tuple[int, int]]) -> None:
    """Write a file at its full size with only these ranges filled, as copies over SMB and downloads in pieces do."""
    with path.open("wb") as file:
        os.truncate(file.fileno(), len(data))
        for start, end in written:
            os.pwrite(file.fileno(), data[start:end], start)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_its_full_size_is_waited_for_until_all_of_it_is_written(kind: str, tmp_path: Path) -> None:
    data = make_image(kind, 320, 240) + bytes(8192)
    end, path = len(data) - 8192, tmp_path / "scan.jpg"
    block = 4096 * (end // 4096 // 2)
    head, tail = (0, block), (block + 4096, end)
    for written in ([head], [head, tail], [(0, 1), tail]):
        write_preallocated(path, data, written)
        assert not isinstance(inspect_image(path, LIMITS), ValidImage), written
    write_preallocated(path, data, [(0, end)])
    verdict = inspect_image(path, LIMITS)
    assert isinstance(verdict, Incomplete), "bytes after the image would change its content"
    assert verdict.reason == "scan.jpg is not whole: not all of it is written yet"
    assert isinstance(inspect_image(path, LIMITS, decode=True), ValidImage)
    path.write_bytes(data)
    assert isinstance(inspect_image(path, LIMITS), ValidImage)


def test_a_black_picture_kept_with_holes_is_taken_in_the_end(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (320, 240)).save(sink, "BMP")
    path = tmp_path / "black.bmp"
    write_preallocated(path, sink.getvalue(), [(0, 4096)])
    assert isinstance(inspect_image(path, LIMITS), Incomplete)
    assert isinstance(inspect_image(path, LIMITS, decode=True), ValidImage)


def test_a_known_kind_is_unsupported_and_named(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("P", (8, 8)).save(sink, "GIF")
    assert inspect_error(write_file(tmp_path, sink.getvalue())) == (
        ErrorCode.UNSUPPORTED_FORMAT,
        "scan.jpg is a GIF image; PicWish takes JPEG, PNG, WebP, BMP and TIFF: convert it first",
    )


def test_a_camera_raw_file_is_unsupported_though_it_looks_like_a_tiff(tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "TIFF", tiffinfo={50706: b"\1\4\0\0"})
    path = write_file(tmp_path, sink.getvalue())
    assert inspect_error(path)[0] == ErrorCode.UNSUPPORTED_FORMAT
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
    assert inspect_error(write_file(tmp_path, data)) == (ErrorCode.NOT_AN_IMAGE, f"scan.jpg {what}")


def test_too_many_bytes_are_refused_with_number_and_limit(tmp_path: Path) -> None:
    path = write_file(tmp_path, make_image("bmp", 600, 600))
    code, message = inspect_error(path, ImageLimits(2**20, 4096))
    assert code == ErrorCode.FILE_TOO_LARGE
    assert message == "scan.jpg is 1.030 MiB; PicWish takes at most 1 MiB; make it smaller, for example as a JPEG"
    assert "is 1.1 MB; PicWish takes at most 1 MB" in inspect_error(path, ImageLimits(10**6, 4096))[1]
    size = path.stat().st_size
    assert (
        f"is {size / 1e6:.6f} MB; PicWish takes at most 1.08005 MB"
        in inspect_error(path, ImageLimits(size - 4, 4096))[1]
    )


def test_too_many_pixels_are_refused_with_number_and_limit(tmp_path: Path) -> None:
    path = write_file(tmp_path, make_image("jpeg", 90, 70))
    assert inspect_error(path, ImageLimits(2**20, 80)) == (
        ErrorCode.RESOLUTION_TOO_HIGH,
        "scan.jpg has 90 x 70 pixels; PicWish takes at most 80 x 80: make it smaller first",
    )
    assert isinstance(inspect_image(path, ImageLimits(2**20, 90)), ValidImage)


def test_a_bomb_is_refused_by_its_header_and_never_decoded(tmp_path: Path) -> None:
    data = bytearray(make_image("png"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    path = write_file(tmp_path, bytes(data))
    assert inspect_error(path, decode=True)[0] in (ErrorCode.RESOLUTION_TOO_HIGH, ErrorCode.CORRUPT)
    data[16:24] = (9_000).to_bytes(4, "big") * 2
    assert inspect_error(write_file(tmp_path, bytes(data)), decode=True)[0] in (
        ErrorCode.RESOLUTION_TOO_HIGH,
        ErrorCode.CORRUPT,
    )
    cut = write_file(tmp_path, make_image("jpeg", 90, 70)[:-500])
    assert inspect_error(cut, ImageLimits(2**20, 80), decode=True)[0] == ErrorCode.RESOLUTION_TOO_HIGH


def test_what_is_no_file_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to(write_file(tmp_path, make_image()))
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
        assert inspect_error(path) == (ErrorCode.NOT_AN_IMAGE, f"{name}.jpg is {what}, not a file")
        assert read_verified(path, "", 0) == Changed()
    assert inspect_error(Path("/dev/null")) == (ErrorCode.NOT_AN_IMAGE, "null is a device, not a file")
    assert inspect_result(tmp_path / "folder.jpg") == "the result is a folder"


def test_links_are_followed_when_configured(tmp_path: Path) -> None:
    data = make_image()
    link = tmp_path / "link.jpg"
    link.symlink_to(write_file(tmp_path, data))
    assert isinstance(inspect_image(link, LIMITS, follow_symlinks=True), ValidImage)
    assert read_verified(link, sha256(data).hexdigest(), len(data), follow_symlinks=True) == bytearray(data)


def test_a_file_that_is_not_there_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "scan.jpg"
    assert inspect_image(path, LIMITS) == Missing()
    assert inspect_image(write_file(tmp_path, b"x", "file") / "below.jpg", LIMITS) == Missing()
    assert read_verified(path, "", 0) == Missing()
    with pytest.raises(OSError, match=r"scan\.jpg"):
        inspect_result(path)


def test_a_name_that_the_system_refuses_is_unreadable(tmp_path: Path) -> None:
    assert inspect_image(tmp_path / ("x" * 300), LIMITS) == Unreadable("File name too long")


@needs_sysfs
def test_an_unreadable_file_gives_no_verdict_about_the_image() -> None:
    assert inspect_image(UNREADABLE, LIMITS) == Unreadable("Invalid argument")
    assert read_verified(UNREADABLE, "", 4096) == Unreadable("Invalid argument")
    with pytest.raises(OSError, match="Invalid argument"):
        inspect_result(UNREADABLE)


def test_odd_names_are_shown_as_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\n.jpg")
    assert inspect_error(write_file(tmp_path, b"hello", name))[1] == "caf\\xe9\\n.jpg is a text, not an image"


def test_only_the_validated_bytes_are_read_for_sending(tmp_path: Path) -> None:
    data = make_image("bmp", 700, 700)
    path, digest = write_file(tmp_path, data), sha256(data).hexdigest()
    content = read_verified(path, digest, len(data))
    assert isinstance(content, bytearray)
    assert content == data
    assert read_verified(path, digest, len(data) - 1) == Changed()
    write_file(tmp_path, data[:-1] + b"!")
    assert read_verified(path, digest, len(data)) == Changed()


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_result_is_reported_with_its_size_and_hash(kind: str, tmp_path: Path) -> None:
    data = make_image(kind)
    verdict = inspect_result(write_file(tmp_path, data, "7.result"))
    assert verdict == Result(format_of(kind), 96, 64, len(data), sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the result is empty"),
        (b"<!doctype html><title>404", "the result is an HTML page, not an image"),
        (b'{"error": 1}', "the result is a JSON document, not an image"),
        (b"\1\2", "the result is not an image"),
        (b"GIF89a", "the result is a GIF image, none of JPEG, PNG, WebP, BMP, TIFF"),
        (make_image("jpeg")[:-300], "the result is not a whole JPEG image: the JPEG has no end-of-image marker"),
    ],
)
def test_an_invalid_result_is_reported(data: bytes, reason: str, tmp_path: Path) -> None:
    assert inspect_result(write_file(tmp_path, data)) == reason


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_makes_inspect_raise_or_wait_for_ever(kind: str, tmp_path: Path) -> None:
    whole = make_image(kind, 24, 16)
    path = tmp_path / "scan"

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=8), st.integers(0, 60))
    def damage(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(whole)
        for place, value in changes:
            data[place] = value
        path.write_bytes(data[: len(data) - cut])
        assert isinstance(inspect_image(path, LIMITS), ValidImage | Incomplete | Rejected)
        assert isinstance(inspect_image(path, LIMITS, decode=True), ValidImage | Rejected)

    damage()


def test_a_file_that_shrinks_while_it_is_read_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_image()
    path = write_file(tmp_path, data)
    run_before_call(monkeypatch, "preadv", lambda: os.truncate(path, 0))
    assert read_verified(path, sha256(data).hexdigest(), len(data)) == Changed()


def test_a_file_that_changes_during_validation_gets_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_file(tmp_path, make_image())
    run_before_call(monkeypatch, "pread", lambda: path.write_bytes(b"something else"))
    assert inspect_image(path, LIMITS) == Changed()


def make_flawed_tiff(width: int = 100, height: int = 100) -> bytes:
    """Return a TIFF with its directory at the end and an entry that points beyond the file, as readers allow."""
    data = bytes(range(256)) * (width * height * 3 // 256 + 1)
    data = data[: width * height * 3]
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 1, len(data)),
        (65000, 2, 1000, 10**7),
    ]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(entries)) + table + bytes(4)


def test_a_flawed_oversize_tiff_is_validated_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(make_flawed_tiff())
    small = ImageLimits(max_bytes=20_000, max_side=4096, allow_downscale=True)
    assert isinstance(inspect_image(path, small), Incomplete)
    verdict = inspect_image(path, small, decode=True)
    assert isinstance(verdict, ValidImage)
    assert (verdict.width, verdict.height) == (100, 100)
    path.write_bytes(make_flawed_tiff()[:25_000])
    verdict = inspect_image(path, small, decode=True)
    assert isinstance(verdict, Rejected)
    assert verdict.problem.code is ErrorCode.TRUNCATED
    for hostile in (b"II*\0\xff\xff\xff\x7f", b"II*\0\0\0\0\0", make_flawed_tiff(0, 5)):
        path.write_bytes(hostile + bytes(20_000))
        assert isinstance(inspect_image(path, small, decode=True), Rejected)
