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

from picwish_watchd.fs.mounts import Mount, home_of, mount_of, moved
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import Away, CloseLooks, Sighting, Walker
from picwish_watchd.job import Stamp

#: The narrowest filter that still reports a file moved into the folder, which comes as FileCreatedEvent.
_EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
_BATCH = 500  # sightings a report
_FLOOD = 1_000  # files between two walks: an event costs a hundred times as much as a file in a walk
_EBB = 100  # files of a walk: fewer, and the flood is over
_FLOOD_PAUSE = 1.0  # seconds between the walks of a flood
_TOUCHED_MAX = 10_000  # hinted paths; beyond that everything is looked at closely
_LOGGER = "watchdog.observers.inotify_c"  # where watchdog >= 7.1 tells of lost events, and nowhere else
_EMITTERS = "watchdog.observers.inotify"  # where it calls it an error that an event comes while it is being closed


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a watcher needs to know of a rule."""

    rule: str
    path: Path
    names: NameFilter
    recursive: bool
    follow_symlinks: bool
    native: bool | None  #: True: kernel events; False: walks alone; None: kernel events where they can be trusted
    rescan_interval: float  #: seconds
    forbidden: tuple[Path, ...] = ()  #: folders that no link may lead into
    rival: Callable[[], str | None] = lambda: None  #: why what lies there is another rule's; asked from any thread


@dataclass(frozen=True, slots=True)
class Walked:
    """A walk has ended. ``away`` says why it could not be done; ``warning`` is news about how the folder is watched."""

    rule: str
    away: str | None
    seconds: float
    warning: str | None = None
    unread: tuple[str, ...] = ()  #: subfolders that could not be read, or not all files of
    mount: Mount | None = None  #: where the inbox lies, if that is known
    polling: str | None = None  #: why the walks are on their own; None: the kernel tells of changes too
    place: str = ""  #: where the inbox's path leads, its links followed
    partial: str | None = None  #: why the kernel tells of changes in some of its folders only
    again: tuple[str, ...] = ()  #: links below it that lead into folders that were walked by another path
    recalled: int = 0  #: of `Watcher.recalled`, so many were looked at by this walk and those before


Report = Callable[[str, "list[Sighting] | Walked"], None]


class Watcher(threading.Thread):
    """Walks one inbox until told to stop, and reports (rule, sightings) in batches, then (rule, `Walked`).

    ``report`` is called in this thread. A walk that hangs in the kernel blocks this thread and nothing else.
    """

    def __init__(
        self, inbox: Inbox, known: Iterable[tuple[str, Stamp]], report: Report, home: Mount | None = None
    ) -> None:
        """``home`` is the mount that the inbox was last accepted on, and may be set anew at any time."""
        super().__init__(name=f"watch-{inbox.rule}", daemon=True)
        self.inbox = inbox
        self.home = home
        self._report = report
        self._walker = Walker(
            str(inbox.path), inbox.names, recursive=inbox.recursive, follow_symlinks=inbox.follow_symlinks,
            forbidden=[os.fspath(folder) for folder in inbox.forbidden],
        )  # fmt: skip
        self._walker.learn(known)
        self._hints = _Hints()
        self._ear = _Ear(self._hints)
        self._stopping = threading.Event()
        self._forgotten: list[str] = []
        self._close_looks = CloseLooks(inbox.rescan_interval)
        self._owed = False  # a close look at everything
        self._doubtful = False  # whether the kernel still listens
        self._flood = False  # the kernel is not asked: walks alone, one after the other
        self._sighted = 0  # files of the last walk
        self.recalled = 0  #: how often `recall` was called

    def hint(self, relative: str | None = None) -> None:
        """Asks for a walk now; with a path, for a close look at that file, without one at all. From any thread."""
        self._hints.add(relative)

    def walk_now(self) -> None:
        """Mounts have changed: asks for a walk now, with a close look at nothing that is known. From any thread."""
        self._doubtful = True
        self._hints.wake()

    def recall(self, relative: str, path: str) -> None:
        """Whatever lies there now is news: asks for a walk now. From one thread."""
        self.forget(relative)
        self.hint(path)
        self.recalled += 1

    def forget(self, relative: str) -> None:
        """The file was moved or deleted by ourselves. From any thread."""
        self._forgotten.append(relative)

    def stop(self) -> None:
        """Ends the thread after the walk that is under way. From any thread."""
        self._stopping.set()
        self._hints.wake()

    def run(self) -> None:
        """The thread."""
        handler = _OverflowHandler(self._hints)
        logging.getLogger(_LOGGER).addHandler(handler)
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                full = self._close_looks.due(listening=self._ear.listening or self._flood)
                self._walk(full=full)
                spent = time.monotonic() - began
                self._close_looks.ended(spent if full else None)
                # A stream of hints must not turn into walking without pause.
                pause = max(5 * spent, _FLOOD_PAUSE if self._flood else 0.0)
                self._stopping.wait(min(pause, self.inbox.rescan_interval))
                if not self._stopping.is_set() and not self._flood:
                    self._hints.wait(self.inbox.rescan_interval - 5 * spent)
        finally:
            logging.getLogger(_LOGGER).removeHandler(handler)
            self._ear.close()

    def _walk(self, *, full: bool) -> None:
        began = time.monotonic()
        recalled = self.recalled  # before the hints are taken: each of them is among those
        touched, everything = self._hints.take()  # whatever comes of this walk: a hint is asked for once
        drowned, self._flood = self._flood, len(touched) >= _FLOOD or (self._flood and self._sighted >= _EBB)
        self._sighted = 0
        self._owed |= full or everything or (drowned and not self._flood)
        closely, self._doubtful = self._owed or self._doubtful, False
        warning = None
        away = self._elsewhere()
        if away is None:
            # Watch, then walk: what comes between the two is seen by one of them.
            if self._flood:
                self._ear.close()
            else:
                warning = self._ear.listen(self.inbox, closely=closely)
            away = self._look(touched)
            warning = warning or self._ear.compare(self.inbox, self._walker.folders, closely=closely)
        if away is not None:
            self._ear.close()
        self._owed = away is not None  # what was changed in place meanwhile, nobody has heard
        mount = home_of(self.inbox.path) if away is None else None
        place = os.path.realpath(self.inbox.path)
        spent = time.monotonic() - began
        walked = Walked(
            self.inbox.rule, away, spent, warning, self._walker.unread, mount, self._ear.polling, place,
            self._ear.partial, self._walker.again, recalled,
        )  # fmt: skip
        self._report(self.inbox.rule, walked)

    def _look(self, touched: Iterable[str]) -> str | None:
        """Walks and reports; why that could not be done to its end, and then nothing was seen that lies elsewhere."""
        while self._forgotten:
            self._walker.forget(self._forgotten.pop())
        root = _identity(self.inbox.path)

        def intact() -> bool:
            return root is not None and _identity(self.inbox.path) == root and self._elsewhere() is None

        found = self._walker.walk(self._relative(touched), full=self._owed, intact=intact)
        if isinstance(found, Away):
            return found.reason
        for batch in _batches(found):
            if (elsewhere := self._elsewhere()) is not None:
                for sighting in batch:
                    self._walker.forget(sighting.relative)
                return elsewhere
            self._sighted += len(batch)
            self._report(self.inbox.rule, batch)
        return self._elsewhere()

    def _elsewhere(self) -> str | None:
        # what does not exist, or not answer, is told by the walk itself, in its own words
        there = os.path.exists(self.inbox.path)
        why = (moved(self.inbox.path, self.home) or self.inbox.rival()) if there else None
        return why and f"{self.inbox.path}: {why}"

    def _relative(self, touched: Iterable[str]) -> list[str]:
        roots = tuple({str(self.inbox.path) + "/", os.path.realpath(self.inbox.path) + "/"})
        return [next((path[len(root) :] for root in roots if path.startswith(root)), path) for path in touched]


class _Hints:
    """What watchdog's threads have heard: a flag, and which files."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flag = threading.Event()
        self._touched: set[str] = set()
        self._everything = False

    def add(self, path: str | None) -> None:
        with self._lock:
            if path is None or len(self._touched) >= _TOUCHED_MAX:
                self._everything = True
            else:
                self._touched.add(path)
        self._flag.set()

    def wake(self) -> None:
        self._flag.set()

    def take(self) -> tuple[set[str], bool]:
        with self._lock:
            self._flag.clear()
            touched, everything = self._touched, self._everything
            self._touched, self._everything = set(), False
        return touched, everything

    def wait(self, timeout: float) -> None:
        self._flag.wait(max(0.0, timeout))


