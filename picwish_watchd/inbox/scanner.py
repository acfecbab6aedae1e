"""Scan an inbox for new and changed files: only what is in the folder counts, not the kernel's events.

A scan compares names, and the inode numbers that the folder lists with them, with the known files. It reads the status
of a file only if that is new or an event named it. So 100,000 finished files cost some hundredths of a second.
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
    """A file that is new or has changed since it was last seen. ``relative`` is its path below the inbox."""

    relative: str
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class InboxUnavailable:
    """The inbox cannot be scanned."""

    reason: str


class Scanner:
    """One inbox and the files known in it. For one thread at a time."""

    def __init__(
        self, root: str, names: NameFilter, *, recursive: bool, follow_symlinks: bool, forbidden: Iterable[str] = ()
    ) -> None:
        """``forbidden`` are folders that no link may lead into, because results and finished originals are there."""
        self.root = root
        self._names = names
        self._recursive = recursive
        self._follow_symlinks = follow_symlinks
        #: Subfolders that the last scan could not read, or in which it could not read a file.
        self.unreadable_folders: tuple[str, ...] = ()
        #: Number of folders that the last scan read, the inbox included.
        self.folder_count = 0
        #: Links that the last scan did not enter, because it had read the folders behind them already.
        self.repeated_links: tuple[str, ...] = ()
        self._known = _KnownFiles()
        self._forbidden_paths = tuple(Path(folder) for folder in forbidden)
        # Where these lead now.
        self._forbidden_real: tuple[str, ...] = ()

    def load_known(self, known: Iterable[tuple[str, Stamp]]) -> None:
        """Add files that the journal knows: they are reported only if they change."""
        for relative, stamp in known:
            self._known.put(relative, stamp)

    def forget_file(self, relative: str) -> None:
        """Forget a file that the daemon has moved or deleted: the next one of its name is new."""
        self._known.drop(relative)

    def scan(
        self, touched: Collection[str] = (), *, full: bool = False, intact: Callable[[], bool] = lambda: True
    ) -> Iterator[FileSeen] | InboxUnavailable:
        """Return an iterator over the new and changed files, or `InboxUnavailable` if the inbox cannot be read.

        ``touched`` are paths below the inbox whose status is read in any case, ``full`` reads the status of all files.
        A subfolder that cannot be read is skipped until the next scan. ``intact`` is called at the end: only if the
        inbox is still the same folder are the files that were not found forgotten.
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
        state, prefix, scanned = _ScanState(read), "", set[str]()
        while True:
            scanned.add(prefix)
            try:
                yield from self._scan_folder(folder, prefix, touched.get(prefix, ()), full, state)
            except OSError:
                state.unreadable_folders.append(prefix)
            following = self._open_next_folder(state)
            if following is None:
                break
            folder, prefix = following
        self.folder_count, self.unreadable_folders, self.repeated_links = (
            len(scanned),
            tuple(state.unreadable_folders),
            tuple(state.repeated_links),
        )
        if intact():
            self._known.drop_all(
                each for each in state.missing_files if not each[0].startswith(self.unreadable_folders)
            )
            self._known.drop_folders(
                lambda folder: folder not in scanned and not folder.startswith(self.unreadable_folders)
            )

    def _scan_folder(
        self, folder: int, prefix: str, touched: Collection[str], full: bool, state: "_ScanState"
    ) -> Iterator[FileSeen]:
        """Yield the news in one open folder and close it. Raises OSError if it cannot be read to the end."""
        # The known names that were found, each once.
        known_names: list[str] = []
        with _scandir_closing(folder) as entries:
            for entry in self._iter_changed(entries, prefix, touched, known_names, full):
                relative = prefix + entry.name
                if self._names.is_ignored(entry.name, relative):
                    continue
                if self._recursive and self._is_folder(entry):
                    if self._follow_symlinks and entry.is_symlink():
                        heapq.heappush(state.queued_links, relative)
                    else:
                        state.queued_folders.append(relative)
                if not self._is_included(entry, relative):
                    continue
                stamp = self._detect_change(
                    entry, relative, state.unreadable_folders, close=full or entry.name in touched
                )
                if entry.name in self._known.files_in(prefix):
                    known_names.append(entry.name)
                if stamp is not None:
                    yield FileSeen(relative, stamp)
        if len(known_names) < len(self._known.files_in(prefix)):
            state.missing_files.append((prefix, self._known.files_in(prefix).keys() - known_names))

    def _iter_changed(
        self,
        entries: Iterator[os.DirEntry[str]],
        prefix: str,
        touched: Collection[str],
        known_names: list[str],
        full: bool,
    ) -> "Iterator[os.DirEntry[str]]":
        """Yield the entries that may be new or changed; append the names of the others to ``known_names``.

        Nearly all of the time for an inbox of finished files is spent in this loop, so unless ``full`` it reads nothing
        but the folder itself.
        """
        known_as, follow = self._known.files_in(prefix).get, self._follow_symlinks
        for entry in entries:
            name = entry.name
            known = known_as(name)
            try:
                is_news = (
                    known is None
                    or follow
                    or known.inode != entry.inode()
                    or name in touched
                    or entry.is_dir(follow_symlinks=False)
                )
                if full and not is_news and known is not None:
                    status = entry.stat(follow_symlinks=False)
                    is_news = status.st_mtime_ns != known.mtime_ns or status.st_size != known.size
            except OSError:
                # The error concerns this file only; the scan goes on with the next.
                is_news = True
            if is_news:
                yield entry
            else:
                known_names.append(name)

    def _open_next_folder(self, state: "_ScanState") -> tuple[int, str] | None:
        """Open the next folder; None if there is none. If links are followed, each folder is read once.

        Otherwise folders that link to one another would be scanned along every path through them: 8 such folders
        100,000 times. A folder's own path goes before a link to it. Folders are recognised by their resolved paths: a
        share of several disks may use the same inode numbers on each.
        """
        while state.queued_folders or state.queued_links:
            relative = state.queued_folders.pop() if state.queued_folders else heapq.heappop(state.queued_links)
            path = os.path.join(self.root, relative)
            try:
                if self._follow_symlinks:
                    real = os.path.realpath(path)
                    if self._is_forbidden(real):
                        continue
                    if real in state.read_folders:
                        state.repeated_links.append(relative)
                        continue
                    state.read_folders.add(real)
                return _open_folder(path), relative + "/"
            except OSError:
                state.unreadable_folders.append(relative + "/")
        return None

    def _is_included(self, entry: "os.DirEntry[str]", relative: str) -> bool:
        if not self._names.is_included(entry.name, relative):
            return False
        if self._is_folder(entry) and not IMAGE_SUFFIX.search(entry.name):
            # include: ["*"] means files only.
            return False
        return not self._is_forbidden_link(entry, relative)

    def _is_forbidden_link(self, entry: "os.DirEntry[str]", relative: str) -> bool:
        path = os.path.join(self.root, relative)
        return self._follow_symlinks and entry.is_symlink() and self._is_forbidden(os.path.realpath(path))

    def _is_forbidden(self, real: str) -> bool:
        """Return whether our results or finished originals are there, which would be submitted again and again."""
        return any(real == folder or real.startswith(folder + "/") for folder in self._forbidden_real)

    def _is_folder(self, entry: "os.DirEntry[str]") -> bool:
        try:
            return entry.is_dir(follow_symlinks=self._follow_symlinks)
        except OSError:
            return False

    def _detect_change(
        self, entry: "os.DirEntry[str]", relative: str, unread: list[str], *, close: bool
    ) -> Stamp | None:
        """Return the file's stamp if it is new or has changed; the file is known from then on."""
        known = self._known.get(relative)
        if known is not None and not close and known.inode == entry.inode():
            return None
        try:
            # By path, for the file will be opened by path too.
            path = os.path.join(self.root, relative)
            status = os.stat(path, follow_symlinks=self._follow_symlinks)
        except OSError as error:
            # A folder without the x bit lists names only, and a path may be longer than PATH_MAX.
            folder = relative.removesuffix(entry.name)
            if error.errno not in _DANGLING_ERRNOS and folder not in unread:
                unread.append(folder)
            return None
        if stat.S_ISDIR(status.st_mode):
            # The size and time of a folder change with its contents. Only a new folder is news.
            stamp = Stamp(status.st_ino, 0, 0)
        else:
            stamp = Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp == known:
            return None
        self._known.put(relative, stamp)
        return stamp


