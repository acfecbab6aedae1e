"""Walking an inbox: the folder is the truth, whatever the kernel's events say.

A walk compares names (and the inode numbers that come with them for free) with what is known, and looks closer only
at what is new or was hinted at; so 100,000 finished files cost some hundredths of a second.
"""

import errno
import heapq
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from picwish_watchd.fs.hang_guard import resolve_paths
from picwish_watchd.inbox.name_filter import IMAGE_SUFFIX, NameFilter
from picwish_watchd.job import Stamp

_NO_FILES: Mapping[str, Stamp] = {}
_DANGLING_ERRNOS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class FileSeen:
    """A file that is new, or has changed since it was last seen. ``relative`` is its path below the inbox."""

    relative: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class InboxUnavailable:
    """The inbox cannot be walked, and why."""

    reason: str


class Scanner:
    """One inbox and what is known of it. Used by one thread at a time."""

    def __init__(
        self, root: str, names: NameFilter, *, recursive: bool, follow_symlinks: bool, forbidden: Iterable[str] = ()
    ) -> None:
        """``forbidden`` are folders that no link may lead into: results and finished originals lie there."""
        self.root = root
        self._names = names
        self._recursive = recursive
        self._follow_symlinks = follow_symlinks
        self.unreadable_folders: tuple[
            str, ...
            #: subfolders that the last walk could not read, or not all files of
        ] = ()
        #: number of folders that it did read, the inbox among them
        self.folder_count = 0
        self.repeated_links: tuple[
            str, ...
            #: links that it did not enter, for it had read the folders that they lead to
        ] = ()
        self._known = _KnownFiles()
        self._forbidden_paths = tuple(Path(folder) for folder in forbidden)
        # where those lie now
        self._forbidden_real: tuple[str, ...] = ()

    def load_known(self, known: Iterable[tuple[str, Stamp]]) -> None:
        """Takes over what the journal knows: files that need no second look unless they change."""
        for relative, stamp in known:
            self._known.put(relative, stamp)

    def forget_file(self, relative: str) -> None:
        """The file was moved or deleted by ourselves: whatever comes under its name is new."""
        self._known.drop(relative)

    def scan(
        self, touched: Collection[str] = (), *, full: bool = False, intact: Callable[[], bool] = lambda: True
    ) -> Iterator[FileSeen] | InboxUnavailable:
        """What is new or changed. ``touched`` names files to look at closely; ``full`` looks closely at all.

        Answers `Away` when the inbox itself cannot be read; a subfolder that cannot is passed over until the next walk.
        ``intact`` is asked in the end: unless the inbox is what it was in the beginning, nothing in it counts as gone.
        """
        try:
            read = {os.path.realpath(self.root)} if self._follow_symlinks else set()
            folder = _open_folder(self.root)
        except OSError as error:
            return InboxUnavailable(f"{self.root}: {error.strerror}")
        if self._follow_symlinks:
            self._forbidden_real = tuple(resolve_paths(self._forbidden_paths).values())
        return self._scan_folders(folder, read, _group_by_folder(touched), full, intact)

    def _scan_folders(
        self, folder: int, read: set[str], touched: dict[str, set[str]], full: bool, intact: Callable[[], bool]
    ) -> Iterator[FileSeen]:
        met, prefix, walked = _ScanState(read), "", set[str]()
        while True:
            walked.add(prefix)
            try:
                yield from self._scan_folder(folder, prefix, touched.get(prefix, ()), full, met)
            except OSError:
                met.unreadable_folders.append(prefix)
            following = self._open_next_folder(met)
            if following is None:
                break
            folder, prefix = following
        self.folder_count, self.unreadable_folders, self.repeated_links = (
            len(walked),
            tuple(met.unreadable_folders),
            tuple(met.repeated_links),
        )
        if intact():
            self._known.drop_all(each for each in met.missing_files if not each[0].startswith(self.unreadable_folders))
            self._known.drop_folders(
                lambda folder: folder not in walked and not folder.startswith(self.unreadable_folders)
            )

    def _scan_folder(
        self, folder: int, prefix: str, hinted: Collection[str], full: bool, met: "_ScanState"
    ) -> Iterator[FileSeen]:
        """One folder, from its descriptor, which is closed. Raises OSError where it cannot be read to its end."""
        # of the known names, each once
        seen: list[str] = []
        with _scandir_closing(folder) as entries:
            for entry in self._iter_changed(entries, prefix, hinted, seen, full):
                relative = prefix + entry.name
                if self._names.is_ignored(entry.name, relative):
                    continue
                if self._recursive and self._is_folder(entry):
                    if self._follow_symlinks and entry.is_symlink():
                        heapq.heappush(met.queued_links, relative)
                    else:
                        met.queued_folders.append(relative)
                if not self._is_included(entry, relative):
                    continue
                stamp = self._detect_change(entry, relative, met.unreadable_folders, close=full or entry.name in hinted)
                if entry.name in self._known.files_in(prefix):
                    seen.append(entry.name)
                if stamp is not None:
                    yield FileSeen(relative, stamp)
        if len(seen) < len(self._known.files_in(prefix)):
            met.missing_files.append((prefix, self._known.files_in(prefix).keys() - seen))

    def _iter_changed(
        self,
        entries: Iterator[os.DirEntry[str]],
        prefix: str,
        hinted: Collection[str],
        seen: list[str],
        full: bool,
    ) -> "Iterator[os.DirEntry[str]]":
        """Those that need a second look; a known file that lies where it lay is only seen, whatever its name.

        This loop is what an inbox of finished files costs: unless ``full`` it asks nothing but the folder itself.
        """
        known_as, follow = self._known.files_in(prefix).get, self._follow_symlinks
        for entry in entries:
            name = entry.name
            known = known_as(name)
            try:
                news = (
                    known is None
                    or follow
                    or known.inode != entry.inode()
                    or name in hinted
                    or entry.is_dir(follow_symlinks=False)
                )
                if full and not news and known is not None:
                    found = entry.stat(follow_symlinks=False)
                    news = found.st_mtime_ns != known.mtime_ns or found.st_size != known.size
            except OSError:
                # of this file, and no reason to pass over those behind it
                news = True
            if news:
                yield entry
            else:
                seen.append(name)

    def _open_next_folder(self, met: "_ScanState") -> tuple[int, str] | None:
        """Opens the next folder. Where links are followed each is read once, by its own path rather than by a link.

        Else folders that are linked to one another would be walked by each way through them: of 8, 100,000 times. They
        are told apart by where they lie, for a share of several disks may number the folders of each alike.
        """
        while met.queued_folders or met.queued_links:
            relative = met.queued_folders.pop() if met.queued_folders else heapq.heappop(met.queued_links)
            path = os.path.join(self.root, relative)
            try:
                if self._follow_symlinks:
                    real = os.path.realpath(path)
                    if self._is_forbidden(real):
                        continue
                    if real in met.read_folders:
                        met.repeated_links.append(relative)
                        continue
                    met.read_folders.add(real)
                return _open_folder(path), relative + "/"
            except OSError:
                met.unreadable_folders.append(relative + "/")
        return None

    def _is_included(self, entry: "os.DirEntry[str]", relative: str) -> bool:
        if not self._names.is_included(entry.name, relative):
            return False
        if self._is_folder(entry) and not IMAGE_SUFFIX.search(entry.name):
            # include: ["*"] means files
            return False
        return not self._is_forbidden_link(entry, relative)

    def _is_forbidden_link(self, entry: "os.DirEntry[str]", relative: str) -> bool:
        path = os.path.join(self.root, relative)
        return self._follow_symlinks and entry.is_symlink() and self._is_forbidden(os.path.realpath(path))

    def _is_forbidden(self, real: str) -> bool:
        """Whether our own results or finished originals lie there, which would be bought in a circle."""
        return any(real == folder or real.startswith(folder + "/") for folder in self._forbidden_real)

    def _is_folder(self, entry: "os.DirEntry[str]") -> bool:
        try:
            return entry.is_dir(follow_symlinks=self._follow_symlinks)
        except OSError:
            return False

    def _detect_change(
        self, entry: "os.DirEntry[str]", relative: str, unread: list[str], *, close: bool
    ) -> Stamp | None:
        """The file's stamp if it is new or has changed; from then on it is known."""
        known = self._known.get(relative)
        if known is not None and not close and known.inode == entry.inode():
            return None
        try:
            # by which it will be opened, too
            path = os.path.join(self.root, relative)
            found = os.stat(path, follow_symlinks=self._follow_symlinks)
        except OSError as error:
            # a folder without x tells names and no more; and no path may be longer than PATH_MAX
            folder = relative.removesuffix(entry.name)
            if error.errno not in _DANGLING_ERRNOS and folder not in unread:
                unread.append(folder)
            return None
        if stat.S_ISDIR(found.st_mode):
            # A folder's size and time change with its contents; only its being there is news.
            stamp = Stamp(found.st_ino, 0, 0)
        else:
            stamp = Stamp(found.st_ino, found.st_size, found.st_mtime_ns)
        if stamp == known:
            return None
        self._known.put(relative, stamp)
        return stamp


