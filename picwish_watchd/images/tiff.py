"""Check whether a TIFF is complete: TIFF 6.0 (Adobe, 1992) sections 2 and 15, and BigTIFF (libtiff).

A TIFF has no end marker. It is complete if every directory, value, strip and tile that it points to is within the file.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from picwish_watchd.fs.safe_open import OpenFile, StructureError

#: Directory entries and values read from one file at most; a hostile file could otherwise take hours.
_MAX_ENTRIES = 1 << 20
_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: The unsigned types.
_STRUCT_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
#: Tags of offsets and lengths: of strips, tiles, and old-style JPEG.
_DATA_TAGS = ((273, 279), (324, 325), (513, 514))
#: SubIFDs, Exif, GPS, interoperability.
_SUBDIRECTORY_TAGS = (330, 34665, 34853, 40965)
_DNG_VERSION = 50706
_CFA, _LINEAR_RAW = 32803, 34892


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    # Where the values are in the file.
    offset: int


_Entries = Mapping[int, _Entry]


def check_tiff(file: OpenFile) -> tuple[int, int, str | None]:
    """Return width and height of the first image in pixels, and a name for the file if it is a camera raw file.

    Raises `StructureError` if the file is incomplete or damaged.
    """
    tiff = _TiffReader(file)
    size, has_data, raw = None, False, None
    for entries in tiff.iter_directories():
        if size is None:
            size = tiff.first_value(entries, _WIDTH), tiff.first_value(entries, _HEIGHT)
        if _DNG_VERSION in entries:
            raw = "a camera raw file (DNG)"
        elif tiff.first_value(entries, _PHOTOMETRIC) in (_CFA, _LINEAR_RAW):
            raw = raw or "a camera raw file"
        has_data = tiff.check_data(entries) or has_data
    if size is None or not has_data:
        raise StructureError("the TIFF holds no picture")
    if 0 in size:
        raise StructureError(f"its header says {size[0]} x {size[1]} pixels")
    return (*size, raw)


def read_first_size(file: OpenFile) -> tuple[int, int]:
    """Return width and height of the first image in pixels, even if other parts of the file are damaged.

    Reads the first directory, which may be anywhere in the file, but no pixels. Raises `StructureError` if that is
    damaged.
    """
    tiff = _TiffReader(file, strict=False)
    for entries in tiff.iter_directories():
        size = tiff.first_value(entries, _WIDTH), tiff.first_value(entries, _HEIGHT)
        if 0 in size:
            raise StructureError(f"its header says {size[0]} x {size[1]} pixels")
        return size
    raise StructureError("the TIFF holds no picture")


class _TiffReader:
    """An open TIFF: its byte order, the width of its fields, and the number of entries read so far."""

    def __init__(self, file: OpenFile, *, strict: bool = True) -> None:
        """``strict``: every value must be within the file, also those that are not read."""
        head = file.read_exact(0, 8)
        self._file = file
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = b"+" in head[:4]
        self._word = 8 if self._big else 4
        self._entries_read = 0
        self._strict = strict

    def iter_directories(self) -> Iterator[_Entries]:
        """Yield all directories, each once, even if their chain is a circle."""
        waiting, seen = [self._parse_int(self._file.read_exact(self._word, self._word))], set[int]()
        while waiting:
            offset = waiting.pop()
            if offset == 0 or offset in seen:
                continue
            seen.add(offset)
            entries, following = self._read_directory(offset)
            yield entries
            waiting.append(following)
            for tag in _SUBDIRECTORY_TAGS:
                waiting += self._read_values(entries, tag)

    def check_data(self, entries: _Entries) -> bool:
        """Return whether this directory has image data; all of it must be within the file, else `StructureError`."""
        has_data = False
        for where, how_long in _DATA_TAGS:
            offsets, lengths = self._read_values(entries, where), self._read_values(entries, how_long)
            if not lengths and len(offsets) == 1:
                lengths = (self._uncompressed_size(entries),)
            if len(lengths) != len(offsets):
                raise StructureError("the TIFF does not say how long its strips are")
            for offset, length in zip(offsets, lengths, strict=True):
                self._check_range(offset, length)
            has_data = has_data or any(lengths)
        return has_data

    def first_value(self, entries: _Entries, tag: int, default: int = 0) -> int:
        """Return the first value of the entry ``tag``, or ``default`` if there is none."""
        values = self._read_values(entries, tag)
        return values[0] if values else default

    def _read_directory(self, offset: int) -> tuple[_Entries, int]:
        counter, length = (8, 20) if self._big else (2, 12)
        count = self._parse_int(self._file.read_exact(offset, counter))
        if count == 0:
            raise StructureError("a directory of the TIFF is empty")
        self._count_entries(count)
        table = self._file.read_exact(offset + counter, count * length + self._word)
        layout = struct.Struct(self._order + ("HHQ8s" if self._big else "HHI4s"))
        entries: dict[int, _Entry] = {}
        for index in range(count):
            tag, kind, values, field = layout.unpack_from(table, index * length)
            place = offset + counter + (index + 1) * length - self._word
            size = values * _TYPE_SIZES.get(kind, 1)
            if size > self._word:
                place = self._parse_int(field)
                if self._strict:
                    self._check_range(place, size)
            entries[tag] = _Entry(kind, values, place)
        return entries, self._parse_int(table[-self._word :])

    def _read_values(self, entries: _Entries, tag: int) -> tuple[int, ...]:
        entry = entries.get(tag)
        if entry is None:
            return ()
        self._count_entries(entry.count)
        letter = _STRUCT_CODES.get(entry.kind)
        if letter is None:
            raise StructureError("a directory of the TIFF has an entry of a wrong kind")
        data = self._file.read_exact(entry.offset, entry.count * _TYPE_SIZES[entry.kind])
        return struct.unpack(f"{self._order}{entry.count}{letter}", data)

    def _uncompressed_size(self, entries: _Entries) -> int:
        """Return the bytes of a single strip whose length some old writers leave out; 1 if it is compressed."""
        if self.first_value(entries, _COMPRESSION, 1) != 1:
            return 1
        bits = self.first_value(entries, _BITS, 1) * self.first_value(entries, _SAMPLES, 1)
        return (self.first_value(entries, _WIDTH) * bits + 7) // 8 * self.first_value(entries, _HEIGHT)

    def _check_range(self, offset: int, length: int) -> None:
        if offset + length > self._file.size:
            needed = f"the TIFF needs {offset + length:,} bytes and has {self._file.size:,}"
            raise StructureError(needed, cut=True)

    def _count_entries(self, amount: int) -> None:
        self._entries_read += amount
        if self._entries_read > _MAX_ENTRIES:
            raise StructureError("the TIFF has too many entries")

    def _parse_int(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._order == "<" else "big")