@dataclass(slots=True)
class _ScanState:
    """What a scan has found so far."""

    #: If links are followed: the resolved paths of the folders that were read.
    read_folders: set[str]
    #: Folders to be read.
    queued_folders: list[str] = field(default_factory=list)
    #: Links to folders, to be read after those; a heap.
    queued_links: list[str] = field(default_factory=list)
    repeated_links: list[str] = field(default_factory=list)
    unreadable_folders: list[str] = field(default_factory=list)
    #: Folders with the known names that were not found there.
    missing_files: list[tuple[str, set[str]]] = field(default_factory=list)


class _KnownFiles:
    """Stamps of files by folder and name, so that a scan need not build the path of each file."""

    def __init__(self) -> None:
        # Folder ("" or a path that ends in a slash), then name.
        self._folders: dict[str, dict[str, Stamp]] = {}

    def files_in(self, folder: str) -> Mapping[str, Stamp]:
        """Return the stamps of the known files in one folder, by name."""
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
    """Decide which scans are full, that is, read the status of all files: only they find a file changed in place.

    The first scan is full. Where the kernel reports such changes, each tenth is, because events may be lost. Elsewhere
    each one is, as long as full scans take a twentieth of the time at most: 100,000 files take half a second, and more
    on a slow share.
    """

    _FULL_EVERY, _TIME_DIVISOR = 10, 20

    def __init__(self, interval: float) -> None:
        """``interval``: seconds from one scan to the next."""
        self._interval = max(interval, 0.001)
        # Number of scans since the last full one, including it.
        self._scans = 0
        self._full_seconds: float | None = None

    def is_due(self, *, listening: bool) -> bool:
        """Return whether the next scan should be full; ``listening``: the kernel reports changes."""
        if self._full_seconds is None:
            return True
        return self._scans >= (
            self._FULL_EVERY if listening else self._TIME_DIVISOR * self._full_seconds / self._interval
        )

    def record_scan(self, spent: float | None) -> None:
        """Count a scan that has ended; ``spent``: the seconds that it took if it was full, else None."""
        self._scans += 1
        if spent is not None:
            self._scans, self._full_seconds = 1, spent


def _open_folder(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def _scandir_closing(folder: int) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Yield the entries of an open folder and close it. By descriptor the kernel need not resolve a path per file."""
    try:
        with os.scandir(folder) as entries:
            yield entries
    finally:
        os.close(folder)
