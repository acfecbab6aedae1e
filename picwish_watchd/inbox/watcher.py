"""Watching an inbox: a thread a folder that walks it, at once on a hint and in any case every ``rescan_interval``.

watchdog only gives the hints. It goes deaf in silence when a folder is renamed, unmounted, or has more subfolders than
the kernel grants watches, and it loses events in a burst; so nothing here believes that no event means no file. In a
flood nobody listens at all until it is over: then walks, one after the other, are many times cheaper.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

from picwish_watchd.fs.mounts import AcceptedMount, Mount, canonical_mount_of, mount_of
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen, FullScanTimer, InboxUnavailable, Scanner
from picwish_watchd.job import Stamp

#: The narrowest filter that still reports a file moved into the folder, which comes as FileCreatedEvent.
_EVENT_TYPES: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
# sightings a report
_BATCH_SIZE = 500
# files between two walks: an event costs a hundred times as much as a file in a walk
_FLOOD_START = 1_000
# files of a walk: fewer, and the flood is over
_FLOOD_END = 100
# seconds between the walks of a flood
_FLOOD_PAUSE = 1.0
# hinted paths; beyond that everything is looked at closely
_MAX_HINTS = 10_000
# where watchdog >= 7.1 tells of lost events, and nowhere else
_OVERFLOW_LOGGER = "watchdog.observers.inotify_c"
_EMITTER_LOGGER = (
    # where it calls it an error that an event comes while it is being closed
    "watchdog.observers.inotify"
)


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a watcher needs to know of a rule."""

    rule: str
    path: Path
    name_filter: NameFilter
    recursive: bool
    follow_symlinks: bool
    #: True: kernel events; False: walks alone; None: kernel events where they can be trusted
    use_events: bool | None
    #: seconds
    rescan_interval: float
    #: folders that no link may lead into
    forbidden_folders: tuple[Path, ...] = ()
    find_conflict: Callable[[], str | None] = lambda: (
        None
        #: why what lies there is another rule's; asked from any thread
    )


@dataclass(frozen=True, slots=True)
class ScanReport:
    """A walk has ended. ``away`` says why it could not be done; ``warning`` is news about how the folder is watched."""

    rule: str
    unavailable: str | None
    seconds: float
    warning: str | None = None
    #: subfolders that could not be read, or not all files of
    unreadable_folders: tuple[str, ...] = ()
    #: where the inbox lies, if that is known
    mount: Mount | None = None
    #: why the walks are on their own; None: the kernel tells of changes too
    why_polling: str | None = None
    #: where the inbox's path leads, its links followed
    real_path: str = ""
    #: why the kernel tells of changes in some of its folders only
    why_partial: str | None = None
    #: links below it that lead into folders that were walked by another path
    repeated_links: tuple[str, ...] = ()
    #: of `Watcher.recalled`, so many were looked at by this walk and those before
    rescan_count: int = 0


ReportCallback = Callable[[str, "list[FileSeen] | ScanReport"], None]


