"""Open files for reading without following links, without blocking, and only if they are regular files."""

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

#: Bytes read at once.
READ_BLOCK_SIZE = 1 << 20
#: Bytes. Most images have their data after these, and nearly any two images differ in them.
_PREFETCH_SIZE = 1 << 14
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NOT_FOUND_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class NotRegularFile:
    """The path is not a regular file; ``file_type`` is "a named pipe", "a folder", ..."""

    file_type: str
    stamp: Stamp


class StructureError(Exception):
    """The structure of an image is wrong; ``cut`` if it says that the file should be longer."""

    def __init__(self, reason: str, *, cut: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_truncated = cut


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file open for reading, with the size that it had when it was opened. Reads raise OSError."""

    fd: int
    #: Bytes.
    size: int
    stamp: Stamp
    #: The first bytes, if they were read already.
    head: bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on, or fewer at the end of the file."""
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
        """Return exactly ``length`` bytes from ``offset`` on; raise `StructureError` if the file ends before."""
        return require_length(self.read_at(offset, length), length)

    def with_prefetched_head(self) -> "OpenFile":
        """Return this file with its first bytes in memory, because structures are read in many small pieces."""
        return replace(self, head=self.read_at(0, _PREFETCH_SIZE))

    def clip_at_hole(self) -> "OpenFile":
        """Return this file as if it ended at its first hole, where nothing was ever written (lseek(2): SEEK_HOLE).

        A program that sets the size before it copies leaves a hole until it has finished. A file system without holes
        reports none.
        """
        try:
            hole = os.lseek(self.fd, 0, os.SEEK_HOLE)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENXIO, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return self
        return replace(self, size=min(self.size, hole))

    def iter_blocks(self, offset: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` to ``end`` (default: the size) in blocks of at most `READ_BLOCK_SIZE`.

        Stops early if the file has become shorter.
        """
        end = self.size if end is None else min(end, self.size)
        while offset < end and (block := self.read_at(offset, min(READ_BLOCK_SIZE, end - offset))):
            yield block
            offset += len(block)


def require_length(data: bytes, length: int) -> bytes:
    """Return ``data`` if it has at least ``length`` bytes; otherwise raise `StructureError`."""
    if len(data) < length:
        raise StructureError("it ends in the middle", cut=True)
    return data


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file. Size and time are 0 for a folder, because they change with its contents."""
    if stat.S_ISDIR(status.st_mode):
        return Stamp(status.st_ino, 0, 0)
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def stat_file(path: Path, *, follow_symlinks: bool = False) -> os.stat_result | Missing | Unreadable:
    """Return the status of ``path``: stat(2) if links are to be followed, otherwise lstat(2)."""
    try:
        return os.stat(path, follow_symlinks=follow_symlinks)
    except OSError as error:
        return classify_read_error(error)


def open_file(
    path: Path, *, follow_symlinks: bool = False
) -> OpenFile | NotRegularFile | Changed | Missing | Unreadable:
    """Open a regular file for reading.

    Pipes, sockets, devices and folders are never opened, and symbolic links only if they are to be followed (open(2):
    O_NOFOLLOW). `Changed` if the file was replaced between the check and the opening; O_NONBLOCK keeps a pipe that took
    its place from blocking.
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
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return OpenFile(fd, status.st_size, stamp_of(status))
    except OSError as error:
        os.close(fd)
        return classify_read_error(error)
    os.close(fd)
    return Changed()


def is_unmodified(path: Path, opened: OpenFile, *, follow_symlinks: bool = False) -> bool:
    """Return whether the open file has not changed since it was opened and is still at ``path``. Raises OSError."""
    named = stat_file(path, follow_symlinks=follow_symlinks)
    return isinstance(named, os.stat_result) and stamp_of(os.fstat(opened.fd)) == opened.stamp == stamp_of(named)


def sha256_of(opened: OpenFile) -> str:
    """Return the SHA-256 of the whole file, hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for block in opened.iter_blocks():
        digest.update(block)
    return digest.hexdigest()


def has_same_bytes(one: OpenFile, other: OpenFile) -> bool:
    """Return whether two files have the same bytes; reads up to the first difference only. Raises OSError."""
    if one.size != other.size or one.read_at(0, _PREFETCH_SIZE) != other.read_at(0, _PREFETCH_SIZE):
        return False
    return all(here == there for here, there in zip_longest(one.iter_blocks(), other.iter_blocks()))


def classify_read_error(error: OSError) -> Missing | Unreadable:
    """Return what an error while reading means for a file in an inbox."""
    return Missing() if error.errno in _NOT_FOUND_ERRNOS else Unreadable(error.strerror or str(error))


def describe_file_type(mode: int) -> str:
    """Return the type of a file that is not a regular one, from its st_mode: "a folder", ..."""
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