@dataclass(slots=True)
class _ScanState:
    """What one walk has come by so far."""

    #: where links are followed: the folders that were read, by where they lie
    read_folders: set[str]
    #: to be read
    queued_folders: list[str] = field(default_factory=list)
    #: to folders, a heap
    queued_links: list[str] = field(default_factory=list)
    repeated_links: list[str] = field(default_factory=list)
    unreadable_folders: list[str] = field(default_factory=list)
    #: known names that are missing in folders
    missing_files: list[tuple[str, set[str]]] = field(default_factory=list)


class _KnownFiles:
    """Stamps of files by their paths, kept folder by folder: a walk need not put together the path of each file."""

    def __init__(self) -> None:
        # "" or a path with a slash at its end, then names
        self._folders: dict[str, dict[str, Stamp]] = {}

    def files_in(self, folder: str) -> Mapping[str, Stamp]:
        """What is known of one folder."""
        return self._folders.get(folder, _NO_FILES)

    def get(self, relative: str) -> Stamp | None:
        folder, name = _split_path(relative)
        return self.files_in(folder).get(name)

    def put(self, relative: str, stamp: Stamp) -> None:
        folder, name = _split_path(relative)
        self._folders.setdefault(folder, {})[name] = stamp

    def drop(self, relative: str) -> None:
        folder, name = _split_path(relative)
        self.drop_all([(folder, {name})])

    def drop_all(self, gone: Iterable[tuple[str, Collection[str]]]) -> None:
        for folder, names in gone:
            files = self._folders.get(folder, {})
            for name in names:
                files.pop(name, None)
            if not files:
                self._folders.pop(folder, None)

    def drop_folders(self, gone: Callable[[str], bool]) -> None:
        for folder in [folder for folder in self._folders if gone(folder)]:
            del self._folders[folder]


