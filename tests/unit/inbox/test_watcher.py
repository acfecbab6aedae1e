"""Watching: a file is reported however it arrives, at once where the kernel reports it, else with the next scan."""

import logging
import os
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from watchdog.observers.api import BaseObserver

from picwish_watchd.fs import mounts
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.inbox.watcher import Inbox, ScanReport, Watcher
from picwish_watchd.job import Stamp

# watchdog warns in its reader thread of a folder that it saw twice while a tree arrived; pytest would turn the warning
# into an error that ends the thread.

# Seconds.
NEVER, DEADLINE = 600.0, 20.0
OVERFLOW = logging.getLogger("watchdog.observers.inotify_c")


class WatcherProbe:
    """A watcher and its reports."""

    def __init__(self, path: Path, known: list[tuple[str, Stamp]], settings: dict[str, Any]) -> None:
        self.reports: queue.Queue[list[FileSeen] | ScanReport] = queue.Queue()
        # While this event is cleared, the watcher blocks after its next report.
        self.gate = threading.Event()
        self.gate.set()
        usual: dict[str, Any] = {
            "rule": "scans",
            "path": path,
            "name_filter": NameFilter(["*.jpg"], []),
            "recursive": True,
            "follow_symlinks": False,
            "use_events": True,
            "rescan_interval": NEVER,
        }
        self.watcher = Watcher(Inbox(**{**usual, **settings}), known, self._report)
        self.watcher.start()

    def _report(self, rule: str, report: list[FileSeen] | ScanReport) -> None:
        assert rule == "scans"
        assert threading.current_thread() is self.watcher
        self.reports.put(report)
        self.gate.wait(DEADLINE)

    def wait_for_files(self, *names: str) -> list[str]:
        """Wait until all these names were reported; return all reported names."""
        found: list[str] = []
        while not set(names) <= set(found):
            report = self._next_report()
            if not isinstance(report, ScanReport):
                found += [sighting.relative for sighting in report]
        return found

    def wait_for_scan(self) -> ScanReport:
        """Wait for the end of the next scan."""
        while not isinstance(report := self._next_report(), ScanReport):
            pass
        return report

    def wait_until_idle(self) -> None:
        """Wait until all requested scans have ended."""
        marker = f"marker-{time.monotonic_ns()}.jpg"
        (self.watcher.inbox.path / marker).touch()
        self.watcher.request_scan()
        self.wait_for_files(marker)
        self.wait_for_scan()

    def _next_report(self) -> list[FileSeen] | ScanReport:
        return self.reports.get(timeout=DEADLINE)


Start = Callable[..., WatcherProbe]


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def start_watcher(inbox: Path) -> Iterator[Start]:
    """Return a function that starts a watcher of `inbox` or of another folder."""
    started: list[WatcherProbe] = []

    def watch(path: Path = inbox, known: list[tuple[str, Stamp]] | None = None, **settings: Any) -> WatcherProbe:
        started.append(WatcherProbe(path, known or [], settings))
        return started[-1]

    yield watch
    for each in started:
        each.watcher.stop()
        each.watcher.join(DEADLINE)
        assert not each.watcher.is_alive()
    assert _observer_threads() == []


def _observer_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if type(thread).__module__.startswith("watchdog")]


def test_the_first_scan_reports_existing_files_but_no_known_ones(inbox: Path, start_watcher: Start) -> None:
    (inbox / "a.jpg").touch()
    (inbox / "b.jpg").touch()
    status = (inbox / "b.jpg").stat()
    watched = start_watcher(known=[("b.jpg", Stamp(status.st_ino, 0, status.st_mtime_ns))])
    assert watched.wait_for_files("a.jpg") == ["a.jpg"]
    scan = watched.wait_for_scan()
    assert (scan.rule, scan.unavailable, scan.warning) == ("scans", None, None)
    assert scan.seconds > 0


def test_one_scans_files_are_reported_by_age_in_any_folder_order(inbox: Path, start_watcher: Start) -> None:
    names = [f"{number * 17 % 40}.jpg" for number in range(40)]
    for number, name in enumerate(names):
        (inbox / name).touch()
        os.utime(inbox / name, ns=(0, 10**9 + number))
    for name in ("b.jpg", "a.jpg"):
        (inbox / name).touch()
        os.utime(inbox / name, ns=(0, 10**9 + 100))
    assert start_watcher().wait_for_files(*names, "a.jpg", "b.jpg") == [*names, "a.jpg", "b.jpg"]


