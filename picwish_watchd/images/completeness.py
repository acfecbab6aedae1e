"""Check whether an image file is complete by its structure: cheap, and without a decoder.

Every truncation is noticed: each format says where it ends, and the file must reach that point. Bytes after the end are
ignored, except the further images of an MPO.

Nothing is decoded, so zeros inside compressed data are noticed only in PNG (by its CRC). Parts that were never written
are known from the file system (`OpenFile.clip_at_hole`).
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from picwish_watchd.fs.safe_open import READ_BLOCK_SIZE, OpenFile, StructureError, require_length
from picwish_watchd.images.formats import Format
from picwish_watchd.images.tiff import check_tiff


@dataclass(frozen=True, slots=True)
class ImageStructure:
    """What the structure of a complete image says."""

    #: Pixels.
    width: int
    #: Pixels.
    height: int
    #: What the file really is if it only resembles its format: "a camera raw file (DNG)".
    foreign_format: str | None = None


@dataclass(frozen=True, slots=True)
class StructureDefect:
    """Why an image is not complete: the file ends too early (``is_truncated``), or something in it is wrong."""

    reason: str
    is_truncated: bool


def check_structure(file: OpenFile, image_format: Format) -> ImageStructure | StructureDefect:
    """Check the structure of an image that `detect_format` took for ``image_format``. Raises only OSError."""
    try:
        match image_format:
            case Format.JPEG:
                return ImageStructure(*_check_jpeg(file))
            case Format.PNG:
                return ImageStructure(*_check_png(file))
            case Format.WEBP:
                return ImageStructure(*_check_webp(file))
            case Format.BMP:
                return ImageStructure(*_check_bmp(file))
            case Format.TIFF:
                return ImageStructure(*check_tiff(file))
    except StructureError as flaw:
        return StructureDefect(flaw.reason, flaw.is_truncated)


#: Segments or chunks of one image; a hostile file could have millions, and reading them would take minutes.
_PARTS_MAX = 100_000


# JPEG: ITU-T T.81 annex B. Entropy-coded data never contains FF followed by another byte than 00 or RST0-7.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOI, _EOI, _SOS, _TEM, _APP2 = 0xD8, 0xD9, 0xDA, 0x01, 0xE2
_MP_ENTRIES = 0xB002
#: Bytes of a segment that are read: code and length, and of a frame also precision, height and width.
_SEGMENT_SIZE = 8
#: Bytes to search for a marker first: most follow the previous segment at once.
_MARKER_PROBE_SIZE = 64


def _check_jpeg(file: OpenFile) -> tuple[int, int]:
    size, end, further = _scan_jpeg(file, 0)
    # Programs that do not know MPO drop the further images but keep their index.
    if end == file.size:
        return size
    for start in further:
        # Some programs write wrong offsets, but then the images follow each other directly.
        place = start if end <= start < file.size and _is_jpeg_start(file, start) else end
        if _is_jpeg_start(file, place):
            end = _scan_jpeg(file, place)[1]
        elif start >= file.size:
            raise StructureError("a further image of the MPO is missing", cut=True)
    return size


def _is_jpeg_start(file: OpenFile, position: int) -> bool:
    return b"\xff\xd8".startswith(file.read_at(position, 2))


def _scan_jpeg(file: OpenFile, start: int) -> tuple[tuple[int, int], int, list[int]]:
    """Return the size of the image that begins at ``start``, where it ends, and where further images begin."""
    size, scanned, position, further = None, False, start + 2, list[int]()
    for _ in _iter_parts():
        position, segment = _find_marker(file, position)
        marker = segment[0]
        if marker == _EOI:
            break
        if marker in (_SOI, _TEM):
            position += 1
            continue
        if marker in _SOF and size is None:
            height, width = struct.unpack(">HH", require_length(segment[4:8], 4))
            size = _validate_size(width, height)
        scanned = scanned or marker == _SOS
        length = max(int.from_bytes(require_length(segment[1:3], 2), "big"), 2)
        if marker == _APP2 and segment[3:7] == b"MPF\0":
            further += _parse_mpo_index(file.read_at(position + 7, length - 6), position + 7)
        position += 1 + length
    if size is None or not scanned:
        raise StructureError("the JPEG holds no picture")
    return size, position + 1, further


def _parse_mpo_index(tiff: bytes, place: int) -> list[int]:
    """Return where the further images of an MPO begin, by its index at ``place`` (CIPA DC-007, 5.2.3).

    The index is a small TIFF directory, whose offsets count from its own beginning. It has lengths too, but those are
    often wrong and are not used.
    """
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        directory = struct.unpack_from(order + "I", tiff, 4)[0]
        entries = struct.unpack_from(order + "H", tiff, directory)[0]
        rows = (struct.unpack_from(order + "HHII", tiff, directory + 2 + 12 * each) for each in range(entries))
        size, offset = next((size, offset) for tag, _, size, offset in rows if tag == _MP_ENTRIES)
        return [place + at for (at,) in struct.iter_unpack(order + "8xI4x", tiff[offset : offset + size]) if at]
    except (struct.error, StopIteration):
        return []


def _find_marker(file: OpenFile, position: int) -> tuple[int, bytes]:
    """Return the position of the next marker's code, and the first `_SEGMENT_SIZE` bytes from there on."""
    step = _MARKER_PROBE_SIZE
    while position < file.size:
        block = file.read_at(position, step)
        match = _MARKER.search(block)
        if match:
            code = match.start() + 1
            segment = block[code : code + _SEGMENT_SIZE]
            return position + code, segment if len(segment) == _SEGMENT_SIZE else file.read_at(
                position + code, _SEGMENT_SIZE
            )
        position += max(len(block) - 1, 1)
        step = READ_BLOCK_SIZE
    raise StructureError("the JPEG has no end-of-image marker", cut=True)


