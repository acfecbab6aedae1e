"""Move or delete an original after its job has ended, and only if it is still the same file.

At every moment the original is complete in at least one place. After a crash, repeating the call leaves it in exactly
one.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

from picwish_watchd.fs.atomic_write import (
    NameRefused,
    classify_write_error,
    discard_part,
    open_folder,
    rename_durably,
    write_part,
)
from picwish_watchd.fs.durability import sync_folder
from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.fs.safe_open import (
    OpenFile,
    describe_file_type,
    has_same_bytes,
    is_unmodified,
    open_file,
    sha256_of,
    stamp_of,
    stat_file,
)
from picwish_watchd.fs.verdicts import Missing
from picwish_watchd.job import Stamp
from picwish_watchd.outbox.filenames import add_number, make_portable

#: Numbered names to try before giving up.
_NUMBERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Moved:
    """The original is at ``path`` now, and no longer in the inbox."""

    path: Path


@dataclass(frozen=True, slots=True)
class Deleted:
    """The original is deleted."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """Another file has the name of the original now; it was not touched."""


@dataclass(frozen=True, slots=True)
class DisposalFailed:
    """The original could not be moved or deleted and is still in the inbox: try again."""

    reason: str


def move_original(
    source: Path,
    stamp: Stamp,
    sha256: str | None,
    root: Path,
    relative: Path,
    *,
    mode: int,
    tag: str,
    accepted: AcceptedMount | None = None,
) -> Moved | Replaced | Missing | DisposalFailed:
    """Move the original to ``relative`` below ``root``, or to a numbered name beside it if that is taken.

    A file is the original if it has ``stamp``, or else the hash ``sha256`` (None if not known: for link files and for
    files that were rejected without reading them). If the target already has the same bytes, as after a crash, the
    source is only removed. The root must exist (see `ensure_root`) and be on the ``accepted`` mount (see
    `open_folder`); subfolders are created, with x wherever ``mode``, the rule's file mode, has r.

    To another file system the original is copied, compared and synced, and then removed from the inbox; it keeps its
    modification time and mode. Of a symbolic link the file that it names is copied and the link removed: files outside
    the inbox stay. The copy first has a dot-name that contains ``tag`` ([A-Za-z0-9_-]+). If the root refuses the name,
    its portable form is used (`make_portable`).
    """
    try:
        original = _find_source(source, stamp, sha256)
        if not isinstance(original, _SourceFile):
            return original
        with _open_parent(source) as inbox, open_folder(root, relative.parts[:-1], mode, accepted=accepted) as folder:
            return _MoveOperation(original, inbox, folder, root, PurePath(relative), tag).run()
    except OSError as error:
        portable = Path(make_portable(relative))
        if portable != relative and os.path.isdir(root) and _may_be_refused_name(error):
            return move_original(source, stamp, sha256, root, portable, mode=mode, tag=tag, accepted=accepted)
        if isinstance(error, FileNotFoundError):
            return Missing() if not os.path.lexists(source) else DisposalFailed(f"{root} is away")
        return DisposalFailed(error.strerror or str(error))


def _may_be_refused_name(error: OSError) -> bool:
    """Return whether the error may come from the name: SMB servers answer "no such file" to one they do not accept."""
    return isinstance(error, FileNotFoundError) or isinstance(classify_write_error(error), NameRefused)


def delete_original(source: Path, stamp: Stamp, sha256: str | None) -> Deleted | Replaced | Missing | DisposalFailed:
    """Delete the original if it is still the same file (see `move_original`); of a symbolic link only the link."""
    try:
        original = _find_source(source, stamp, sha256)
        if not isinstance(original, _SourceFile):
            return original
        with _open_parent(source) as inbox:
            if not original.is_unmodified():
                return Replaced()
            _unlink_durably(inbox, source.name)
    except FileNotFoundError:
        return Missing()
    except OSError as error:
        return DisposalFailed(error.strerror or str(error))
    return Deleted()


def find_moved_original(stamp: Stamp, sha256: str | None, root: Path, relative: Path) -> Path | None:
    """Return where an earlier `move_original` has put the original if that was not recorded, as after a crash; or None.

    The file there has the size and modification time of ``stamp``, and the hash ``sha256`` if that is known.
    """
    for name in dict.fromkeys((PurePath(relative), make_portable(relative))):
        for target in (root / each for each in _numbered_names(name)):
            opened = open_file(target)
            if isinstance(opened, Missing):
                break
            if isinstance(opened, OpenFile):
                with opened:
                    same = (opened.size, opened.stamp.mtime_ns) == (stamp.size, stamp.mtime_ns)
                    if same and sha256 in (None, sha256_of(opened)):
                        return target
    return None


@dataclass(frozen=True, slots=True)
class _SourceFile:
    """The source of a job, found to be still the same file."""

    path: Path
    # The present stamp.
    stamp: Stamp
    # As recorded for the job.
    sha256: str | None
    is_symlink: bool

    def open(self) -> OpenFile:
        opened = open_file(self.path, follow_symlinks=self.is_symlink)
        if not isinstance(opened, OpenFile):
            raise FileNotFoundError(errno.ENOENT, "is not there any more", str(self.path))
        return opened

    def is_unmodified(self) -> bool:
        status = stat_file(self.path, follow_symlinks=self.is_symlink)
        return isinstance(status, os.stat_result) and stamp_of(status) == self.stamp


@dataclass(frozen=True, slots=True)
class _MoveOperation:
    """One move between two open folders; ``folder`` is that of ``relative`` below ``root``."""

    original: _SourceFile
    inbox: int
    folder: int
    root: Path
    relative: PurePath
    tag: str

    def run(self) -> Moved | Replaced | DisposalFailed:
        if not self.original.is_symlink:
            try:
                return self._rename()
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        return self._copy()

    def _rename(self) -> Moved | Replaced | DisposalFailed:
        for target in self._candidate_targets():
            if rename_durably(self.inbox, self.original.path.name, self.folder, target.name):
                sync_folder(self.inbox)
                return Moved(self.root / target) if self._is_original(target.name) else self._put_back(target.name)
            if self._has_same_content(target):
                return self._remove_source(target)
        return self._fail_names_taken()

    def _copy(self) -> Moved | Replaced | DisposalFailed:
        with self.original.open() as opened:
            mode = stat.S_IMODE(os.fstat(opened.fd).st_mode) & 0o777
            part, digest = write_part(
                self.folder, opened.iter_blocks(), tag=self.tag, mode=mode, mtime_ns=opened.stamp.mtime_ns
            )
            untouched = opened.stamp == self.original.stamp and is_unmodified(
                self.original.path, opened, follow_symlinks=self.original.is_symlink
            )
        try:
            if not (untouched if self.original.sha256 is None else digest == self.original.sha256):
                return Replaced()
            for target in self._candidate_targets():
                if rename_durably(self.folder, part, self.folder, target.name) or self._has_same_content(target):
                    return self._remove_source(target)
        finally:
            discard_part(self.folder, part)
        return self._fail_names_taken()

    def _candidate_targets(self) -> Iterator[PurePath]:
        return _numbered_names(self.relative)

    def _fail_names_taken(self) -> DisposalFailed:
        return DisposalFailed(f"{self.root / self.relative} and its {_NUMBERS_MAX - 1:,} numbered names are taken")

    def _is_original(self, name: str) -> bool:
        """Return whether the renamed file is the one that was examined, by size and time.

        Some network file systems change inode numbers.
        """
        stamp = stamp_of(os.stat(name, dir_fd=self.folder, follow_symlinks=False))
        return (stamp.size, stamp.mtime_ns) == (self.original.stamp.size, self.original.stamp.mtime_ns)

    def _put_back(self, name: str) -> Replaced:
        """Return another file to the inbox that had taken the original's name at the last moment."""
        back = PurePath(self.original.path.name)
        number = 0
        while not rename_durably(self.folder, name, self.inbox, back.name):
            number += 1
            back = add_number(PurePath(self.original.path.name), number)
        return Replaced()

    def _has_same_content(self, target: PurePath) -> bool:
        there = open_file(self.root / target)
        if not isinstance(there, OpenFile):
            return False
        with there, self.original.open() as here:
            one, other = os.fstat(there.fd), os.fstat(here.fd)
            if os.path.samestat(one, other) and one.st_nlink == 1:
                raise OSError(errno.EBUSY, f"{self.root} is the inbox by another name")
            return has_same_bytes(there, here)

    def _remove_source(self, target: PurePath) -> Moved:
        """Remove the source after the target is durable; a source that has changed since is a new file and stays."""
        if self.original.is_unmodified():
            _unlink_durably(self.inbox, self.original.path.name)
        return Moved(self.root / target)


