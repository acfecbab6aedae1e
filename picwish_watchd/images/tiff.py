"""Whether all of a TIFF is there: TIFF 6.0 (Adobe, 1992) sections 2 and 15, and BigTIFF (libtiff).

A TIFF has no end of its own. It is whole when every directory, every value and every strip or tile that it points to
lies within the file.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from picwish_watchd.fs.safe_open import FlawError, OpenFile

#: Directory entries and values looked at in one file; a hostile one could keep us busy for hours.
_WORK_MAX = 1 << 20
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_LETTERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # the unsigned kinds

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_DATA = ((273, 279), (324, 325), (513, 514))  # offsets and lengths of strips, tiles, old-style JPEG
_SUBORDINATE = (330, 34665, 34853, 40965)  # SubIFDs, Exif, GPS, interoperability
_DNG_VERSION = 50706
_CFA, _LINEAR_RAW = 32803, 34892


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    offset: int  # where the values lie in the file


_Entries = Mapping[int, _Entry]


def check_tiff(file: OpenFile) -> tuple[int, int, str | None]:
    """Width and height of the first picture in pixels, and what it is if it is a camera raw file. Raises FlawError."""
    tiff = _Tiff(file)
    size, has_data, raw = None, False, None
    for entries in tiff.directories():
        if size is None:
            size = tiff.one(entries, _WIDTH), tiff.one(entries, _HEIGHT)
        if _DNG_VERSION in entries:
            raw = "a camera raw file (DNG)"
        elif tiff.one(entries, _PHOTOMETRIC) in (_CFA, _LINEAR_RAW):
            raw = raw or "a camera raw file"
        has_data = tiff.check_data(entries) or has_data
    if size is None or not has_data:
        raise FlawError("the TIFF holds no picture")
    if 0 in size:
        raise FlawError(f"its header says {size[0]} x {size[1]} pixels")
    return (*size, raw)


def size_of_first(file: OpenFile) -> tuple[int, int]:
    """Width and height of the first picture in pixels, whatever else is wrong with the file. Raises FlawError.

    Reads the first directory, wherever in the file it stands, and nothing of the pixels.
    """
    tiff = _Tiff(file, strict=False)
    for entries in tiff.directories():
        size = tiff.one(entries, _WIDTH), tiff.one(entries, _HEIGHT)
        if 0 in size:
            raise FlawError(f"its header says {size[0]} x {size[1]} pixels")
        return size
    raise FlawError("the TIFF holds no picture")


class _Tiff:
    """An open TIFF: its byte order, the width of its fields, and how much work it has made."""

    def __init__(self, file: OpenFile, *, strict: bool = True) -> None:
        """``strict``: every value must lie within the file, also those that nobody asks for."""
        head = file.exactly(0, 8)
        self._file = file
        self._order = "<" if head[:2] == b"II" else ">"
        self._big = b"+" in head[:4]
        self._word = 8 if self._big else 4
        self._work = 0
        self._strict = strict

    def directories(self) -> Iterator[_Entries]:
        """All directories in turn, each once, however the chain may run in circles."""
        waiting, seen = [self._number(self._file.exactly(self._word, self._word))], set[int]()
        while waiting:
            offset = waiting.pop()
            if offset == 0 or offset in seen:
                continue
            seen.add(offset)
            entries, following = self._directory(offset)
            yield entries
            waiting.append(following)
            for tag in _SUBORDINATE:
                waiting += self._values(entries, tag)

    def check_data(self, entries: _Entries) -> bool:
        """Whether this directory has a picture; all of its data must lie within the file."""
        found = False
        for where, how_long in _DATA:
            offsets, lengths = self._values(entries, where), self._values(entries, how_long)
            if not lengths and len(offsets) == 1:
                lengths = (self._unpacked_size(entries),)
            if len(lengths) != len(offsets):
                raise FlawError("the TIFF does not say how long its strips are")
            for offset, length in zip(offsets, lengths, strict=True):
                self._within(offset, length)
            found = found or any(lengths)
        return found

    def one(self, entries: _Entries, tag: int, default: int = 0) -> int:
        """The first value of an entry."""
        values = self._values(entries, tag)
        return values[0] if values else default

    def _directory(self, offset: int) -> tuple[_Entries, int]:
        counter, length = (8, 20) if self._big else (2, 12)
        count = self._number(self._file.exactly(offset, counter))
        if count == 0:
            raise FlawError("a directory of the TIFF is empty")
        self._spend(count)
        table = self._file.exactly(offset + counter, count * length + self._word)
        layout = struct.Struct(self._order + ("HHQ8s" if self._big else "HHI4s"))
        entries: dict[int, _Entry] = {}
        for index in range(count):
            tag, kind, values, field = layout.unpack_from(table, index * length)
            place = offset + counter + (index + 1) * length - self._word
            size = values * _SIZES.get(kind, 1)
            if size > self._word:
                place = self._number(field)
                if self._strict:
                    self._within(place, size)
            entries[tag] = _Entry(kind, values, place)
        return entries, self._number(table[-self._word :])

    def _values(self, entries: _Entries, tag: int) -> tuple[int, ...]:
        entry = entries.get(tag)
        if entry is None:
            return ()
        self._spend(entry.count)
        letter = _LETTERS.get(entry.kind)
        if letter is None:
            raise FlawError("a directory of the TIFF has an entry of a wrong kind")
        data = self._file.exactly(entry.offset, entry.count * _SIZES[entry.kind])
        return struct.unpack(f"{self._order}{entry.count}{letter}", data)

    def _unpacked_size(self, entries: _Entries) -> int:
        """Bytes of a single strip whose length was left out, as some old writers do; 1 if it is compressed."""
        if self.one(entries, _COMPRESSION, 1) != 1:
            return 1
        bits = self.one(entries, _BITS, 1) * self.one(entries, _SAMPLES, 1)
        return (self.one(entries, _WIDTH) * bits + 7) // 8 * self.one(entries, _HEIGHT)

    def _within(self, offset: int, length: int) -> None:
        if offset + length > self._file.size:
            needed = f"the TIFF needs {offset + length:,} bytes and has {self._file.size:,}"
            raise FlawError(needed, cut=True)

    def _spend(self, amount: int) -> None:
        self._work += amount
        if self._work > _WORK_MAX:
            raise FlawError("the TIFF has too many entries")

    def _number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self._order == "<" else "big")
