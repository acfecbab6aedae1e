"""Everything that is used of the watchdog library beyond its documented interface.

watchdog reports neither how many folders the kernel watches, nor lost events, nor a late event after its end, other
than in private attributes and log messages. ``tests/unit/inbox/test_inotify_events.py`` fails when these change.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

#: The narrowest filter that still reports a file moved into the folder, which comes as FileCreatedEvent.
_EVENT_TYPES: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
#: Where watchdog >= 7.1 logs a warning when the kernel has dropped events. It has no other sign of that.
OVERFLOW_LOGGER = "watchdog.observers.inotify_c"
#: Where watchdog logs an error if an event comes while it is being closed.
EMITTER_LOGGER = "watchdog.observers.inotify"
_LATE_EVENT_MESSAGE = "when the thread is inactive"


def start_observer(handler: FileSystemEventHandler, folder: Path, *, recursive: bool) -> BaseObserver:
    """Start to pass the kernel's events for ``folder`` to ``handler``, in a thread of the observer.

    Raises OSError where the kernel grants no inotify instance or watch, and RuntimeError where it grants no thread.
    """
    logging.getLogger(EMITTER_LOGGER).addFilter(_is_relevant)
    # The constructor opens an inotify instance and starts a thread.
    observer = Observer()
    try:
        # watchdog gets no events for a root that is itself a symbolic link.
        observer.schedule(handler, os.path.realpath(folder), recursive=recursive, event_filter=_EVENT_TYPES)
        observer.start()
    except (OSError, RuntimeError):
        observer.stop()
        raise
    return observer


def count_watches(observer: BaseObserver | None) -> int | None:
    """Return how many folders the kernel watches for ``observer``; None if that is not known.

    It is 0 if the root is not watched any more, as after an unmount. The kernel's own list is read (proc(5): fdinfo);
    the first watch of an observer in it is that of its root.
    """
    fd = getattr(getattr(observer, "_inotify_fd", None), "_inotify_fd", None)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            is_root = [line.startswith("inotify wd:1 ") for line in file if line.startswith("inotify wd:")]
    except OSError:
        return None
    return len(is_root) if any(is_root) else 0


@contextmanager
def report_lost_events(callback: Callable[[], None]) -> Iterator[None]:
    """Call ``callback``, from any thread, whenever watchdog logs that the kernel has dropped events."""
    handler = _OverflowHandler(callback)
    logging.getLogger(OVERFLOW_LOGGER).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(OVERFLOW_LOGGER).removeHandler(handler)


class _OverflowHandler(logging.Handler):
    def __init__(self, callback: Callable[[], None]) -> None:
        super().__init__(logging.WARNING)
        self._callback = callback

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - any warning of that logger means loss
        self._callback()


def _is_relevant(record: logging.LogRecord) -> bool:
    return _LATE_EVENT_MESSAGE not in record.msg