def _numbered_names(name: PurePath) -> Iterator[PurePath]:
    yield name
    for number in range(1, _NUMBERS_MAX):
        yield add_number(name, number)


def _find_source(source: Path, stamp: Stamp, sha256: str | None) -> _SourceFile | Replaced | Missing | DisposalFailed:
    named = stat_file(source)
    if not isinstance(named, os.stat_result):
        return named if isinstance(named, Missing) else DisposalFailed(named.reason)
    link = stat.S_ISLNK(named.st_mode)
    status = stat_file(source, follow_symlinks=True) if link and stamp_of(named) != stamp else named
    if not isinstance(status, os.stat_result):
        return status if isinstance(status, Missing) else DisposalFailed(status.reason)
    if not stat.S_ISREG(status.st_mode):
        same = stamp_of(status) == stamp
        return (
            DisposalFailed(f"it is {describe_file_type(status.st_mode)}; only files are moved") if same else Replaced()
        )
    original = _SourceFile(source, stamp_of(status), sha256, link)
    if original.stamp == stamp:
        return original
    if sha256 is None:
        return Replaced()
    with original.open() as opened:
        return original if sha256_of(opened) == sha256 else Replaced()


@contextmanager
def _open_parent(source: Path) -> Iterator[int]:
    folder = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _unlink_durably(folder: int, name: str) -> None:
    os.unlink(name, dir_fd=folder)
    sync_folder(folder)
