"""The door for names: putting a finished file under its name, complete or not at all, and over nobody else's.

Folders below a root are reached through file descriptors, never through a symbolic link (openat(2): O_NOFOLLOW), so
that nothing is written outside of it. Everything here raises OSError; `verdict` says what one means.
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

from picwish_watchd.fs.mounts import Mount, detect_fd_mount_change

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
    """The disk, or somebody's quota, is full: wait."""

    reason: str


@dataclass(frozen=True, slots=True)
class NameRefused:
    """The folder is there and will not take this name; waiting does not help."""

    reason: str


_NO_SPACE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
_NAME_REFUSED_ERRNOS = frozenset(
    {
        errno.ENAMETOOLONG,
        # characters that the file system cannot store, as on vfat and SMB
        errno.EINVAL,
        errno.EILSEQ,
        # a file or a link where a subfolder should be
        errno.ENOTDIR,
        errno.ELOOP,
        errno.EISDIR,
        errno.EFBIG,
    }
)


def classify_write_error(error: OSError) -> FolderUnavailable | NoSpace | NameRefused:
    """What an error on the way into a folder means. Total: what is in neither table may pass, so it is waited for."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE_ERRNOS:
        return NoSpace(reason)
    if error.errno in _NAME_REFUSED_ERRNOS:
        return NameRefused(reason)
    return FolderUnavailable(reason)


def ensure_root(root: Path, mode: int) -> FolderUnavailable | NoSpace | None:
    """Makes an outbox, archive or failed folder if its parent exists; None once it is there.

    Never makes the parent: under a mount point that is away that would write to the wrong disk. ``mode`` is that of the
    files; the folder gets x wherever they have r.
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
        found = classify_write_error(error)
        return found if isinstance(found, NoSpace) else FolderUnavailable(f"{root}: {found.reason}")
    return None


def find_obstacle(root: Path, folder: PurePath) -> Path | None:
    """What stands where ``folder`` below ``root``, or one above it, should be, and is none; a link counts as none."""
    path = root
    for part in folder.parts:
        path = path / part
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return path
        except OSError:
            # not there yet, or told when it is to be made
            return None
    return None


@contextmanager
def open_folder(root: Path, parts: Sequence[str], mode: int, *, home: Mount | None = None) -> Iterator[int]:
    """A descriptor of the folder ``parts`` below ``root``; what is missing below the root is made, and durable.

    The root itself must be there (else FileNotFoundError), and what was opened must lie on ``home``, the mount that it
    was last accepted on (else OSError): a look at the path beforehand says nothing about what is opened after it.
    """
    try:
        folder = os.open(root, _FOLDER_FLAGS)
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, "is not a folder", str(root)) from error
    try:
        if (elsewhere := detect_fd_mount_change(folder, home)) is not None:
            raise OSError(errno.ENODEV, elsewhere, str(root))
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
    """Writes a new file ``.picwish-TAG-OURS-RANDOM.part`` and syncs it: its name, and the SHA-256 of what was written.

    Random, because two daemons may share an outbox. Leaves nothing behind if it raises. ``mode`` is not subject
    to umask; ``mtime_ns`` is the time of change that it gets.
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
    """Whether a part of this name was made by this process: it may just be written, by another thread."""
    return f"-{_process_tag()}-" in name


def _process_tag() -> str:
    """A word of this process alone: its number comes again after a restart, the rest in a fork."""
    return f"{_PROCESS_TOKEN}{os.getpid():x}"


def discard_part(folder: int, name: str) -> None:
    """Removes a part if it is still there; a folder that has gone read-only keeps it until the next start."""
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def rename_durably(source: int, name: str, target: int, final: str, *, replace: bool = False) -> bool:
    """Renames ``name`` in folder ``source`` to ``final`` in folder ``target`` and makes that durable.

    False if ``final`` is taken: by anything, or with ``replace`` by anything but a file.
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
            # a part beside its final name: swept at the next start
    sync_folder(target)
    return True


class UnlinkFailedError(OSError):
    """The final name stands, and the old one could not be removed: no other way is to be tried."""


RenameMethod = Callable[[int, str, int, str], None]


def rename_by_renameat2(source: int, name: str, target: int, final: str) -> None:
    """renameat2(2) with RENAME_NOREPLACE: one step, but unknown to NFS and some FUSE file systems (EINVAL)."""
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _renameat2(source, os.fsencode(name), target, os.fsencode(final), _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name, None, final)


def rename_by_link(source: int, name: str, target: int, final: str) -> None:
    """link(2) and unlink(2). An NFS server's lost answer may make a link that was made look taken (open(2), O_EXCL)."""
    try:
        os.link(name, final, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        ours = os.stat(name, dir_fd=source, follow_symlinks=False)
        there = os.stat(final, dir_fd=target, follow_symlinks=False)
        if not os.path.samestat(ours, there):
            raise
    try:
        os.unlink(name, dir_fd=source)
    except OSError as error:
        raise UnlinkFailedError(error.errno, error.strerror, name) from error


def rename_by_placeholder(source: int, name: str, target: int, final: str) -> None:
    """An empty file made with O_EXCL, then rename(2) over it: for file systems without links, such as vfat over FUSE.

    A crash between the two leaves the empty file; it counts as taken from then on.
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
    source: int, name: str, target: int, final: str, ways: Sequence[RenameMethod] = _RENAME_METHODS
) -> None:
    """Renames by the first way that the file system knows; FileExistsError if ``final`` is taken."""
    for way in ways[:-1]:
        try:
            return way(source, name, target, final)
        except OSError as error:
            if error.errno not in _UNSUPPORTED_ERRNOS or isinstance(error, UnlinkFailedError):
                raise
    return ways[-1](source, name, target, final)


def sync_folder(folder: int) -> None:
    """fsync(2) of a folder; file systems that know no such thing answer EINVAL, and then there is nothing to do."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise


def folder_mode(mode: int) -> int:
    """The mode of a folder for files of ``mode``: x wherever they have r, and always all rights for ourselves."""
    return mode | (mode & 0o444) >> 2 | 0o700


def _open_or_make_folder(folder: int, part: str, mode: int) -> int:
    try:
        return os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return _make_folder(folder, part, mode)


def _make_folder(parent: int, name: str, mode: int) -> int:
    """Makes a folder and answers its descriptor; the parent's setgid bit, which it inherits, is kept."""
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
    """chmod(2), where the file system knows modes; SMB and vfat have those of their mount options."""
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