def test_a_file_is_reported_when_it_is_written_or_moved_in(inbox: Path, start_watcher: Start) -> None:
    watched = start_watcher()
    watched.wait_for_scan()
    (inbox / "new.jpg").write_bytes(b"picture")
    watched.wait_for_files("new.jpg")
    (inbox.parent / "moved.jpg").write_bytes(b"picture")
    os.rename(inbox.parent / "moved.jpg", inbox / "moved.jpg")
    watched.wait_for_files("moved.jpg")
    (inbox / "late.part").write_bytes(b"picture")
    os.rename(inbox / "late.part", inbox / "late.jpg")
    watched.wait_for_files("late.jpg")


def test_a_file_changed_in_place_is_reported_again(inbox: Path, start_watcher: Start) -> None:
    (inbox / "a.jpg").write_bytes(b"picture")
    watched = start_watcher()
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    (inbox / "a.jpg").write_bytes(b"another picture")
    assert set(watched.wait_for_files("a.jpg")) == {"a.jpg"}


def test_whole_trees_are_reported_however_they_come(inbox: Path, start_watcher: Start) -> None:
    names = [f"{folder}/{number}.jpg" for folder in ("one", "one/two", "one/two/three") for number in range(20)]
    for name in names:
        (inbox.parent / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox.parent / "tree" / name).touch()
    watched = start_watcher(rescan_interval=1.0)
    watched.wait_for_scan()
    subprocess.run(["cp", "-r", inbox.parent / "tree", inbox / "copied"], check=True)
    os.rename(inbox.parent / "tree", inbox / "moved")
    watched.wait_for_files(*(f"{tree}/{name}" for tree in ("copied", "moved") for name in names))
    (inbox / "moved" / "one" / "two" / "later.jpg").touch()
    watched.wait_for_files("moved/one/two/later.jpg")


def test_an_inbox_that_is_missing_at_the_start_is_taken_up_when_it_comes(inbox: Path, start_watcher: Start) -> None:
    inbox.rmdir()
    watched = start_watcher(rescan_interval=0.05)
    assert watched.wait_for_scan().unavailable == f"{inbox}: No such file or directory"
    inbox.mkdir()
    (inbox / "a.jpg").touch()
    watched.wait_for_files("a.jpg")
    assert watched.wait_for_scan().unavailable is None


def test_an_inbox_deleted_and_created_again_is_watched_again(inbox: Path, start_watcher: Start) -> None:
    watched = start_watcher(rescan_interval=0.1)
    watched.wait_for_scan()
    shutil.rmtree(inbox)
    while watched.wait_for_scan().unavailable is None:
        pass
    inbox.mkdir()
    (inbox / "a.jpg").touch()
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    (inbox / "b.jpg").touch()
    watched.wait_for_files("b.jpg")


def test_a_replaced_inbox_is_observed_again_after_one_scan(inbox: Path, start_watcher: Start) -> None:
    watched = start_watcher()
    watched.wait_for_scan()
    os.rename(inbox, inbox.parent / "elsewhere")
    inbox.mkdir()
    watched.wait_until_idle()
    (inbox / "a.jpg").touch()
    watched.wait_for_files("a.jpg")


def test_an_inbox_that_is_a_link_is_observed(inbox: Path, start_watcher: Start) -> None:
    (inbox.parent / "link").symlink_to("inbox")
    watched = start_watcher(inbox.parent / "link")
    watched.wait_for_scan()
    (inbox / "a.jpg").write_bytes(b"picture")
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    watched.wait_until_idle()
    (inbox / "a.jpg").write_bytes(b"another picture")
    watched.wait_for_files("a.jpg")


def test_an_observer_whose_thread_has_died_is_replaced_at_the_next_scan(inbox: Path, start_watcher: Start) -> None:
    watched = start_watcher()
    watched.wait_for_scan()
    dead = [thread for thread in _observer_threads() if isinstance(thread, BaseObserver)]
    for observer in dead:
        observer.stop()
        observer.join(DEADLINE)
    watched.wait_until_idle()
    (inbox / "a.jpg").touch()
    watched.wait_for_files("a.jpg")
    assert not set(dead) & set(_observer_threads())


