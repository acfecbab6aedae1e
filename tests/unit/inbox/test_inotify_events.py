"""The undocumented parts of watchdog that `inbox.inotify_events` uses.

If a test here fails after an update of watchdog, adapt that module before the new version is allowed in pyproject.toml.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, WatchDescriptor

from picwish_watchd.inbox.inotify_events import (
    EMITTER_LOGGER,
    count_watches,
    report_lost_events,
    start_observer,
)


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[BaseObserver]:
    (tmp_path / "inbox" / "sub").mkdir(parents=True)
    observer = start_observer(FileSystemEventHandler(), tmp_path / "inbox", recursive=True)
    yield observer
    observer.stop()
    observer.join(5)


def test_the_watches_of_an_observer_are_counted_until_its_root_is_gone(observer: BaseObserver, tmp_path: Path) -> None:
    assert count_watches(observer) == 2
    (tmp_path / "inbox" / "sub").rmdir()
    (tmp_path / "inbox").rmdir()
    assert count_watches(observer) == 0
    assert count_watches(None) is None


def test_a_queue_overflow_in_the_kernel_is_reported(observer: BaseObserver) -> None:
    calls: list[int] = []
    event = InotifyEvent(WatchDescriptor(-1), InotifyConstants.IN_Q_OVERFLOW, 0, b"")
    with report_lost_events(lambda: calls.append(1)):
        observer._inotify_fd.handle_event(event)  # type: ignore[attr-defined]
    observer._inotify_fd.handle_event(event)  # type: ignore[attr-defined]
    assert calls == [1]


def test_a_late_event_after_the_end_of_an_observer_is_not_logged(
    observer: BaseObserver, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    watch = ObservedWatch(str(tmp_path), recursive=False)
    emitter = InotifyEmitter(observer.event_queue, watch, inotify_fd=observer._inotify_fd)  # type: ignore[attr-defined]
    logger = logging.getLogger(EMITTER_LOGGER)
    filters, logger.filters = logger.filters, []
    emitter.queue_events(1.0)
    logger.filters = filters
    assert len(caplog.records) == 1
    emitter.queue_events(1.0)
    assert len(caplog.records) == 1
