"""Whether all of an image is there: every cut of every kind is noticed, every whole image passes."""

import io
import os
import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from picwish_watchd.fs.safe_open import OpenFile
from picwish_watchd.images import completeness
from picwish_watchd.images.completeness import Facts, Flaw, check
from picwish_watchd.images.formats import Format
from picwish_watchd.job import Stamp
from tests.support.pictures import KINDS, format_of, picture, pixels


@pytest.fixture(autouse=True)
def _fewer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completeness, "_PARTS_MAX", 1_000)


def judged(data: bytes, format: str | Format) -> Facts | Flaw:
    with in_memory(data) as file:
        return check(file, Format(format))


def in_memory(data: bytes) -> OpenFile:
    fd = os.memfd_create("picture")
    os.write(fd, data)
    return OpenFile(fd, len(data), Stamp(0, len(data), 0))


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.copy().save(sink, format, **options)  # a copy: save leaves encoder settings behind
    return sink.getvalue()


def cuts(data: bytes, lengths: range | list[int], format: str) -> list[int]:
    """The lengths at which a cut was not noticed."""
    missed = []
    with in_memory(data) as file:
        for length in sorted(lengths, reverse=True):
            os.ftruncate(file.fd, length)
            short = OpenFile(file.fd, length, file.stamp)
            if not isinstance(check(short, Format(format)), Flaw):
                missed.append(length)
    return missed


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (640, 480)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_passes_with_its_true_size(kind: str, size: tuple[int, int]) -> None:
    assert judged(picture(kind, *size), format_of(kind)) == Facts(*size)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 5000, b"trailing \xff\xd9 bytes \xff", b"\r\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_trailing_bytes_are_fine(kind: str, tail: bytes) -> None:
    assert judged(picture(kind) + tail, format_of(kind)) == Facts(96, 64)


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_of_a_small_picture_is_noticed(kind: str) -> None:
    data = picture(kind, 24, 16)
    assert cuts(data, range(12, len(data)), format_of(kind)) == []


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_cuts_all_over_a_larger_picture_are_noticed(kind: str) -> None:
    data = picture(kind, 1200, 900)
    chance = random.Random(kind)
    lengths = [len(data) - 1, len(data) - 2, len(data) // 2, *(chance.randrange(20, len(data)) for _ in range(60))]
    assert cuts(data, lengths, format_of(kind)) == []


def variants() -> dict[str, tuple[str, bytes]]:
    rgb = pixels("jpeg", 40, 30)

    def frames() -> list[Image.Image]:
        return [pixels("webp", 40, 30, seed=seed) for seed in range(3)]

    exif = Image.Exif()
    exif[0x010F] = "Maker \xff\xd9"
    return {
        "cmyk jpeg": ("jpeg", saved(rgb.convert("CMYK"), "JPEG")),
        "jpeg with a thumbnail's end marker in its exif": (
            "jpeg",
            saved(rgb, "JPEG", exif=b"Exif\0\0\xff\xd8..\xff\xd9.."),
        ),
        "jpeg with restart markers": ("jpeg", saved(rgb, "JPEG", restart_marker_rows=1)),
        "mpo": ("jpeg", saved(rgb, "MPO", save_all=True, append_images=frames())),
        "palette png": ("png", saved(rgb.quantize(), "PNG")),
        "16 bit png": ("png", saved(Image.new("I;16", (40, 30), 999), "PNG")),
        "animated png": ("png", saved(rgb, "PNG", save_all=True, append_images=frames())),
        "webp with alpha": ("webp", saved(rgb.convert("RGBA"), "WEBP", exif=exif)),
        "animated webp": ("webp", saved(rgb, "WEBP", save_all=True, append_images=frames())),
        "palette bmp": ("bmp", saved(rgb.quantize(), "BMP")),
        "1 bit bmp": ("bmp", saved(rgb.convert("1"), "BMP")),
        "bmp with alpha": ("bmp", saved(rgb.convert("RGBA"), "BMP")),
        "multi-page tiff": ("tiff", saved(rgb, "TIFF", save_all=True, append_images=frames())),
        "bigtiff": ("tiff", saved(rgb, "TIFF", big_tiff=True)),
        "big-endian tiff": ("tiff", saved(Image.new("I;16B", (40, 30), 999), "TIFF")),
        "tiff with exif": ("tiff", saved(rgb, "TIFF", exif=exif)),
        "g4 tiff": ("tiff", saved(rgb.convert("1"), "TIFF", compression="group4")),
        "planar deflate tiff": ("tiff", saved(rgb, "TIFF", compression="tiff_adobe_deflate", strip_size=400)),
    }


@pytest.mark.parametrize(("format", "data"), variants().values(), ids=variants().keys())
def test_unusual_pictures_pass_and_their_cuts_are_noticed(format: str, data: bytes) -> None:
    assert judged(data, format) == Facts(40, 30)
    assert isinstance(judged(data[: len(data) // 2], format), Flaw) or data[:2] == b"\xff\xd8"


def test_a_jpeg_whose_end_is_missing_is_not_whole_however_much_follows() -> None:
    data = picture("jpeg")[:-2]
    assert judged(data + b"\0" * 3_000_000, "jpeg") == Flaw("the JPEG has no end-of-image marker", cut=True)


def test_a_marker_across_two_blocks_is_found() -> None:
    data = picture("jpeg")
    for gap in ((1 << 20) - 1, 1 << 20, (1 << 20) + 63, (1 << 20) + 64):
        assert judged(data[:-2] + b"\0" * gap + data[-2:], "jpeg") == Facts(96, 64)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xd8\xff\x01\xff\xda\0\2\xff\xd9",
        b"\xff\xd8\xff\xc0\0\x0b\x08\0\0\0\x10\1\1\x11\0\xff\xda\0\2\xff\xd9",
        b"\xff\xd8" + b"\xff\xe0\0\2" * 1_001,
    ],
    ids=["tables only", "no frame header", "no height", "endless segments"],
)
def test_a_jpeg_without_a_picture_is_not_whole(data: bytes) -> None:
    assert isinstance(judged(data, "jpeg"), Flaw)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    import zlib

    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


IHDR = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 5, 8, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        (IHDR + png_chunk(b"IEND", b""), "holds no picture"),
        (png_chunk(b"IDAT", b"x") + png_chunk(b"IEND", b""), "does not begin with its header"),
        (png_chunk(b"IHDR", b"\0" * 13), "0 x 0"),
        (IHDR + b"\xff" * 12, "damaged chunk"),
        (IHDR + b"\0" * 12, "damaged chunk"),
        (IHDR[:-1] + b"!", "checksum"),
        (IHDR + png_chunk(b"teXt", b"") * 1_001, "parts"),
    ],
)
def test_a_wrong_png_is_not_whole(chunks: bytes, why: str) -> None:
    found = judged(b"\x89PNG\r\n\x1a\n" + chunks, "png")
    assert isinstance(found, Flaw)
    assert why in found.reason


