"""What becomes of an original once its job has ended: moved or deleted, and only if it is still the same file.

An original is at every moment whole in at least one place; once a call that was cut short is repeated, in exactly one.
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

# names tried before we say that the folder is full of them
_NUMBERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Moved:
    """It stands there now, and no longer where it was."""

    path: Path


@dataclass(frozen=True, slots=True)
class Deleted:
    """It is gone for good, as was asked."""


@dataclass(frozen=True, slots=True)
class Replaced:
    """Something else bears its name now; that was not touched."""


@dataclass(frozen=True, slots=True)
class DisposalFailed:
    """It could not be moved or deleted and is where it was; to be tried again."""

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
    """Moves the original to ``relative`` below ``root``, or to a numbered name beside it if that is taken.

    It is the same file if it has ``stamp``, or else the hash ``sha256`` (None if that is not known: of link files and
    of what was rejected unread). If the target already holds the same bytes, as after a crash, the source is only
    removed. The root must be there (see `place.ensure_root`) and lie on ``home`` (see `place.open_folder`); subfolders
    are made, with x wherever ``mode``, the rule's file mode, has r. Between file systems it is copied, compared,
    synced, and then removed from the inbox; time of change and mode stay. A symbolic link is removed and the file that
    it names is copied: what lies outside the inbox stays. ``tag`` ([A-Za-z0-9_-]+) goes into the copy's dot-name.
    Where the root refuses the name it is moved to its portable spelling (`names.portable`).
    """
    try:
        found = _find_source(source, stamp, sha256)
        if not isinstance(found, _SourceFile):
            return found
        with _open_parent(source) as inbox, open_folder(root, relative.parts[:-1], mode, accepted=accepted) as folder:
            return _MoveOperation(found, inbox, folder, root, PurePath(relative), tag).run()
    except OSError as error:
        plain = Path(make_portable(relative))
        missing = isinstance(error, FileNotFoundError)
        # SMB servers answer "no such file" to a name that they do not take
        if (
            plain != relative
            and os.path.isdir(root)
            and (missing or isinstance(classify_write_error(error), NameRefused))
        ):
            return move_original(source, stamp, sha256, root, plain, mode=mode, tag=tag, accepted=accepted)
        if missing:
            return Missing() if not os.path.lexists(source) else DisposalFailed(f"{root} is away")
        return DisposalFailed(error.strerror or str(error))


def delete_original(source: Path, stamp: Stamp, sha256: str | None) -> Deleted | Replaced | Missing | DisposalFailed:
    """Deletes the original, if it is still the same (see `move`); of a symbolic link only the link goes."""
    try:
        found = _find_source(source, stamp, sha256)
        if not isinstance(found, _SourceFile):
            return found
        with _open_parent(source) as inbox:
            if not found.is_unmodified():
                return Replaced()
            _unlink_durably(inbox, source.name)
    except FileNotFoundError:
        return Missing()
    except OSError as error:
        return DisposalFailed(error.strerror or str(error))
    return Deleted()


def find_moved_original(stamp: Stamp, sha256: str | None, root: Path, relative: Path) -> Path | None:
    """Where an earlier `move` has put the original, if nobody heard of that: a crash came, or more was to be done.

    It has the same size and time of change there, and the hash ``sha256`` where that is known.
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
    """The file that a job was made of, found again."""

    path: Path
    # as it is now
    stamp: Stamp
    # of the job
    sha256: str | None
    is_symlink: bool

    def open(self) -> OpenFile:
        opened = open_file(self.path, follow_symlinks=self.is_symlink)
        if not isinstance(opened, OpenFile):
            raise FileNotFoundError(errno.ENOENT, "is not there any more", str(self.path))
        return opened

    def is_unmodified(self) -> bool:
        found = stat_file(self.path, follow_symlinks=self.is_symlink)
        return isinstance(found, os.stat_result) and stamp_of(found) == self.stamp


@dataclass(frozen=True, slots=True)
class _MoveOperation:
    """One move: from the folder ``inbox`` to ``folder`` (descriptors), which is ``relative``'s below ``root``."""

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
            part, found = write_part(
                self.folder, opened.iter_blocks(), tag=self.tag, mode=mode, mtime_ns=opened.stamp.mtime_ns
            )
            untouched = opened.stamp == self.original.stamp and is_unmodified(
                self.original.path, opened, follow_symlinks=self.original.is_symlink
            )
        try:
            if not (untouched if self.original.sha256 is None else found == self.original.sha256):
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
        """Whether what was renamed is what was looked at before. Some network file systems change inode numbers."""
        found = stamp_of(os.stat(name, dir_fd=self.folder, follow_symlinks=False))
        return (found.size, found.mtime_ns) == (self.original.stamp.size, self.original.stamp.mtime_ns)

    def _put_back(self, name: str) -> Replaced:
        """Another file had taken the original's name at the last moment: it goes back to the inbox."""
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
        """The target is durable; a source that changed since then is a new candidate and stays."""
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
    found = stat_file(source, follow_symlinks=True) if link and stamp_of(named) != stamp else named
    if not isinstance(found, os.stat_result):
        return found if isinstance(found, Missing) else DisposalFailed(found.reason)
    if not stat.S_ISREG(found.st_mode):
        same = stamp_of(found) == stamp
        return (
            DisposalFailed(f"it is {describe_file_type(found.st_mode)}; only files are moved") if same else Replaced()
        )
    original = _SourceFile(source, stamp_of(found), sha256, link)
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