def test_a_hint_triggers_a_full_scan_at_once(inbox: Path, start_watcher: Start) -> None:
    for name in ("a.jpg", "b.jpg"):
        (inbox / name).write_bytes(b"picture")
    watched = start_watcher(use_events=False)
    watched.wait_for_files("a.jpg", "b.jpg")
    watched.wait_for_scan()
    for name in ("a.jpg", "b.jpg"):
        (inbox / name).write_bytes(b"another picture")
    watched.watcher.request_scan(str(inbox / "a.jpg"))
    # Without events the whole folder is scanned.
    assert sorted(watched.wait_for_files("a.jpg", "b.jpg")) == ["a.jpg", "b.jpg"]
    (inbox / "a.jpg").write_bytes(b"a third picture, longer")
    watched.watcher.request_scan("a.jpg")
    assert watched.wait_for_files("a.jpg") == ["a.jpg"]


def test_a_forgotten_file_is_reported_again(inbox: Path, start_watcher: Start) -> None:
    (inbox / "a.jpg").touch()
    watched = start_watcher(use_events=False)
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    watched.watcher.forget_file("a.jpg")
    watched.watcher.request_scan("a.jpg")
    watched.wait_for_files("a.jpg")


def test_too_many_hints_trigger_a_full_scan(inbox: Path, start_watcher: Start) -> None:
    (inbox / "a.jpg").touch()
    watched = start_watcher(use_events=False)
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    watched.gate.clear()
    watched.watcher.request_scan("other.jpg")
    watched.wait_for_scan()
    (inbox / "a.jpg").write_bytes(b"changed in place")
    for number in range(10_001):
        watched.watcher.request_scan(f"other-{number}.jpg")
    watched.gate.set()
    watched.wait_for_files("a.jpg")


def test_a_flood_pauses_the_observer_and_loses_no_change(inbox: Path, start_watcher: Start) -> None:
    (inbox / "a.jpg").touch()
    watched = start_watcher()
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    watched.gate.clear()
    watched.watcher.request_scan("other.jpg")
    watched.wait_for_scan()
    for number in range(1_000):
        watched.watcher.request_scan(f"other-{number}.jpg")
    watched.gate.set()
    watched.wait_for_scan()
    assert _observer_threads() == []
    (inbox / "a.jpg").write_bytes(b"changed in place, and known")
    watched.wait_for_files("a.jpg")
    assert _observer_threads()
    watched.wait_for_scan()
    (inbox / "a.jpg").write_bytes(b"changed in place once more, and heard")
    watched.wait_for_files("a.jpg")


def test_lost_inotify_events_trigger_a_full_scan(inbox: Path, start_watcher: Start) -> None:
    (inbox / "a.jpg").touch()
    watched = start_watcher(use_events=False)
    watched.wait_for_files("a.jpg")
    watched.wait_for_scan()
    (inbox / "a.jpg").write_bytes(b"changed in place")
    OVERFLOW.warning("Inotify queue overflowed; filesystem events were lost")
    watched.wait_for_files("a.jpg")


def test_a_late_event_after_the_observer_ended_is_no_error(
    inbox: Path, start_watcher: Start, caplog: pytest.LogCaptureFixture
) -> None:
    start_watcher().wait_for_scan()
    emitters = logging.getLogger("watchdog.observers.inotify")
    emitters.error("InotifyEmitter.queue_events() called when the thread is inactive")
    emitters.error("Unable to rebuild recursive inotify watches below %r", inbox)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_network_folder_is_polled_and_not_observed(
    inbox: Path, start_watcher: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / {tmp_path} rw - nfs4 b rw\n", "utf-8")
    monkeypatch.setattr(mounts, "MOUNTINFO", table)
    watched = start_watcher(use_events=None, rescan_interval=0.05)
    watched.wait_for_scan()
    (inbox / "a.jpg").touch()
    watched.wait_for_files("a.jpg")
    assert _observer_threads() == []
    table.write_text("1 0 8:1 / / rw - ext4 a rw\n", "utf-8")
    watched.wait_until_idle()
    assert _observer_threads() != []


def test_many_files_come_in_batches(inbox: Path, start_watcher: Start) -> None:
    for number in range(1201):
        (inbox / f"{number}.jpg").touch()
    watched = start_watcher(use_events=False)
    sizes = []
    while not isinstance(report := watched.reports.get(timeout=DEADLINE), ScanReport):
        sizes.append(len(report))
    assert sizes == [500, 500, 201]


def test_stop_ends_the_thread_and_all_that_it_started(inbox: Path, start_watcher: Start) -> None:
    watched = start_watcher()
    watched.wait_for_scan()
    assert _observer_threads() != []
    assert OVERFLOW.handlers
    watched.watcher.stop()
    watched.watcher.join(DEADLINE)
    assert not watched.watcher.is_alive()
    assert _observer_threads() == []
    assert OVERFLOW.handlers == []
