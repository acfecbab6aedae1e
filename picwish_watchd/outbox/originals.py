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

from picwish_watchd.fs.atomic_write import Refused, discard, open_folder, settle_name, sync_folder, verdict, write_part
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.fs.safe_open import OpenFile, kind_of, look, open_file, same_bytes, sha256_of, stamp_of, still
from picwish_watchd.fs.verdicts import Gone
from picwish_watchd.job import Stamp
from picwish_watchd.outbox.filenames import numbered, portable

_NUMBERS_MAX = 10_000  # names tried before we say that the folder is full of them


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
class Stuck:
    """It could not be moved or deleted and is where it was; to be tried again."""

    reason: str


def move(
    source: Path, stamp: Stamp, sha256: str | None, root: Path, relative: Path, *, mode: int, tag: str,
    home: Mount | None = None,
) -> Moved | Replaced | Gone | Stuck:  # fmt: skip
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
        found = _same(source, stamp, sha256)
        if not isinstance(found, _Original):
            return found
        with _folder_of(source) as inbox, open_folder(root, relative.parts[:-1], mode, home=home) as folder:
            return _Errand(found, inbox, folder, root, PurePath(relative), tag).run()
    except OSError as error:
        plain = Path(portable(relative))
        missing = isinstance(error, FileNotFoundError)
        # SMB servers answer "no such file" to a name that they do not take
        if plain != relative and os.path.isdir(root) and (missing or isinstance(verdict(error), Refused)):
            return move(source, stamp, sha256, root, plain, mode=mode, tag=tag, home=home)
        if missing:
            return Gone() if not os.path.lexists(source) else Stuck(f"{root} is away")
        return Stuck(error.strerror or str(error))


def delete(source: Path, stamp: Stamp, sha256: str | None) -> Deleted | Replaced | Gone | Stuck:
    """Deletes the original, if it is still the same (see `move`); of a symbolic link only the link goes."""
    try:
        found = _same(source, stamp, sha256)
        if not isinstance(found, _Original):
            return found
        with _folder_of(source) as inbox:
            if not found.is_still():
                return Replaced()
            _remove(inbox, source.name)
    except FileNotFoundError:
        return Gone()
    except OSError as error:
        return Stuck(error.strerror or str(error))
    return Deleted()


def moved_before(stamp: Stamp, sha256: str | None, root: Path, relative: Path) -> Path | None:
    """Where an earlier `move` has put the original, if nobody heard of that: a crash came, or more was to be done.

    It has the same size and time of change there, and the hash ``sha256`` where that is known.
    """
    for name in dict.fromkeys((PurePath(relative), portable(relative))):
        for target in (root / each for each in _ways_out(name)):
            opened = open_file(target)
            if isinstance(opened, Gone):
                break
            if isinstance(opened, OpenFile):
                with opened:
                    same = (opened.size, opened.stamp.mtime_ns) == (stamp.size, stamp.mtime_ns)
                    if same and sha256 in (None, sha256_of(opened)):
                        return target
    return None


@dataclass(frozen=True, slots=True)
class _Original:
    """The file that a job was made of, found again."""

    path: Path
    stamp: Stamp  # as it is now
    sha256: str | None  # of the job
    link: bool

    def open(self) -> OpenFile:
        opened = open_file(self.path, follow_symlinks=self.link)
        if not isinstance(opened, OpenFile):
            raise FileNotFoundError(errno.ENOENT, "is not there any more", str(self.path))
        return opened

    def is_still(self) -> bool:
        found = look(self.path, follow_symlinks=self.link)
        return isinstance(found, os.stat_result) and stamp_of(found) == self.stamp


