"""Unusual images: complete ones are accepted, cut ones are detected, and docs/image-formats.md describes them."""

import io
import os
import re
import struct
import time
from pathlib import Path

import pytest
from PIL import Image, ImageSequence

from picwish_watchd.fs.safe_open import OpenFile
from picwish_watchd.fs.verdicts import Rejected
from picwish_watchd.images.completeness import ImageStructure, StructureDefect, check_structure
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import ImageLimits, ValidImage, inspect_image
from picwish_watchd.job import ErrorCode, Stamp
from tests.support.sample_images import draw_image, make_image
from tests.support.unusual_images import SIZE, save_image, unsupported_images, unusual_images

KINDS, FOREIGN = unusual_images(), unsupported_images()
LIMITS = ImageLimits(max_bytes=30 * 2**20, max_side=4096)
FORMATS = Path(__file__).parents[3] / "docs/image-formats.md"


def undetected_cuts(data: bytes, format: str) -> list[int]:
    """Return the lengths at which a cut file passes for a complete one."""
    fd = os.memfd_create("picture")
    os.write(fd, data)
    missed = []
    with OpenFile(fd, len(data), Stamp(0, 0, 0)):
        for length in range(len(data) - 1, 11, -1):
            os.ftruncate(fd, length)
            if not isinstance(check_structure(OpenFile(fd, length, Stamp(0, 0, 0)), Format(format)), StructureDefect):
                missed.append(length)
    return missed


@pytest.mark.parametrize("kind", KINDS)
def test_every_unusual_image_is_decodable_and_accepted(kind: str, tmp_path: Path) -> None:
    format, data = KINDS[kind]
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.size == SIZE
    for tail in (b"", b"\0", bytes(4096)):
        path = tmp_path / "scan.jpg"
        path.write_bytes(data + tail)
        for decode in (False, True):
            verdict = inspect_image(path, LIMITS, decode=decode)
            assert isinstance(verdict, ValidImage), verdict
            assert (verdict.format, verdict.width, verdict.height) == (Format(format), *SIZE)


@pytest.mark.untraced
@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"MPO"}))
def test_every_cut_of_an_unusual_image_that_loses_data_is_detected(kind: str) -> None:
    format, data = KINDS[kind]
    for length in undetected_cuts(data, format):
        assert len(data) - length <= 700, "padding"
        assert decode_frames(data[:length]) == decode_frames(data)


@pytest.mark.untraced
def test_every_cut_of_an_mpo_but_right_after_its_first_image_is_detected() -> None:
    format, data = KINDS["MPO"]
    assert undetected_cuts(data, format) == [data.index(b"\xff\xd9") + 2]


@pytest.mark.untraced
def test_an_mpo_with_gaps_is_whole_once_its_last_image_is_there() -> None:
    first, second = (save_image(draw_image("jpeg", *SIZE, seed=seed), "JPEG") for seed in (1, 2))
    gap = 500
    index = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0xB002, 7, 32, 26) + bytes(4)
    length = len(first) + 4 + 4 + len(index) + 32
    index += struct.pack("<IIIHH", 0x30000, length, 0, 0, 0)
    index += struct.pack("<IIIHH", 0, len(second), length + gap - 10, 0, 0)
    segment = b"\xff\xe2" + struct.pack(">H", 6 + len(index)) + b"MPF\0" + index
    data = first[:2] + segment + first[2:] + bytes(gap) + second
    assert undetected_cuts(data, "jpeg") == [length]
    assert check_completeness(data + b"\0", "jpeg") == ImageStructure(*SIZE)


def test_an_mpo_index_with_repeated_offsets_costs_no_more_than_one() -> None:
    index = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0xB002, 7, 65_000 // 16 * 16, 26) + bytes(4)
    index += struct.pack("<IIIHH", 0, 9, 66_000, 0, 0) * (65_000 // 16)
    segment = b"\xff\xe2" + struct.pack(">H", 6 + len(index)) + b"MPF\0" + index
    data = save_image(draw_image("jpeg", *SIZE), "JPEG")
    began = time.process_time()
    check_completeness(data[:2] + segment + data[2:] + make_image("jpeg", 1600, 1200) * 4, "jpeg")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("broken", [b"MPF\0", b"MPF\0II*\0\xff\xff\0\0", b"MPF\0MM\0*\0\0\0\x08\0\0"])
def test_a_senseless_mpo_index_is_ignored(broken: bytes) -> None:
    data = save_image(draw_image("jpeg", *SIZE), "JPEG")
    segment = b"\xff\xe2" + (len(broken) + 2).to_bytes(2, "big") + broken
    assert check_completeness(data[:2] + segment + data[2:] + bytes(9), "jpeg") == ImageStructure(*SIZE)


def decode_frames(data: bytes) -> list[bytes]:
    """Decode all frames."""
    with Image.open(io.BytesIO(data)) as image:
        return [frame.tobytes() for frame in ImageSequence.Iterator(image)]


def check_completeness(data: bytes, format: str) -> ImageStructure | StructureDefect:
    fd = os.memfd_create("picture")
    os.write(fd, data)
    with OpenFile(fd, len(data), Stamp(0, 0, 0)) as file:
        return check_structure(file, Format(format))


def test_every_row_of_the_document_on_image_formats_is_true(tmp_path: Path) -> None:
    table = FORMATS.read_text().partition("| you drop | what becomes of it |\n| --- | --- |\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    documented = {kind.strip(): text for kinds_, text in rows for kind in re.sub(r" named .*", "", kinds_).split(",")}
    assert documented.keys() == KINDS.keys() | FOREIGN.keys()
    for kind, text in documented.items():
        path = tmp_path / "scan.jpg"
        path.write_bytes(KINDS[kind][1] if kind in KINDS else FOREIGN[kind])
        verdict = inspect_image(path, LIMITS)
        if kind in KINDS:
            assert isinstance(verdict, ValidImage)
            assert text.startswith("taken"), kind
            assert verdict.size == len(KINDS[kind][1]), "sent as it is"
        else:
            assert isinstance(verdict, Rejected)
            assert verdict.problem.code is ErrorCode.UNSUPPORTED_FORMAT
            assert text.startswith("rejected, `unsupported_format`"), kind
