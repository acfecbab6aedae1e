"""Whether an image is complete: every cut of every kind is detected, and every complete image passes."""

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
from picwish_watchd.images.completeness import ImageStructure, StructureDefect, check_structure
from picwish_watchd.images.formats import Format
from picwish_watchd.job import Stamp
from tests.support.sample_images import KINDS, draw_image, format_of, make_image


@pytest.fixture(autouse=True)
def _limit_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completeness, "_PARTS_MAX", 1_000)


def check_completeness(data: bytes, format: str | Format) -> ImageStructure | StructureDefect:
    with open_in_memory(data) as file:
        return check_structure(file, Format(format))


def open_in_memory(data: bytes) -> OpenFile:
    fd = os.memfd_create("picture")
    os.write(fd, data)
    return OpenFile(fd, len(data), Stamp(0, len(data), 0))


def encode_image(image: Image.Image, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    # Save a copy, because saving leaves encoder settings in the image.
    image.copy().save(sink, format, **options)
    return sink.getvalue()


def undetected_cuts(data: bytes, lengths: range | list[int], format: str) -> list[int]:
    """Return the lengths at which a cut was not detected."""
    missed = []
    with open_in_memory(data) as file:
        for length in sorted(lengths, reverse=True):
            os.ftruncate(file.fd, length)
            short = OpenFile(file.fd, length, file.stamp)
            if not isinstance(check_structure(short, Format(format)), StructureDefect):
                missed.append(length)
    return missed


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (640, 480)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_picture_passes_with_its_true_size(kind: str, size: tuple[int, int]) -> None:
    assert check_completeness(make_image(kind, *size), format_of(kind)) == ImageStructure(*size)


@pytest.mark.parametrize("tail", [b"\0", b"\0" * 5000, b"trailing \xff\xd9 bytes \xff", b"\r\n"])
@pytest.mark.parametrize("kind", KINDS)
def test_trailing_bytes_are_fine(kind: str, tail: bytes) -> None:
    assert check_completeness(make_image(kind) + tail, format_of(kind)) == ImageStructure(96, 64)


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_every_cut_of_a_small_picture_is_noticed(kind: str) -> None:
    data = make_image(kind, 24, 16)
    assert undetected_cuts(data, range(12, len(data)), format_of(kind)) == []


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_cuts_all_over_a_larger_picture_are_noticed(kind: str) -> None:
    data = make_image(kind, 1200, 900)
    chance = random.Random(kind)
    lengths = [len(data) - 1, len(data) - 2, len(data) // 2, *(chance.randrange(20, len(data)) for _ in range(60))]
    assert undetected_cuts(data, lengths, format_of(kind)) == []


def image_variants() -> dict[str, tuple[str, bytes]]:
    rgb = draw_image("jpeg", 40, 30)

    def frames() -> list[Image.Image]:
        return [draw_image("webp", 40, 30, seed=seed) for seed in range(3)]

    exif = Image.Exif()
    exif[0x010F] = "Maker \xff\xd9"
    return {
        "cmyk jpeg": ("jpeg", encode_image(rgb.convert("CMYK"), "JPEG")),
        "jpeg with a thumbnail's end marker in its exif": (
            "jpeg",
            encode_image(rgb, "JPEG", exif=b"Exif\0\0\xff\xd8..\xff\xd9.."),
        ),
        "jpeg with restart markers": ("jpeg", encode_image(rgb, "JPEG", restart_marker_rows=1)),
        "mpo": ("jpeg", encode_image(rgb, "MPO", save_all=True, append_images=frames())),
        "palette png": ("png", encode_image(rgb.quantize(), "PNG")),
        "16 bit png": ("png", encode_image(Image.new("I;16", (40, 30), 999), "PNG")),
        "animated png": ("png", encode_image(rgb, "PNG", save_all=True, append_images=frames())),
        "webp with alpha": ("webp", encode_image(rgb.convert("RGBA"), "WEBP", exif=exif)),
        "animated webp": ("webp", encode_image(rgb, "WEBP", save_all=True, append_images=frames())),
        "palette bmp": ("bmp", encode_image(rgb.quantize(), "BMP")),
        "1 bit bmp": ("bmp", encode_image(rgb.convert("1"), "BMP")),
        "bmp with alpha": ("bmp", encode_image(rgb.convert("RGBA"), "BMP")),
        "multi-page tiff": ("tiff", encode_image(rgb, "TIFF", save_all=True, append_images=frames())),
        "bigtiff": ("tiff", encode_image(rgb, "TIFF", big_tiff=True)),
        "big-endian tiff": ("tiff", encode_image(Image.new("I;16B", (40, 30), 999), "TIFF")),
        "tiff with exif": ("tiff", encode_image(rgb, "TIFF", exif=exif)),
        "g4 tiff": ("tiff", encode_image(rgb.convert("1"), "TIFF", compression="group4")),
        "planar deflate tiff": ("tiff", encode_image(rgb, "TIFF", compression="tiff_adobe_deflate", strip_size=400)),
    }


@pytest.mark.parametrize(("format", "data"), image_variants().values(), ids=image_variants().keys())
def test_unusual_pictures_pass_and_their_cuts_are_noticed(format: str, data: bytes) -> None:
    assert check_completeness(data, format) == ImageStructure(40, 30)
    assert isinstance(check_completeness(data[: len(data) // 2], format), StructureDefect) or data[:2] == b"\xff\xd8"


def test_a_jpeg_whose_end_is_missing_is_not_whole_however_much_follows() -> None:
    data = make_image("jpeg")[:-2]
    assert check_completeness(data + b"\0" * 3_000_000, "jpeg") == StructureDefect(
        "the JPEG has no end-of-image marker", is_truncated=True
    )


def test_a_marker_across_two_blocks_is_found() -> None:
    data = make_image("jpeg")
    for gap in ((1 << 20) - 1, 1 << 20, (1 << 20) + 63, (1 << 20) + 64):
        assert check_completeness(data[:-2] + b"\0" * gap + data[-2:], "jpeg") == ImageStructure(96, 64)


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
    assert isinstance(check_completeness(data, "jpeg"), StructureDefect)


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
    result = check_completeness(b"\x89PNG\r\n\x1a\n" + chunks, "png")
    assert isinstance(result, StructureDefect)
    assert why in result.reason


def test_a_hole_in_the_middle_of_a_png_is_detected() -> None:
    data = bytearray(make_image("png", 400, 300))
    data[5000:6000] = bytes(1000)
    assert check_completeness(bytes(data), "png") == StructureDefect(
        "the checksum of a PNG chunk (IDAT) is wrong", is_truncated=False
    )


def riff_file(chunks: bytes) -> bytes:
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
    result = check_completeness(riff_file(chunks), "webp")
    assert isinstance(result, StructureDefect)
    assert why in result.reason


def bmp_file(
    width: int, height: int, *, bits: int = 24, compression: int = 0, image_size: int = 0, declared: int = 0
) -> bytes:
    head = struct.pack("<2sIIIIiiHHII", b"BM", declared, 0, 54, 40, width, height, 1, bits, compression, image_size)
    return head + bytes(16)


def test_a_bmp_may_be_top_down_and_state_a_wrong_size() -> None:
    assert check_completeness(bmp_file(4, -3, declared=7) + bytes(36), "bmp") == ImageStructure(4, 3)
    assert check_completeness(bmp_file(4, -3) + bytes(35), "bmp") == StructureDefect(
        "the BMP needs 90 bytes and has 89", is_truncated=True
    )


def test_an_old_os2_bmp_passes() -> None:
    head = struct.pack("<2sIIIIHHHH", b"BM", 0, 0, 26, 12, 4, 3, 1, 24)
    assert check_completeness(head + bytes(36), "bmp") == ImageStructure(4, 3)
    assert isinstance(check_completeness(head + bytes(35), "bmp"), StructureDefect)


def test_a_compressed_bmp_ends_where_its_header_says() -> None:
    assert check_completeness(
        bmp_file(4, 3, bits=8, compression=1, image_size=10) + bytes(10), "bmp"
    ) == ImageStructure(4, 3)
    assert check_completeness(bmp_file(4, 3, bits=8, compression=1, declared=64) + bytes(10), "bmp") == ImageStructure(
        4, 3
    )
    assert isinstance(
        check_completeness(bmp_file(4, 3, bits=8, compression=1, declared=65) + bytes(10), "bmp"), StructureDefect
    )
    assert isinstance(check_completeness(bmp_file(4, 3, bits=8, compression=1) + bytes(10), "bmp"), StructureDefect)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-5, 5)])
def test_a_bmp_without_pixels_is_not_whole(size: tuple[int, int]) -> None:
    assert isinstance(check_completeness(bmp_file(*size) + bytes(99), "bmp"), StructureDefect)


def test_a_bmp_whose_picture_begins_in_its_header_is_not_whole() -> None:
    data = bytearray(bmp_file(4, 3) + bytes(99))
    data[10:14] = struct.pack("<I", 20)
    assert isinstance(check_completeness(bytes(data), "bmp"), StructureDefect)


# Tag, type, count, value or offset.
Entry = tuple[int, int, int, int]
SHORT, LONG = 3, 4


def tiff_directory(entries: list[Entry], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)


def tiff_file(entries: list[Entry], following: int = 0, tail: bytes = b"") -> bytes:
    return b"II*\0\x08\0\0\0" + tiff_directory(entries, following) + tail


IMAGE_ENTRIES: list[Entry] = [(256, SHORT, 1, 4), (257, SHORT, 1, 3), (273, LONG, 1, 8), (279, LONG, 1, 12)]


def test_circles_of_directories_end() -> None:
    assert check_completeness(tiff_file(IMAGE_ENTRIES, following=8), "tiff") == ImageStructure(4, 3)
    assert check_completeness(tiff_file([*IMAGE_ENTRIES, (330, LONG, 1, 8)], following=8), "tiff") == ImageStructure(
        4, 3
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"II*\0\0\0\0\0", "no picture"),
        (tiff_file(IMAGE_ENTRIES[:2]), "no picture"),
        (tiff_file(IMAGE_ENTRIES[1:]), "0 x 3"),
        (tiff_file([]), "empty"),
        (tiff_file(IMAGE_ENTRIES, following=5000), "ends in the middle"),
        (tiff_file([*IMAGE_ENTRIES[:3], (279, LONG, 1, 5000)]), "needs 5,008 bytes"),
        (tiff_file([*IMAGE_ENTRIES[:2], (324, LONG, 1, 5000), (325, LONG, 1, 9)]), "needs 5,009 bytes"),
        (tiff_file([*IMAGE_ENTRIES, (700, 1, 5000, 60)]), "needs 5,060 bytes"),
        (tiff_file([*IMAGE_ENTRIES[:2], (273, LONG, 2, 8), (279, LONG, 1, 1)]), "how long its strips are"),
        (tiff_file([*IMAGE_ENTRIES[:3], (259, SHORT, 1, 1), (258, SHORT, 1, 8000)]), "needs"),
        (tiff_file([(256, 2, 1, 4), *IMAGE_ENTRIES[1:]]), "wrong kind"),
        (tiff_file([*IMAGE_ENTRIES[:2], (273, LONG, 0xFFFFFFFF, 8)]), "needs"),
        (tiff_file([*IMAGE_ENTRIES, (330, LONG, 1_100_000, 60)], tail=bytes(4_500_000)), "too many entries"),
    ],
)
def test_a_wrong_tiff_is_not_whole(data: bytes, why: str) -> None:
    result = check_completeness(data, "tiff")
    assert isinstance(result, StructureDefect)
    assert why in result.reason