class Watcher(threading.Thread):
    """Walks one inbox until told to stop, and reports (rule, sightings) in batches, then (rule, `Walked`).

    ``report`` is called in this thread. A walk that hangs in the kernel blocks this thread and nothing else.
    """

    def __init__(
        self, inbox: Inbox, known: Iterable[tuple[str, Stamp]], report: ReportCallback, home: Mount | None = None
    ) -> None:
        """``home`` is the mount that the inbox was last accepted on, and may be set anew at any time."""
        super().__init__(name=f"watch-{inbox.rule}", daemon=True)
        self.inbox = inbox
        self.home = home
        self._report = report
        self._scanner = Scanner(
            str(inbox.path),
            inbox.name_filter,
            recursive=inbox.recursive,
            follow_symlinks=inbox.follow_symlinks,
            forbidden=[os.fspath(folder) for folder in inbox.forbidden_folders],
        )
        self._scanner.load_known(known)
        self._pending_events = _PendingEvents()
        self._listener = _EventListener(self._pending_events)
        self._stopping = threading.Event()
        self._forgotten: list[str] = []
        self._full_scan_timer = FullScanTimer(inbox.rescan_interval)
        # a close look at everything
        self._full_scan_owed = False
        # whether the kernel still listens
        self._listener_doubtful = False
        # the kernel is not asked: walks alone, one after the other
        self._in_flood = False
        # files of the last walk
        self._seen_count = 0
        #: how often `recall` was called
        self.rescan_count = 0

    def request_scan(self, relative: str | None = None) -> None:
        """Asks for a walk now; with a path, for a close look at that file, without one at all. From any thread."""
        self._pending_events.add(relative)

    def rescan_after_mount_change(self) -> None:
        """Mounts have changed: asks for a walk now, with a close look at nothing that is known. From any thread."""
        self._listener_doubtful = True
        self._pending_events.wake()

    def rescan_file(self, relative: str, path: str) -> None:
        """Whatever lies there now is news: asks for a walk now. From one thread."""
        self.forget_file(relative)
        self.request_scan(path)
        self.rescan_count += 1

    def forget_file(self, relative: str) -> None:
        """The file was moved or deleted by ourselves. From any thread."""
        self._forgotten.append(relative)

    def stop(self) -> None:
        """Ends the thread after the walk that is under way. From any thread."""
        self._stopping.set()
        self._pending_events.wake()

    def run(self) -> None:
        """The thread."""
        handler = _OverflowHandler(self._pending_events)
        logging.getLogger(_OVERFLOW_LOGGER).addHandler(handler)
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                full = self._full_scan_timer.is_due(listening=self._listener.is_listening or self._in_flood)
                self._scan(full=full)
                spent = time.monotonic() - began
                self._full_scan_timer.record_scan(spent if full else None)
                # A stream of hints must not turn into walking without pause.
                pause = max(5 * spent, _FLOOD_PAUSE if self._in_flood else 0.0)
                self._stopping.wait(min(pause, self.inbox.rescan_interval))
                if not self._stopping.is_set() and not self._in_flood:
                    self._pending_events.wait(self.inbox.rescan_interval - 5 * spent)
        finally:
            logging.getLogger(_OVERFLOW_LOGGER).removeHandler(handler)
            self._listener.close()

    def _scan(self, *, full: bool) -> None:
        began = time.monotonic()
        # before the hints are taken: each of them is among those
        recalled = self.rescan_count
        # whatever comes of this walk: a hint is asked for once
        touched, everything = self._pending_events.take_all()
        drowned, self._in_flood = (
            self._in_flood,
            len(touched) >= _FLOOD_START or (self._in_flood and self._seen_count >= _FLOOD_END),
        )
        self._seen_count = 0
        self._full_scan_owed |= full or everything or (drowned and not self._in_flood)
        closely, self._listener_doubtful = self._full_scan_owed or self._listener_doubtful, False
        warning = None
        away = self._why_unavailable()
        if away is None:
            # Watch, then walk: what comes between the two is seen by one of them.
            if self._in_flood:
                self._listener.close()
            else:
                warning = self._listener.ensure_listening(self.inbox, closely=closely)
            away = self._scan_and_report(touched)
            warning = warning or self._listener.check_coverage(self.inbox, self._scanner.folder_count, closely=closely)
        if away is not None:
            self._listener.close()
        # what was changed in place meanwhile, nobody has heard
        self._full_scan_owed = away is not None
        mount = canonical_mount_of(self.inbox.path) if away is None else None
        place = os.path.realpath(self.inbox.path)
        spent = time.monotonic() - began
        walked = ScanReport(
            self.inbox.rule,
            away,
            spent,
            warning,
            self._scanner.unreadable_folders,
            mount,
            self._listener.why_polling,
            place,
            self._listener.why_partial,
            self._scanner.repeated_links,
            recalled,
        )
        self._report(self.inbox.rule, walked)

    def _scan_and_report(self, touched: Iterable[str]) -> str | None:
        """Walks and reports; why that could not be done to its end, and then nothing was seen that lies elsewhere."""
        while self._forgotten:
            self._scanner.forget_file(self._forgotten.pop())
        root = _device_and_inode(self.inbox.path)

        def intact() -> bool:
            return root is not None and _device_and_inode(self.inbox.path) == root and self._why_unavailable() is None

        found = self._scanner.scan(self._relative_paths(touched), full=self._full_scan_owed, intact=intact)
        if isinstance(found, InboxUnavailable):
            return found.reason
        for batch in _iter_batches(found):
            if (elsewhere := self._why_unavailable()) is not None:
                for sighting in batch:
                    self._scanner.forget_file(sighting.relative)
                return elsewhere
            self._seen_count += len(batch)
            self._report(self.inbox.rule, batch)
        return self._why_unavailable()

    def _why_unavailable(self) -> str | None:
        # what does not exist, or not answer, is told by the walk itself, in its own words
        there = os.path.exists(self.inbox.path)
        accepted = AcceptedMount(self.inbox.rule, self.home)
        why = (accepted.why_elsewhere(self.inbox.path) or self.inbox.find_conflict()) if there else None
        return why and f"{self.inbox.path}: {why}"

    def _relative_paths(self, touched: Iterable[str]) -> list[str]:
        roots = tuple({str(self.inbox.path) + "/", os.path.realpath(self.inbox.path) + "/"})
        return [next((path[len(root) :] for root in roots if path.startswith(root)), path) for path in touched]


