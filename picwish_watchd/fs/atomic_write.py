"""Put a finished file under its name: complete or not at all, and never over a file of somebody else.

Folders below a root are reached through file descriptors, never through a symbolic link (openat(2): O_NOFOLLOW), so
that nothing is written outside the root. Everything here raises OSError; `classify_write_error` says what it means.
"""

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from picwish_watchd.fs.durability import sync_folder
from picwish_watchd.fs.mounts import AcceptedMount

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PART_PREFIX, PART_SUFFIX = ".picwish-", ".part"
_PROCESS_TOKEN = os.urandom(4).hex()


@dataclass(frozen=True, slots=True)
class FolderUnavailable:
    """The folder cannot be written to at the moment: wait."""

    reason: str


@dataclass(frozen=True, slots=True)
class NoSpace:
    """The disk or a quota is full: wait."""

    reason: str


@dataclass(frozen=True, slots=True)
class NameRefused:
    """The folder can be written to, but not under this name; waiting does not help."""

    reason: str


_NO_SPACE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAME_REFUSED_ERRNOS = frozenset(
    {
        errno.ENAMETOOLONG,
        # The file system cannot store a character of the name, as on vfat and SMB.
        errno.EINVAL,
        errno.EILSEQ,
        # A file or a link is where a subfolder should be.
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EISDIR,
        errno.EFBIG,
    }
)