@dataclass(frozen=True, slots=True)
class _Errand:
    """One move: from the folder ``inbox`` to ``folder`` (descriptors), which is ``relative``'s below ``root``."""

    original: _Original
    inbox: int
    folder: int
    root: Path
    relative: PurePath
    tag: str

    def run(self) -> Moved | Replaced | Stuck:
        if not self.original.link:
            try:
                return self._rename()
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        return self._copy()

    def _rename(self) -> Moved | Replaced | Stuck:
        for target in self._targets():
            if settle_name(self.inbox, self.original.path.name, self.folder, target.name):
                sync_folder(self.inbox)
                return Moved(self.root / target) if self._is_it(target.name) else self._put_back(target.name)
            if self._holds_the_same(target):
                return self._remove_source(target)
        return self._no_name()

    def _copy(self) -> Moved | Replaced | Stuck:
        with self.original.open() as opened:
            mode = stat.S_IMODE(os.fstat(opened.fd).st_mode) & 0o777
            part, found = write_part(
                self.folder, opened.blocks(), tag=self.tag, mode=mode, mtime_ns=opened.stamp.mtime_ns
            )
            untouched = opened.stamp == self.original.stamp and still(
                self.original.path, opened, follow_symlinks=self.original.link
            )
        try:
            if not (untouched if self.original.sha256 is None else found == self.original.sha256):
                return Replaced()
            for target in self._targets():
                if settle_name(self.folder, part, self.folder, target.name) or self._holds_the_same(target):
                    return self._remove_source(target)
        finally:
            discard(self.folder, part)
        return self._no_name()

    def _targets(self) -> Iterator[PurePath]:
        return _ways_out(self.relative)

    def _no_name(self) -> Stuck:
        return Stuck(f"{self.root / self.relative} and its {_NUMBERS_MAX - 1:,} numbered names are taken")

    def _is_it(self, name: str) -> bool:
        """Whether what was renamed is what was looked at before. Some network file systems change inode numbers."""
        found = stamp_of(os.stat(name, dir_fd=self.folder, follow_symlinks=False))
        return (found.size, found.mtime_ns) == (self.original.stamp.size, self.original.stamp.mtime_ns)

    def _put_back(self, name: str) -> Replaced:
        """Another file had taken the original's name at the last moment: it goes back to the inbox."""
        back = PurePath(self.original.path.name)
        number = 0
        while not settle_name(self.folder, name, self.inbox, back.name):
            number += 1
            back = numbered(PurePath(self.original.path.name), number)
        return Replaced()

    def _holds_the_same(self, target: PurePath) -> bool:
        there = open_file(self.root / target)
        if not isinstance(there, OpenFile):
            return False
        with there, self.original.open() as here:
            one, other = os.fstat(there.fd), os.fstat(here.fd)
            if os.path.samestat(one, other) and one.st_nlink == 1:
                raise OSError(errno.EBUSY, f"{self.root} is the inbox by another name")
            return same_bytes(there, here)

    def _remove_source(self, target: PurePath) -> Moved:
        """The target is durable; a source that changed since then is a new candidate and stays."""
        if self.original.is_still():
            _remove(self.inbox, self.original.path.name)
        return Moved(self.root / target)


def _ways_out(name: PurePath) -> Iterator[PurePath]:
    yield name
    for number in range(1, _NUMBERS_MAX):
        yield numbered(name, number)


def _same(source: Path, stamp: Stamp, sha256: str | None) -> _Original | Replaced | Gone | Stuck:
    named = look(source)
    if not isinstance(named, os.stat_result):
        return named if isinstance(named, Gone) else Stuck(named.reason)
    link = stat.S_ISLNK(named.st_mode)
    found = look(source, follow_symlinks=True) if link and stamp_of(named) != stamp else named
    if not isinstance(found, os.stat_result):
        return found if isinstance(found, Gone) else Stuck(found.reason)
    if not stat.S_ISREG(found.st_mode):
        same = stamp_of(found) == stamp
        return Stuck(f"it is {kind_of(found.st_mode)}; only files are moved") if same else Replaced()
    original = _Original(source, stamp_of(found), sha256, link)
    if original.stamp == stamp:
        return original
    if sha256 is None:
        return Replaced()
    with original.open() as opened:
        return original if sha256_of(opened) == sha256 else Replaced()


@contextmanager
def _folder_of(source: Path) -> Iterator[int]:
    folder = os.open(source.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _remove(folder: int, name: str) -> None:
    os.unlink(name, dir_fd=folder)
    sync_folder(folder)