def test_a_tiff_without_strip_lengths_passes_if_there_is_only_one() -> None:
    assert check_completeness(tiff_file(IMAGE_ENTRIES[:3]), "tiff") == ImageStructure(4, 3)
    assert check_completeness(tiff_file([*IMAGE_ENTRIES[:3], (259, SHORT, 1, 5)]), "tiff") == ImageStructure(4, 3)


@pytest.mark.parametrize(
    ("entry", "name"),
    [((50706, 1, 4, 0x401), "a camera raw file (DNG)"), ((262, SHORT, 1, 32803), "a camera raw file")],
)
def test_a_camera_raw_file_in_tiff_form_is_recognized(entry: Entry, name: str) -> None:
    assert check_completeness(tiff_file([*IMAGE_ENTRIES, entry]), "tiff") == ImageStructure(4, 3, name)


@pytest.mark.untraced
@pytest.mark.parametrize("kind", KINDS)
def test_no_damage_makes_the_check_raise(kind: str) -> None:
    original = make_image(kind, 24, 16)

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.lists(st.tuples(st.integers(12, len(original) - 1), st.integers(0, 255)), max_size=6), st.integers(0, 40))
    def damage(changes: list[tuple[int, int]], cut: int) -> None:
        data = bytearray(original)
        for place, value in changes:
            data[place] = value
        assert isinstance(
            check_completeness(bytes(data[: len(data) - cut]), format_of(kind)), ImageStructure | StructureDefect
        )

    run: Callable[[], None] = damage
    run()