class _PendingEvents:
    """What watchdog's threads have heard: a flag, and which files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flag = threading.Event()
        self._touched: set[str] = set()
        self._everything = False

    def add(self, path: str | None) -> None:
        with self._lock:
            if path is None or len(self._touched) >= _MAX_HINTS:
                self._everything = True
            else:
                self._touched.add(path)
        self._flag.set()

    def wake(self) -> None:
        self._flag.set()

    def take_all(self) -> tuple[set[str], bool]:
        with self._lock:
            self._flag.clear()
            touched, everything = self._touched, self._everything
            self._touched, self._everything = set(), False
        return touched, everything

    def wait(self, timeout: float) -> None:
        self._flag.wait(max(0.0, timeout))


class _EventListener(FileSystemEventHandler):
    """The kernel's events of one inbox, for as long as they can be had."""

    def __init__(self, hints: _PendingEvents) -> None:
        self._pending_events = hints
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None
        self._warned = False
        # watches at the last walk, if those were fewer than folders
        self._partial_watches: int | None = None
        #: why the kernel is not listened to
        self.why_polling: str | None = None
        #: why it is listened to in some of the folders only
        self.why_partial: str | None = None

    def ensure_listening(self, inbox: Inbox, *, closely: bool) -> str | None:
        """Listens to the folder that stands at the path now; answers a warning the first time that it cannot.

        ``closely``: asks the kernel whether it does, which takes it some microseconds a folder.
        """
        root = _device_and_inode(inbox.path)
        self.why_polling = self._find_polling_reason(inbox)
        if root is None or self.why_polling is not None:
            self.close()
            return None
        alive = self._observer is not None and root == self._root and self._observer.is_alive()
        if alive and not (closely and self._count_watches() == 0):
            return None
        self.close()
        try:
            self._observer, self._root = self._start_observer(inbox), root
        except OSError as error:
            self.why_polling = f"the kernel grants no more watches ({error.strerror or error})"
            return self._warn_once(
                inbox, "the folder is walked", "sysctl fs.inotify.max_user_watches, max_user_instances"
            )
        except RuntimeError as error:
            self.why_polling = f"the system grants no more threads ({error})"
            return self._warn_once(inbox, "the folder is walked", "TasksMax= of the service, or ulimit -u")
        return None

    @property
    def is_listening(self) -> bool:
        """Whether the kernel tells of all changes, as far as one can know."""
        return self._observer is not None and self.why_partial is None

    def check_coverage(self, inbox: Inbox, folders: int, *, closely: bool) -> str | None:
        """After a walk that read so many folders: a warning the first time that not all of them are listened to.

        watchdog says nothing where the kernel refuses a watch on a subfolder. One that is new may get its watch yet;
        so only a number that stands still between two walks counts.
        """
        if not closely and self._partial_watches is None:
            return None
        before, self._partial_watches, self.why_partial = self._partial_watches, None, None
        watches = self._count_watches()
        if not watches or watches >= folders or inbox.follow_symlinks or not inbox.recursive:
            return None
        self._partial_watches = watches
        if watches != before:
            return None
        self.why_partial = f"the kernel grants watches on only {watches:,} of {folders:,} folders"
        return self._warn_once(inbox, "all are walked", "sysctl fs.inotify.max_user_watches, then restart the daemon")

    def _count_watches(self) -> int | None:
        """How many folders the kernel watches for us: 0 without the inbox itself, as after an unmount; None: who knows.

        Its own list tells (proc(5): fdinfo), and there the first watch of an observer is that of its root.
        """
        fd = getattr(getattr(self._observer, "_inotify_fd", None), "_inotify_fd", None)
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as told:
                watches = [line.startswith("inotify wd:1 ") for line in told if line.startswith("inotify wd:")]
        except OSError:
            return None
        return len(watches) if any(watches) else 0

    def _warn_once(self, inbox: Inbox, how: str, limits: str) -> str | None:
        if self._warned:
            return None
        self._warned = True
        reason = self.why_polling or self.why_partial
        return f"{reason}; {how} every {inbox.rescan_interval:g} s instead ({limits})"

    def close(self) -> None:
        """Stops listening."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
            self._observer = None
        self._partial_watches = self.why_partial = None

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread: only takes a note."""
        self._pending_events.add(os.fsdecode(event.dest_path or event.src_path))

    def _start_observer(self, inbox: Inbox) -> BaseObserver:
        logging.getLogger(_EMITTER_LOGGER).addFilter(_is_relevant)
        # opens its inotify instance and starts a thread at once
        observer = Observer()
        try:
            # realpath: watchdog hears nothing of a root that is itself a symbolic link
            observer.schedule(self, os.path.realpath(inbox.path), recursive=inbox.recursive, event_filter=_EVENT_TYPES)
            observer.start()
        except (OSError, RuntimeError):
            observer.stop()
            raise
        return observer

    def _find_polling_reason(self, inbox: Inbox) -> str | None:
        """Why only walks can be trusted here, or are wanted."""
        if inbox.use_events is not None:
            return None if inbox.use_events else "observer: polling"
        mount = mount_of(inbox.path)
        if mount is None or not mount.is_network:
            return None
        return f"it lies on {mount.kind} at {mount.point}, where the kernel does not see what other machines do"


class _OverflowHandler(logging.Handler):
    """Turns watchdog's only word about lost events into a walk of everything."""

    def __init__(self, hints: _PendingEvents) -> None:
        super().__init__(logging.WARNING)
        self._pending_events = hints

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - any warning of that logger means loss
        self._pending_events.add(None)


def _is_relevant(record: logging.LogRecord) -> bool:
    return "when the thread is inactive" not in record.msg


def _device_and_inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _iter_batches(found: Iterator[FileSeen]) -> Iterator[list[FileSeen]]:
    """The oldest first within each: a folder has its names in no order that people know."""
    while batch := list(islice(found, _BATCH_SIZE)):
        yield sorted(batch, key=lambda sighting: (sighting.stamp.mtime_ns, sighting.relative))