def classify_write_error(error: OSError) -> FolderUnavailable | NoSpace | NameRefused:
    """Return what an error while writing into a folder means. An unknown error may pass, so it means "wait"."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE_ERRNOS:
        return NoSpace(reason)
    if error.errno in _NAME_REFUSED_ERRNOS:
        return NameRefused(reason)
    return FolderUnavailable(reason)


def ensure_root(root: Path, mode: int) -> FolderUnavailable | NoSpace | None:
    """Create an outbox, archive or failed folder unless it exists; return None once it does.

    The parent must exist and is never created: below an unmounted mount point that would write to the wrong disk.
    ``mode`` is that of the files; the folder gets x wherever they have r.
    """
    try:
        if root.is_dir():
            return None
        parent = os.open(root.parent, _FOLDER_FLAGS)
        try:
            os.close(_make_folder(parent, root.name, mode))
        finally:
            os.close(parent)
    except OSError as error:
        problem = classify_write_error(error)
        return problem if isinstance(problem, NoSpace) else FolderUnavailable(f"{root}: {problem.reason}")
    return None


def find_obstacle(root: Path, folder: PurePath) -> Path | None:
    """Return the first path from ``root`` down to ``folder`` below it that exists and is not a folder, or None.

    A symbolic link counts as an obstacle.
    """
    path = root
    for part in folder.parts:
        path = path / part
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return path
        except OSError:
            # It does not exist yet. Any other error is reported when the folder is created.
            return None
    return None


@contextmanager
def open_folder(root: Path, parts: Sequence[str], mode: int, *, accepted: AcceptedMount | None = None) -> Iterator[int]:
    """Yield a descriptor of the folder ``parts`` below ``root``; missing subfolders are created durably.

    The root itself must exist, else FileNotFoundError. It must be on the ``accepted`` mount, else OSError. That is
    checked on the open descriptor, because another mount may take the path between a check of it and its opening.
    """
    try:
        folder = os.open(root, _FOLDER_FLAGS)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "is not a folder", str(root)) from error
    try:
        if accepted is not None and (reason := accepted.why_open_folder_elsewhere(folder)) is not None:
            raise OSError(errno.ENODEV, reason, str(root))
        for part in parts:
            below = _open_or_make_folder(folder, part, mode)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def write_part(
    folder: int, blocks: Iterable[bytes], *, tag: str, mode: int, mtime_ns: int | None = None
) -> tuple[str, str]:
    """Write and sync a new file ``.picwish-TAG-PROCESS-RANDOM.part``; return its name and the SHA-256 of its bytes.

    The random part keeps two daemons apart that share an outbox. Nothing is left behind on an error. ``mode`` is not
    subject to umask; ``mtime_ns`` is the modification time to set.
    """
    name = f"{PART_PREFIX}{tag}-{_process_tag()}-{os.urandom(4).hex()}{PART_SUFFIX}"
    digest = hashlib.sha256()
    fd = os.open(name, _NEW_FILE_FLAGS, 0o600, dir_fd=folder)
    try:
        try:
            for block in blocks:
                digest.update(block)
                _write_all(fd, block)
            _set_mode(fd, mode)
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            os.fsync(fd)
        finally:
            os.close(fd)
    except BaseException:
        discard_part(folder, name)
        raise
    return name, digest.hexdigest()


def is_own_part(name: str) -> bool:
    """Return whether this process made the part of that name: another thread may be writing it."""
    return f"-{_process_tag()}-" in name


def _process_tag() -> str:
    """Return a word that only this process uses: its number may come again after a restart, the token in a fork."""
    return f"{_PROCESS_TOKEN}{os.getpid():x}"


def discard_part(folder: int, name: str) -> None:
    """Remove a part if it still exists. In a folder that has become read-only it stays until the next start."""
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def rename_durably(source: int, name: str, target: int, final: str, *, replace: bool = False) -> bool:
    """Rename ``name`` in folder ``source`` to ``final`` in folder ``target`` and sync ``target``.

    Return False if ``final`` is taken: by anything, or with ``replace`` by anything but a regular file.
    """
    if replace:
        try:
            if not stat.S_ISREG(os.stat(final, dir_fd=target, follow_symlinks=False).st_mode):
                return False
        except FileNotFoundError:
            pass
        os.rename(name, final, src_dir_fd=source, dst_dir_fd=target)
    else:
        try:
            rename_noreplace(source, name, target, final)
        except FileExistsError:
            return False
        except UnlinkFailedError:
            if source != target:
                raise
            # The part beside the final name is removed at the next start.
    sync_folder(target)
    return True


class UnlinkFailedError(OSError):
    """The final name exists, but the old one could not be removed: no other method may be tried."""


RenameMethod = Callable[[int, str, int, str], None]


def rename_by_renameat2(source: int, name: str, target: int, final: str) -> None:
    """Rename in one step by renameat2(2) with RENAME_NOREPLACE; NFS and some FUSE file systems answer EINVAL."""
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _renameat2(source, os.fsencode(name), target, os.fsencode(final), _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name, None, final)


def rename_by_link(source: int, name: str, target: int, final: str) -> None:
    """Rename by link(2) and unlink(2).

    If the answer of an NFS server is lost, a link that was made looks taken (open(2), O_EXCL). So a taken name is
    compared with ours.
    """
    try:
        os.link(name, final, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        ours = os.stat(name, dir_fd=source, follow_symlinks=False)
        existing = os.stat(final, dir_fd=target, follow_symlinks=False)
        if not os.path.samestat(ours, existing):
            raise
    try:
        os.unlink(name, dir_fd=source)
    except OSError as error:
        raise UnlinkFailedError(error.errno, error.strerror, name) from error


def rename_by_placeholder(source: int, name: str, target: int, final: str) -> None:
    """Create an empty file with O_EXCL and rename(2) over it: for file systems without links, as vfat over FUSE.

    A crash between the two leaves the empty file; from then on the name counts as taken.
    """
    os.close(os.open(final, _NEW_FILE_FLAGS, 0o600, dir_fd=target))
    try:
        os.rename(name, final, src_dir_fd=source, dst_dir_fd=target)
    except OSError:
        os.unlink(final, dir_fd=target)
        raise


_RENAME_METHODS: tuple[RenameMethod, ...] = (rename_by_renameat2, rename_by_link, rename_by_placeholder)
_UNSUPPORTED_ERRNOS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK})


def rename_noreplace(
    source: int, name: str, target: int, final: str, methods: Sequence[RenameMethod] = _RENAME_METHODS
) -> None:
    """Rename by the first method that the file system supports; raise FileExistsError if ``final`` is taken."""
    for method in methods[:-1]:
        try:
            return method(source, name, target, final)
        except OSError as error:
            if error.errno not in _UNSUPPORTED_ERRNOS or isinstance(error, UnlinkFailedError):
                raise
    return methods[-1](source, name, target, final)


def folder_mode(mode: int) -> int:
    """Return the mode of a folder for files of ``mode``: x wherever they have r, and all rights for the owner."""
    return mode | (mode & 0o444) >> 2 | 0o700


def _open_or_make_folder(folder: int, part: str, mode: int) -> int:
    try:
        return os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return _make_folder(folder, part, mode)


def _make_folder(parent: int, name: str, mode: int) -> int:
    """Create a folder and return its descriptor; it keeps the setgid bit that it inherits from its parent."""
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    folder = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    try:
        inherited = os.fstat(folder).st_mode & (stat.S_ISGID | stat.S_ISVTX)
        _set_mode(folder, folder_mode(mode) | inherited)
        sync_folder(parent)
    except BaseException:
        os.close(folder)
        raise
    return folder


def _set_mode(fd: int, mode: int) -> None:
    """Set the mode by fchmod(2) where the file system has modes; on SMB and vfat the mount options give them."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def _write_all(fd: int, block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[os.write(fd, view) :]


# From linux/fs.h.
_RENAME_NOREPLACE = 1
# It needs glibc 2.28 or newer.
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