def test_a_hole_in_the_middle_of_a_png_is_noticed() -> None:
    data = bytearray(picture("png", 400, 300))
    data[5000:6000] = bytes(1000)
    assert judged(bytes(data), "png") == Flaw("the checksum of a PNG chunk (IDAT) is wrong", cut=False)


def riff(chunks: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


@pytest.mark.parametrize(
    ("chunks", "why"),
    [
        (b"", "no picture"),
        (b"EXIF\2\0\0\0xy", "does not begin with a picture"),
        (b"VP8X\x0a\0\0\0" + bytes(10), "no picture"),
        (b"VP8L\5\0\0\0" + bytes(6), "does not begin with a picture"),
        (b"VP8 \x0a\0\0\0" + bytes(10), "does not begin with a picture"),
        (b"VP8 \x0a\0\0\0\0\0\0\x9d\1\x2a\0\0\0\0", "0 x 0"),
        (b"VP8X\xff\0\0\0" + bytes(10), "longer than the whole"),
        (b"VP8X\x0a\0\0\0" + bytes(10) + b"JUNK\0\0\0\0" * 1_001, "parts"),
    ],
)
def test_a_wrong_webp_is_not_whole(chunks: bytes, why: str) -> None:
    found = judged(riff(chunks), "webp")
    assert isinstance(found, Flaw)
    assert why in found.reason


def bmp(
    width: int, height: int, *, bits: int = 24, compression: int = 0, image_size: int = 0, declared: int = 0
) -> bytes:
    head = struct.pack("<2sIIIIiiHHII", b"BM", declared, 0, 54, 40, width, height, 1, bits, compression, image_size)
    return head + bytes(16)


def test_a_bmp_may_stand_on_its_head_and_lie_about_its_size() -> None:
    assert judged(bmp(4, -3, declared=7) + bytes(36), "bmp") == Facts(4, 3)
    assert judged(bmp(4, -3) + bytes(35), "bmp") == Flaw("the BMP needs 90 bytes and has 89", cut=True)


def test_an_old_os2_bmp_passes() -> None:
    head = struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, 4, 3, 1, 24)
    assert judged(head + bytes(36), "bmp") == Facts(4, 3)
    assert isinstance(judged(head + bytes(35), "bmp"), Flaw)


