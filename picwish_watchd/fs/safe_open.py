"""The door for bytes: files are opened without following links, without blocking, and only if they are files."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Self

from picwish_watchd.fs.verdicts import Changed, Missing, Unreadable
from picwish_watchd.job import Stamp

# bytes read at once
READ_BLOCK_SIZE = 1 << 20
# bytes: what comes before most pictures' data, and tells nearly any two of them apart
_PREFETCH_SIZE = 1 << 14
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NOT_FOUND_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class NotRegularFile:
    """Something else bears the name: "a named pipe", "a folder", ..."""

    file_type: str
    stamp: Stamp


class StructureError(Exception):
    """The structure of an image is not as it should be; ``cut`` where it says that more should follow."""

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_truncated = cut


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file open for reading, as large as it was when it was opened. Reads raise OSError."""

    fd: int
    #: bytes
    size: int
    stamp: Stamp
    #: its first bytes, where they were read already
    head: bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def read_at(self, offset: int, length: int) -> bytes:
        """The bytes from ``offset`` on, ``length`` of them or as many as there are."""
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        if offset + length <= len(self.head):
            return self.head[offset : offset + length]
        data = os.pread(self.fd, length, offset)
        while len(data) < length and (more := os.pread(self.fd, length - len(data), offset + len(data))):
            data += more
        return data

    def read_exact(self, offset: int, length: int) -> bytes:
        """The same, but all of them; else FlawError."""
        return require_length(self.read_at(offset, length), length)

    def with_prefetched_head(self) -> "OpenFile":
        """The same file, its first bytes read at once: structures are looked at in many small pieces."""
        return replace(self, head=self.read_at(0, _PREFETCH_SIZE))

    def clip_at_hole(self) -> "OpenFile":
        """The same file as if it ended at its first hole (lseek(2): SEEK_HOLE), where nothing was ever written.

        A copy that sets the size beforehand leaves one until it is there. A file system that knows no holes says none.
        """
        try:
            hole = os.lseek(self.fd, 0, os.SEEK_HOLE)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENXIO, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return self
        return replace(self, size=min(self.size, hole))

    def iter_blocks(self, offset: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` up to ``end`` (or the end) in pieces of at most `BLOCK`; stops early if cut."""
        end = self.size if end is None else min(end, self.size)
        while offset < end and (block := self.read_at(offset, min(READ_BLOCK_SIZE, end - offset))):
            yield block
            offset += len(block)


def require_length(data: bytes, length: int) -> bytes:
    """The same ``data``, if it is ``length`` bytes long as it should be; else FlawError."""
    if len(data) < length:
        raise StructureError("it ends in the middle", cut=True)
    return data


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of a file; a folder's size and time say nothing about it and count as 0."""
    if stat.S_ISDIR(found.st_mode):
        return Stamp(found.st_ino, 0, 0)
    return Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def stat_file(path: Path, *, follow_symlinks: bool = False) -> os.stat_result | Missing | Unreadable:
    """stat(2), or lstat(2) as long as links are not to be followed."""
    try:
        return os.stat(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        return classify_read_error(error)


def open_file(
    path: Path, *, follow_symlinks: bool = False
) -> OpenFile | NotRegularFile | Changed | Missing | Unreadable:
    """Opens a regular file for reading.

    Pipes, sockets, devices and folders are never opened, and neither are symbolic links unless they are to be followed
    (open(2): O_NOFOLLOW; O_NONBLOCK for what is swapped in between the look and the opening).
    """
    before = stat_file(path, follow_symlinks=follow_symlinks)
    if not isinstance(before, os.stat_result):
        return before
    if not stat.S_ISREG(before.st_mode):
        return NotRegularFile(describe_file_type(before.st_mode), stamp_of(before))
    try:
        fd = os.open(path, _OPEN_FLAGS | (0 if follow_symlinks else os.O_NOFOLLOW))
    except OSError as error:
        return Changed() if error.errno in (errno.ELOOP, errno.ENXIO) else classify_read_error(error)
    try:
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode):
            return OpenFile(fd, found.st_size, stamp_of(found))
    except OSError as error:
        os.close(fd)
        return classify_read_error(error)
    os.close(fd)
    return Changed()


def is_unmodified(path: Path, opened: OpenFile, *, follow_symlinks: bool = False) -> bool:
    """Whether the open file is as it was when it was opened, and the path still names it. Raises OSError."""
    named = stat_file(path, follow_symlinks=follow_symlinks)
    return isinstance(named, os.stat_result) and stamp_of(os.fstat(opened.fd)) == opened.stamp == stamp_of(named)


def sha256_of(opened: OpenFile) -> str:
    """SHA-256 of the whole file, hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for block in opened.iter_blocks():
        digest.update(block)
    return digest.hexdigest()


def has_same_bytes(one: OpenFile, other: OpenFile) -> bool:
    """Whether two files hold the same; read only up to the first difference, which comes early. Raises OSError."""
    if one.size != other.size or one.read_at(0, _PREFETCH_SIZE) != other.read_at(0, _PREFETCH_SIZE):
        return False
    return all(here == there for here, there in zip_longest(one.iter_blocks(), other.iter_blocks()))


def classify_read_error(error: OSError) -> Missing | Unreadable:
    """What an error of the system means for a file in an inbox."""
    return Missing() if error.errno in _NOT_FOUND_ERRNOS else Unreadable(error.strerror or str(error))


def describe_file_type(mode: int) -> str:
    """What a file mode says that is not a regular file."""
    for test, what in _FILE_TYPES:
        if test(mode):
            return what
    return "something unknown"


_FILE_TYPES = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
