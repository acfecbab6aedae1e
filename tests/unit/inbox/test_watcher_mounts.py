"""An inbox whose mount disappears during a scan: its files are not reported as gone, files below it not as new."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.fs.mounts import canonical_mount_of
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.inbox.watcher import Inbox, ScanReport, Watcher
from tests.support.mounts import mount, temporary_mount, unmount
from tests.support.race_hooks import run_before_call

# Seconds.
TIMEOUT = 20.0


@pytest.fixture
def nas(tmp_path: Path) -> Iterator[Path]:
    """Bind ``disk`` to a mount point that has another file below it."""
    (tmp_path / "disk").mkdir()
    with temporary_mount(tmp_path / "nas") as folder:
        unmount(folder)
        (folder / "below.jpg").write_bytes(b"picture")
        mount(folder, tmp_path / "disk")
        yield folder


class MountWatcherProbe:
    """A watcher that scans on request, or with ``native`` on kernel events, and its reports."""

    def __init__(self, inbox: Path, *, native: bool = False) -> None:
        self.reports: queue.Queue[list[FileSeen] | ScanReport] = queue.Queue()
        settings = Inbox("scans", inbox, NameFilter(["*.jpg"], []), True, False, native, 600.0)
        self.watcher = Watcher(settings, [], lambda _rule, report: self.reports.put(report), canonical_mount_of(inbox))

    def scan(self) -> tuple[list[str], str | None]:
        """Return what a scan reports and why it failed; the first one starts without a request."""
        if self.watcher.is_alive():
            self.watcher.rescan_after_mount_change()
        else:
            self.watcher.start()
        return self.wait_for_scan()

    def wait_for_scan(self) -> tuple[list[str], str | None]:
        """Return the report of a scan that has already started."""
        names: list[str] = []
        while not isinstance(report := self.reports.get(timeout=TIMEOUT), ScanReport):
            names += [sighting.relative for sighting in report]
        return sorted(names), report.unavailable


@pytest.mark.parametrize("event", ["unmounted", "mounted over"])
def test_a_mount_lost_during_a_scan_forgets_no_file(
    nas: Path, tmp_path: Path, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (nas / name).write_bytes(b"picture")
    watched = MountWatcherProbe(nas)
    try:
        assert watched.scan() == (["a.jpg", "b.jpg"], None)
        with monkeypatch.context() as race:
            run_before_call(race, "open", lambda: unmount(nas) if event == "unmounted" else mount(nas))
            names, away = watched.scan()
        assert names == []
        assert away is not None
        assert "mount that again" in away
        if event == "unmounted":
            mount(nas, tmp_path / "disk")
        else:
            unmount(nas)
        (nas / "c.jpg").write_bytes(b"picture")
        assert watched.scan() == (["c.jpg"], None)
    finally:
        watched.watcher.stop()
        watched.watcher.join(TIMEOUT)


def test_an_inbox_on_another_mount_is_walked_on_request_without_spinning(nas: Path) -> None:
    watched = MountWatcherProbe(nas)
    try:
        assert watched.scan() == ([], None)
        unmount(nas)
        _, away = watched.scan()
        assert away is not None
        with pytest.raises(queue.Empty):
            watched.reports.get(timeout=0.3)
    finally:
        watched.watcher.stop()
        watched.watcher.join(TIMEOUT)


def test_a_remounted_inbox_is_observed_again(nas: Path) -> None:
    """A new tmpfs has the same device and inode as the old one; only the kernel's watch is gone."""
    mount(nas)
    watched = MountWatcherProbe(nas, native=True)
    try:
        assert watched.scan() == ([], None)
        unmount(nas)
        mount(nas)
        assert watched.scan() == ([], None)
        (nas / "a.jpg").write_bytes(b"picture")
        assert watched.wait_for_scan() == (["a.jpg"], None)
    finally:
        watched.watcher.stop()
        watched.watcher.join(TIMEOUT)