def test_a_compressed_bmp_ends_where_it_says() -> None:
    assert judged(bmp(4, 3, bits=8, compression=1, image_size=10) + bytes(10), "bmp") == Facts(4, 3)
    assert judged(bmp(4, 3, bits=8, compression=1, declared=64) + bytes(10), "bmp") == Facts(4, 3)
    assert isinstance(judged(bmp(4, 3, bits=8, compression=1, declared=65) + bytes(10), "bmp"), Flaw)
    assert isinstance(judged(bmp(4, 3, bits=8, compression=1) + bytes(10), "bmp"), Flaw)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-5, 5)])
def test_a_bmp_without_pixels_is_not_whole(size: tuple[int, int]) -> None:
    assert isinstance(judged(bmp(*size) + bytes(99), "bmp"), Flaw)


def test_a_bmp_whose_picture_begins_in_its_header_is_not_whole() -> None:
    data = bytearray(bmp(4, 3) + bytes(99))
    data[10:14] = struct.pack("<I", 20)
    assert isinstance(judged(bytes(data), "bmp"), Flaw)


Entry = tuple[int, int, int, int]  # tag, kind, count, value or offset
SHORT, LONG = 3, 4


def directory(entries: list[Entry], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


def tiff(entries: list[Entry], following: int = 0, tail: bytes = b"") -> bytes:
    return b"II*\0\x08\0\0\0" + directory(entries, following) + tail


PICTURE: list[Entry] = [(256, SHORT, 1, 4), (257, SHORT, 1, 3), (273, LONG, 1, 8), (279, LONG, 1, 12)]


def test_circles_of_directories_end() -> None:
    assert judged(tiff(PICTURE, following=8), "tiff") == Facts(4, 3)
    assert judged(tiff([*PICTURE, (330, LONG, 1, 8)], following=8), "tiff") == Facts(4, 3)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"II*\0\0\0\0\0", "no picture"),
        (tiff(PICTURE[:2]), "no picture"),
        (tiff(PICTURE[1:]), "0 x 3"),
        (tiff([]), "empty"),
        (tiff(PICTURE, following=5000), "ends in the middle"),
        (tiff([*PICTURE[:3], (279, LONG, 1, 5000)]), "needs 5,008 bytes"),
        (tiff([*PICTURE[:2], (324, LONG, 1, 5000), (325, LONG, 1, 9)]), "needs 5,009 bytes"),
        (tiff([*PICTURE, (700, 1, 5000, 60)]), "needs 5,060 bytes"),
        (tiff([*PICTURE[:2], (273, LONG, 2, 8), (279, LONG, 1, 1)]), "how long its strips are"),
        (tiff([*PICTURE[:3], (259, SHORT, 1, 1), (258, SHORT, 1, 8000)]), "needs"),
        (tiff([(256, 2, 1, 4), *PICTURE[1:]]), "wrong kind"),
        (tiff([*PICTURE[:2], (273, LONG, 0xFFFFFFFF, 8)]), "needs"),
        (tiff([*PICTURE, (330, LONG, 1_100_000, 60)], tail=bytes(4_500_000)), "too many entries"),
    ],
)
def test_a_wrong_tiff_is_not_whole(data: bytes, why: str) -> None:
    found = judged(data, "tiff")
    assert isinstance(found, Flaw)
    assert why in found.reason


def test_a_tiff_without_strip_lengths_passes_if_there_is_only_one() -> None:
    assert judged(tiff(PICTURE[:3]), "tiff") == Facts(4, 3)
    assert judged(tiff([*PICTURE[:3], (259, SHORT, 1, 5)]), "tiff") == Facts(4, 3)


@pytest.mark.parametrize(
    ("entry", "name"),
    [((50706, 1, 4, 0x401), "a camera raw file (DNG)"), ((262, SHORT, 1, 32803), "a camera raw file")],
)
def test_a_camera_raw_file_dressed_as_tiff_is_told_apart(entry: Entry, name: str) -> None:
    assert judged(tiff([*PICTURE, entry]), "tiff") == Facts(4, 3, name)


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_makes_the_check_raise(kind: str) -> None:
    original = picture(kind, 24, 16)

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(12, len(original) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 40))
    def damage(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(original)
        for place, value in changes:
            data[place] = value
        assert isinstance(judged(bytes(data[: len(data) - cut]), format_of(kind)), Facts | Flaw)

    run: Callable[[], None] = damage
    run()
