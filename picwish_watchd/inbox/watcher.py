"""Watch an inbox: a thread per folder that scans it at once after an event, and in any case every ``rescan_interval``.

Events are only hints. watchdog silently stops reporting when a folder is renamed or unmounted, or has more subfolders
than the kernel grants watches, and it loses events in a burst. So nothing here takes a missing event for a missing
file. In a flood of files, events are not listened to at all until it is over: scans one after the other are then many
times cheaper.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from picwish_watchd.fs.mounts import AcceptedMount, Mount, canonical_mount_of
from picwish_watchd.inbox.event_listener import EventListener, ListenSettings, PendingEvents, device_and_inode
from picwish_watchd.inbox.inotify_events import report_lost_events
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen, FullScanTimer, InboxUnavailable, Scanner
from picwish_watchd.job import Stamp

#: Files per report.
_BATCH_SIZE = 500
#: Events between two scans from which on there is a flood: an event costs a hundred times as much as a scanned file.
_FLOOD_START = 1_000
#: New files per scan below which a flood is over.
_FLOOD_END = 100
#: Seconds between two scans in a flood.
_FLOOD_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Inbox:
    """What a watcher needs to know of a rule."""

    rule: str
    path: Path
    name_filter: NameFilter
    recursive: bool
    follow_symlinks: bool
    #: True: kernel events; False: scans alone; None: kernel events where they can be trusted.
    use_events: bool | None
    #: Seconds.
    rescan_interval: float
    #: Folders that no link may lead into.
    forbidden_folders: tuple[Path, ...] = ()
    #: Return why the files in this folder belong to another rule, or None; called from any thread.
    find_conflict: Callable[[], str | None] = lambda: None


@dataclass(frozen=True, slots=True)
class ScanReport:
    """The end of a scan."""

    rule: str
    #: Why the inbox could not be scanned to its end; None if it was.
    unavailable: str | None
    seconds: float
    #: News about how the folder is watched, for a person.
    warning: str | None = None
    #: Subfolders that could not be read, or in which a file could not.
    unreadable_folders: tuple[str, ...] = ()
    #: The mount that the inbox is on, if that is known.
    mount: Mount | None = None
    #: Why only scans find changes; None if kernel events do too.
    why_polling: str | None = None
    #: Where the path of the inbox leads when links are followed.
    real_path: str = ""
    #: Why kernel events come from some of the folders only; None if from all.
    why_partial: str | None = None
    #: Links in the inbox into folders that were scanned by another path.
    repeated_links: tuple[str, ...] = ()
    #: The value of `Watcher.rescan_count` whose requests this scan and those before it have answered.
    rescan_count: int = 0


ReportCallback = Callable[[str, "list[FileSeen] | ScanReport"], None]


class Watcher(threading.Thread):
    """Scan one inbox until stopped; report (rule, files seen) in batches, then (rule, `ScanReport`), for each scan.

    A scan that hangs in the kernel blocks this thread only.
    """

    def __init__(
        self, inbox: Inbox, known: Iterable[tuple[str, Stamp]], report: ReportCallback, mount: Mount | None = None
    ) -> None:
        """``known`` are paths below the inbox with their stamps; ``report`` is called in this thread.

        ``mount`` is the one that the inbox was last accepted on.
        """
        super().__init__(name=f"watch-{inbox.rule}", daemon=True)
        self.inbox = inbox
        #: The mount that the inbox was last accepted on. Any thread may set it at any time.
        self.mount = mount
        self._report = report
        self._scanner = Scanner(
            str(inbox.path),
            inbox.name_filter,
            recursive=inbox.recursive,
            follow_symlinks=inbox.follow_symlinks,
            forbidden=[os.fspath(folder) for folder in inbox.forbidden_folders],
        )
        self._scanner.load_known(known)
        self._pending_events = PendingEvents()
        self._listener = EventListener(
            ListenSettings(inbox.path, inbox.recursive, inbox.follow_symlinks, inbox.use_events, inbox.rescan_interval),
            self._pending_events,
        )
        self._stopping = threading.Event()
        self._forgotten: list[str] = []
        self._full_scan_timer = FullScanTimer(inbox.rescan_interval)
        # The next scan must look closely at every file.
        self._full_scan_owed = False
        # The next scan must check whether the kernel still sends events.
        self._listener_doubtful = False
        # Events are not listened to, and one scan follows the other.
        self._in_flood = False
        # Number of files that the last scan reported.
        self._seen_count = 0
        #: How often `rescan_file` was called.
        self.rescan_count = 0

    def request_scan(self, path: str | None = None) -> None:
        """Ask for a scan now, with a close look at the file at ``path``, or without one at all files. Any thread."""
        self._pending_events.add(path)

    def rescan_after_mount_change(self) -> None:
        """Ask for a scan now because mounts have changed; known files are not looked at closely. Any thread."""
        self._listener_doubtful = True
        self._pending_events.wake()

    def rescan_file(self, relative: str, path: str) -> None:
        """Ask for a scan now that takes the file at ``path`` for a new one. Only from one thread.

        ``relative`` is its path below the inbox.
        """
        self.forget_file(relative)
        self.request_scan(path)
        self.rescan_count += 1

    def forget_file(self, relative: str) -> None:
        """Forget a file, because the daemon has moved or deleted it. Any thread."""
        self._forgotten.append(relative)

    def stop(self) -> None:
        """End the thread after the scan in progress. Any thread."""
        self._stopping.set()
        self._pending_events.wake()

    def run(self) -> None:
        """Scan until stopped."""
        try:
            with report_lost_events(self._pending_events.add):
                while not self._stopping.is_set():
                    began = time.monotonic()
                    full = self._full_scan_timer.is_due(listening=self._listener.is_listening or self._in_flood)
                    self._scan(full=full)
                    spent = time.monotonic() - began
                    self._full_scan_timer.record_scan(spent if full else None)
                    self._wait(spent)
        finally:
            self._listener.close()

    def _wait(self, spent: float) -> None:
        """Wait for the next scan after one that took ``spent`` seconds."""
        # A stream of events must not turn into scanning without a pause.
        pause = max(5 * spent, _FLOOD_PAUSE if self._in_flood else 0.0)
        self._stopping.wait(min(pause, self.inbox.rescan_interval))
        if not self._stopping.is_set() and not self._in_flood:
            self._pending_events.wait(self.inbox.rescan_interval - 5 * spent)

    def _scan(self, *, full: bool) -> None:
        began = time.monotonic()
        # Read before the events are taken: each request that it counts is then among these.
        rescan_count = self.rescan_count
        # Each event is taken once, even if this scan fails.
        touched, everything = self._pending_events.take_all()
        flood_ended = self._update_flood(len(touched))
        self._full_scan_owed |= full or everything or flood_ended
        closely, self._listener_doubtful = self._full_scan_owed or self._listener_doubtful, False
        unavailable, warning = self._why_unavailable(), None
        if unavailable is None:
            unavailable, warning = self._listen_and_scan(touched, closely=closely)
        if unavailable is not None:
            self._listener.close()
        # While the inbox is unavailable, nothing reports a file that is changed in place.
        self._full_scan_owed = unavailable is not None
        report = ScanReport(
            self.inbox.rule,
            unavailable,
            time.monotonic() - began,
            warning,
            self._scanner.unreadable_folders,
            canonical_mount_of(self.inbox.path) if unavailable is None else None,
            self._listener.why_polling,
            os.path.realpath(self.inbox.path),
            self._listener.why_partial,
            self._scanner.repeated_links,
            rescan_count,
        )
        self._report(self.inbox.rule, report)

    def _update_flood(self, event_count: int) -> bool:
        """Decide whether there is a flood of files now; return whether one has just ended."""
        before = self._in_flood
        self._in_flood = event_count >= _FLOOD_START or (before and self._seen_count >= _FLOOD_END)
        self._seen_count = 0
        return before and not self._in_flood

    def _listen_and_scan(self, touched: Iterable[str], *, closely: bool) -> tuple[str | None, str | None]:
        """Return why the inbox could not be scanned, and a warning about the events; None for each that is well.

        Listening begins before the scan: a file that comes between the two is then seen by one of them.
        """
        warning = None
        if self._in_flood:
            self._listener.close()
        else:
            warning = self._listener.ensure_listening(closely=closely)
        unavailable = self._scan_and_report(touched)
        return unavailable, warning or self._listener.check_coverage(self._scanner.folder_count, closely=closely)

    def _scan_and_report(self, touched: Iterable[str]) -> str | None:
        """Scan and report; return why that could not be done to the end.

        What was seen after the inbox became unavailable is not reported: it may be in another folder.
        """
        while self._forgotten:
            self._scanner.forget_file(self._forgotten.pop())
        root = device_and_inode(self.inbox.path)

        def is_same_inbox() -> bool:
            return root is not None and device_and_inode(self.inbox.path) == root and self._why_unavailable() is None

        files = self._scanner.scan(self._relative_paths(touched), full=self._full_scan_owed, intact=is_same_inbox)
        if isinstance(files, InboxUnavailable):
            return files.reason
        for batch in _iter_batches(files):
            if (unavailable := self._why_unavailable()) is not None:
                for file in batch:
                    self._scanner.forget_file(file.relative)
                return unavailable
            self._seen_count += len(batch)
            self._report(self.inbox.rule, batch)
        return self._why_unavailable()

    def _why_unavailable(self) -> str | None:
        # A path that does not exist or cannot be read is reported by the scan, in its own words.
        if not os.path.exists(self.inbox.path):
            return None
        accepted = AcceptedMount(self.inbox.rule, self.mount)
        reason = accepted.why_elsewhere(self.inbox.path) or self.inbox.find_conflict()
        return reason and f"{self.inbox.path}: {reason}"

    def _relative_paths(self, touched: Iterable[str]) -> list[str]:
        roots = tuple({str(self.inbox.path) + "/", os.path.realpath(self.inbox.path) + "/"})
        return [next((path[len(root) :] for root in roots if path.startswith(root)), path) for path in touched]


def _iter_batches(files: Iterator[FileSeen]) -> Iterator[list[FileSeen]]:
    """Yield the files in batches, the oldest first within each: a folder lists its names in no useful order."""
    while batch := list(islice(files, _BATCH_SIZE)):
        yield sorted(batch, key=lambda file: (file.stamp.mtime_ns, file.relative))
