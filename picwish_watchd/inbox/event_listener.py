"""Listen to the kernel's file events in an inbox, and say where that cannot be done."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver

from picwish_watchd.fs.mounts import mount_of
from picwish_watchd.inbox.inotify_events import count_watches, start_observer

#: Paths that are remembered at most; with more, the next scan looks closely at every file.
_MAX_PENDING_PATHS = 10_000


class PendingEvents:
    """Paths of the events since the last scan, and a flag that wakes the scanning thread. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flag = threading.Event()
        self._touched: set[str] = set()
        self._everything = False

    def add(self, path: str | None = None) -> None:
        """Remember a path, or without one that any file may have changed; wake the scanning thread."""
        with self._lock:
            if path is None or len(self._touched) >= _MAX_PENDING_PATHS:
                self._everything = True
            else:
                self._touched.add(path)
        self._flag.set()

    def wake(self) -> None:
        """Wake the scanning thread."""
        self._flag.set()

    def take_all(self) -> tuple[set[str], bool]:
        """Return the remembered paths and whether any file may have changed, and forget both."""
        with self._lock:
            self._flag.clear()
            touched, everything = self._touched, self._everything
            self._touched, self._everything = set(), False
        return touched, everything

    def wait(self, timeout: float) -> None:
        """Wait until woken, at most ``timeout`` seconds."""
        self._flag.wait(max(0.0, timeout))


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where to listen, and how."""

    path: Path
    recursive: bool
    follow_symlinks: bool
    #: True: listen to kernel events; False: do not; None: only on file systems where they are complete.
    use_events: bool | None
    #: Seconds between two scans; only for messages.
    rescan_interval: float


class EventListener(FileSystemEventHandler):
    """The kernel's file events of one inbox, for as long as the kernel sends them."""

    def __init__(self, settings: ListenSettings, pending_events: PendingEvents) -> None:
        self._settings = settings
        self._pending_events = pending_events
        self._observer: BaseObserver | None = None
        self._root: tuple[int, int] | None = None
        self._has_warned = False
        # The number of watches after the last scan, if that was less than the number of folders.
        self._partial_watches: int | None = None
        #: Why no events are listened to; None if they are.
        self.why_polling: str | None = None
        #: Why events are listened to in some of the folders only; None if in all.
        self.why_partial: str | None = None

    def ensure_listening(self, *, closely: bool) -> str | None:
        """Listen to the folder that is at the path now; return a warning the first time that this fails.

        ``closely``: ask the kernel whether it still watches, which takes some microseconds a folder.
        """
        root = device_and_inode(self._settings.path)
        self.why_polling = self._find_polling_reason()
        if root is None or self.why_polling is not None:
            self.close()
            return None
        alive = self._observer is not None and root == self._root and self._observer.is_alive()
        if alive and not (closely and count_watches(self._observer) == 0):
            return None
        self.close()
        try:
            self._observer = start_observer(self, self._settings.path, recursive=self._settings.recursive)
            self._root = root
        except OSError as error:
            self.why_polling = f"the kernel grants no more watches ({error.strerror or error})"
            return self._warn_once("the folder is scanned", "sysctl fs.inotify.max_user_watches, max_user_instances")
        except RuntimeError as error:
            self.why_polling = f"the system grants no more threads ({error})"
            return self._warn_once("the folder is scanned", "TasksMax= of the service, or ulimit -u")
        return None

    @property
    def is_listening(self) -> bool:
        """Whether the kernel reports all changes, as far as that can be known."""
        return self._observer is not None and self.why_partial is None

    def check_coverage(self, folder_count: int, *, closely: bool) -> str | None:
        """Compare the watches with the folders of the last scan; return a warning the first time that some are missing.

        watchdog does not report it if the kernel refuses a watch on a subfolder. A new subfolder may get its watch a
        moment later, so only a number that is the same after two scans counts.
        """
        if not closely and self._partial_watches is None:
            return None
        before, self._partial_watches, self.why_partial = self._partial_watches, None, None
        watches = count_watches(self._observer)
        has_one_watch_per_folder = self._settings.recursive and not self._settings.follow_symlinks
        if not watches or watches >= folder_count or not has_one_watch_per_folder:
            return None
        self._partial_watches = watches
        if watches != before:
            return None
        self.why_partial = f"the kernel grants watches on only {watches:,} of {folder_count:,} folders"
        return self._warn_once("all are scanned", "sysctl fs.inotify.max_user_watches, then restart the daemon")

    def _warn_once(self, consequence: str, limits: str) -> str | None:
        if self._has_warned:
            return None
        self._has_warned = True
        reason = self.why_polling or self.why_partial
        return f"{reason}; {consequence} every {self._settings.rescan_interval:g} s instead ({limits})"

    def close(self) -> None:
        """Stop listening; `ensure_listening` may be called again afterwards."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(5)
            self._observer = None
        self._partial_watches = self.why_partial = None

    def dispatch(self, event: FileSystemEvent) -> None:
        """Remember the path of an event; called by watchdog's thread."""
        self._pending_events.add(os.fsdecode(event.dest_path or event.src_path))

    def _find_polling_reason(self) -> str | None:
        """Return why only scans can be trusted here, or are asked for; None if events can be used."""
        if self._settings.use_events is not None:
            return None if self._settings.use_events else "observer: polling"
        mount = mount_of(self._settings.path)
        if mount is None or not mount.is_network:
            return None
        return f"it is on {mount.kind} at {mount.point}, where the kernel does not see what other machines do"


def device_and_inode(path: Path) -> tuple[int, int] | None:
    """Return st_dev and st_ino of ``path``, or None if they cannot be read."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