# PNG: ISO/IEC 15948 (W3C PNG specification), section 5.
_PNG_CHUNK_MAX = 2**31 - 1


def _check_png(file: OpenFile) -> tuple[int, int]:
    size, has_data, position = None, False, 8
    for _ in _iter_parts():
        length, kind = struct.unpack(">I4s", file.read_exact(position, 8))
        if length > _PNG_CHUNK_MAX or not kind.isalpha():
            raise StructureError("the PNG has a damaged chunk")
        body = position + 8
        position = body + length + 4
        expected = file.read_exact(position - 4, 4)
        if size is None:
            if kind != b"IHDR" or length != 13:
                raise StructureError("the PNG does not begin with its header")
            size = _validate_size(*struct.unpack(">II", file.read_exact(body, 8)))
        has_data = has_data or kind == b"IDAT"
        if kind[0] & 0x20 == 0 and _compute_crc(file, body - 4, body + length) != int.from_bytes(expected, "big"):
            raise StructureError(f"the checksum of a PNG chunk ({kind.decode()}) is wrong")
        if kind == b"IEND":
            break
    if size is None or not has_data:
        raise StructureError("the PNG holds no picture")
    return size


def _compute_crc(file: OpenFile, start: int, end: int) -> int:
    value = 0
    for block in file.iter_blocks(start, end):
        value = zlib.crc32(block, value)
    return value


# WebP: RFC 9649, section 2.
def _check_webp(file: OpenFile) -> tuple[int, int]:
    end = 8 + int.from_bytes(file.read_exact(4, 4), "little")
    if end > file.size:
        raise StructureError("the WebP says that it is longer than the file", cut=True)
    size, has_data, position = None, False, 12
    for _ in _iter_parts():
        if position + 8 > end:
            break
        kind, length = struct.unpack("<4sI", file.read_exact(position, 8))
        body = position + 8
        if body + length > end:
            raise StructureError("a part of the WebP is longer than the whole")
        if size is None:
            size = _parse_webp_size(file, kind, body)
        has_data = has_data or kind in (b"VP8 ", b"VP8L", b"ANMF")
        position = body + length + length % 2
    if size is None or not has_data:
        raise StructureError("the WebP holds no picture")
    return size


def _parse_webp_size(file: OpenFile, kind: bytes, body: int) -> tuple[int, int]:
    if kind == b"VP8X":
        data = file.read_exact(body, 10)
        return _validate_size(
            int.from_bytes(data[4:7], "little") + 1,
            int.from_bytes(data[7:10], "little") + 1,
        )
    if kind == b"VP8L":
        data = file.read_exact(body, 5)
        bits = int.from_bytes(data[1:5], "little")
        if data[0] == 0x2F:
            return _validate_size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        data = file.read_exact(body, 10)
        # The start code of a key frame (RFC 6386, 9.1).
        if data[3:6] == b"\x9d\x01\x2a":
            width, height = struct.unpack("<HH", data[6:10])
            return _validate_size(width & 0x3FFF, height & 0x3FFF)
    raise StructureError("the WebP does not begin with a picture")


# BMP: Microsoft, "Bitmap Storage". bfSize and biSizeImage are often wrong, so they are used only as a last resort.

#: BI_RGB, BI_BITFIELDS, BI_ALPHABITFIELDS.
_UNCOMPRESSED = (0, 3, 6)


def _check_bmp(file: OpenFile) -> tuple[int, int]:
    declared, start, header = struct.unpack("<2xI4xII", file.read_exact(0, 18))
    if header == 12:
        width, height, _, bits = struct.unpack("<HHHH", file.read_exact(18, 8))
        compression = image_size = 0
    else:
        width, height, _, bits = struct.unpack("<iiHH", file.read_exact(18, 12))
        compression, image_size = struct.unpack("<II", file.read_exact(30, 8)) if header >= 40 else (0, 0)
    size = _validate_size(width, abs(height))
    if start < 14 + header:
        raise StructureError("the BMP says that its picture begins inside its header")
    if compression in _UNCOMPRESSED:
        end = start + (size[0] * bits + 31) // 32 * 4 * size[1]
    elif image_size:
        end = start + image_size
    else:
        end = declared
    if end <= start:
        raise StructureError("the BMP does not say where it ends")
    if end > file.size:
        raise StructureError(f"the BMP needs {end:,} bytes and has {file.size:,}", cut=True)
    return size


def _iter_parts() -> Iterator[int]:
    yield from range(_PARTS_MAX)
    raise StructureError(f"it has more than {_PARTS_MAX:,} parts")


def _validate_size(width: int, height: int) -> tuple[int, int]:
    if width <= 0 or height <= 0:
        raise StructureError(f"its header says {width} x {height} pixels")
    return width, height