def _split_path(relative: str) -> tuple[str, str]:
    folder, slash, name = relative.rpartition("/")
    return folder + slash, name


def _group_by_folder(paths: Iterable[str]) -> dict[str, set[str]]:
    folders: dict[str, set[str]] = {}
    for folder, name in map(_split_path, paths):
        folders.setdefault(folder, set()).add(name)
    return folders


class FullScanTimer:
    """Which walks of an inbox look closely at all that is known: only so a file is found that was changed in place.

    The first one does. Where the kernel tells of such changes, each tenth does, for what it lost. Elsewhere each one
    does, as long as that takes a twentieth of the time at most: 100,000 files cost half a second, a slow share more.
    """

    _FULL_EVERY, _TIME_DIVISOR = 10, 20

    def __init__(self, interval: float) -> None:
        """``interval``: seconds from one walk to the next."""
        self._interval = max(interval, 0.001)
        # since the last close look, with it
        self._scans = 0
        self._full_seconds: float | None = None

    def is_due(self, *, listening: bool) -> bool:
        """Whether the next walk should."""
        if self._full_seconds is None:
            return True
        return self._scans >= (
            self._FULL_EVERY if listening else self._TIME_DIVISOR * self._full_seconds / self._interval
        )

    def record_scan(self, spent: float | None) -> None:
        """A walk has ended; with ``spent`` it has looked closely and took so many seconds."""
        self._scans += 1
        if spent is not None:
            self._scans, self._full_seconds = 1, spent


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def _scandir_closing(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """What lies in an open folder, which is closed in the end. So the kernel follows no path for each of its files."""
    try:
        with os.scandir(folder) as entries:
            yield entries
    finally:
        os.close(folder)