class _Ear(FileSystemEventHandler):
    """The kernel's events of one inbox, for as long as they can be had."""

    def __init__(self, hints: _Hints) -> None:
        self._hints = hints
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None
        self._warned = False
        self._fewer: int | None = None  # watches at the last walk, if those were fewer than folders
        self.polling: str | None = None  #: why the kernel is not listened to
        self.partial: str | None = None  #: why it is listened to in some of the folders only

    def listen(self, inbox: Inbox, *, closely: bool) -> str | None:
        """Listens to the folder that stands at the path now; answers a warning the first time that it cannot.

        ``closely``: asks the kernel whether it does, which takes it some microseconds a folder.
        """
        root = _identity(inbox.path)
        self.polling = self._unwanted(inbox)
        if root is None or self.polling is not None:
            self.close()
            return None
        alive = self._observer is not None and root == self._root and self._observer.is_alive()
        if alive and not (closely and self._watches() == 0):
            return None
        self.close()
        try:
            self._observer, self._root = self._started(inbox), root
        except OSError as error:
            self.polling = f"the kernel grants no more watches ({error.strerror or error})"
            return self._warn_once(
                inbox, "the folder is walked", "sysctl fs.inotify.max_user_watches, max_user_instances"
            )
        except RuntimeError as error:
            self.polling = f"the system grants no more threads ({error})"
            return self._warn_once(inbox, "the folder is walked", "TasksMax= of the service, or ulimit -u")
        return None

    @property
    def listening(self) -> bool:
        """Whether the kernel tells of all changes, as far as one can know."""
        return self._observer is not None and self.partial is None

    def compare(self, inbox: Inbox, folders: int, *, closely: bool) -> str | None:
        """After a walk that read so many folders: a warning the first time that not all of them are listened to.

        watchdog says nothing where the kernel refuses a watch on a subfolder. One that is new may get its watch yet;
        so only a number that stands still between two walks counts.
        """
        if not closely and self._fewer is None:
            return None
        before, self._fewer, self.partial = self._fewer, None, None
        watches = self._watches()
        if not watches or watches >= folders or inbox.follow_symlinks or not inbox.recursive:
            return None
        self._fewer = watches
        if watches != before:
            return None
        self.partial = f"the kernel grants watches on only {watches:,} of {folders:,} folders"
        return self._warn_once(inbox, "all are walked", "sysctl fs.inotify.max_user_watches, then restart the daemon")

    def _watches(self) -> int | None:
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
        reason = self.polling or self.partial
        return f"{reason}; {how} every {inbox.rescan_interval:g} s instead ({limits})"

    def close(self) -> None:
        """Stops listening."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
            self._observer = None
        self._fewer = self.partial = None

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog's thread: only takes a note."""
        self._hints.add(os.fsdecode(event.dest_path or event.src_path))

    def _started(self, inbox: Inbox) -> BaseObserver:
        logging.getLogger(_EMITTERS).addFilter(_is_news)
        observer = Observer()  # opens its inotify instance and starts a thread at once
        try:
            # realpath: watchdog hears nothing of a root that is itself a symbolic link
            observer.schedule(self, os.path.realpath(inbox.path), recursive=inbox.recursive, event_filter=_EVENTS)
            observer.start()
        except (OSError, RuntimeError):
            observer.stop()
            raise
        return observer

    def _unwanted(self, inbox: Inbox) -> str | None:
        """Why only walks can be trusted here, or are wanted."""
        if inbox.native is not None:
            return None if inbox.native else "observer: polling"
        mount = mount_of(inbox.path)
        if mount is None or not mount.network:
            return None
        return f"it lies on {mount.kind} at {mount.point}, where the kernel does not see what other machines do"


class _OverflowHandler(logging.Handler):
    """Turns watchdog's only word about lost events into a walk of everything."""

    def __init__(self, hints: _Hints) -> None:
        super().__init__(logging.WARNING)
        self._hints = hints

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - any warning of that logger means loss
        self._hints.add(None)


def _is_news(record: logging.LogRecord) -> bool:
    return "when the thread is inactive" not in record.msg


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _batches(found: Iterator[Sighting]) -> Iterator[list[Sighting]]:
    """The oldest first within each: a folder has its names in no order that people know."""
    while batch := list(islice(found, _BATCH)):
        yield sorted(batch, key=lambda sighting: (sighting.stamp.mtime_ns, sighting.relative))
