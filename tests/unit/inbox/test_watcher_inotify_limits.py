"""Where the kernel grants no more watches, that is logged once, nothing piles up, and the folder is still scanned."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import FileSeen
from picwish_watchd.inbox.watcher import Inbox, ScanReport, Watcher

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_a_folder_without_inotify_is_polled(limit: str, tmp_path: Path) -> None:
    warning, *later, file, leftovers = run_with_inotify_limit(limit, 0, tmp_path)
    assert warning.startswith("the kernel grants no more watches (")
    assert "scanned every 0.05 s instead" in warning
    assert later == ["None"] * 5
    assert (file, leftovers) == ("a.jpg", "left over: 0 files, 0 threads")


def test_a_folder_with_too_few_inotify_watches_is_reported_and_polled(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / str(number)).mkdir()
    first, warning, *later, file, leftovers = run_with_inotify_limit("max_inotify_watches", 4, tmp_path)
    # A watch may be about to be added.
    assert first == "None"
    assert warning == (
        "the kernel grants watches on only 4 of 10 folders; all are scanned every 0.05 s instead "
        "(sysctl fs.inotify.max_user_watches, then restart the daemon)"
    )
    assert later == ["None"] * 4
    assert (file, leftovers) == ("a.jpg", "left over: 0 files, 0 threads")


def run_with_inotify_limit(limit: str, granted: int, folder: Path) -> list[str]:
    """Run in a user namespace with limits of its own; those of this machine stay as they are."""
    program = [sys.executable, "-m", __name__, limit, str(granted), str(folder)]
    command = ["unshare", "--user", "--map-root-user", *program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    if process.returncode and process.stderr.startswith("unshare"):
        pytest.skip(f"needs a user namespace: {process.stderr.strip()}")
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def watch_with_few_watches(limit: str, granted: str, folder: str) -> None:
    """Print what a watcher reports in some scans and what it has left open after them."""
    Path(f"/proc/sys/user/{limit}").write_text(granted, "utf-8")
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    reports: queue.Queue[list[FileSeen] | ScanReport] = queue.Queue()
    inbox = Inbox("scans", Path(folder), NameFilter(["*.jpg"], []), True, False, True, 0.05)
    watcher = Watcher(inbox, [], lambda _rule, report: reports.put(report))
    watcher.start()
    for _ in range(6):
        scan = reports.get(timeout=20)
        assert isinstance(scan, ScanReport)
        print(scan.warning)
    Path(folder, "a.jpg").touch()
    while isinstance(report := reports.get(timeout=20), ScanReport):
        pass
    print(report[0].relative)
    watcher.stop()
    watcher.join(20)
    files, threads = len(os.listdir("/proc/self/fd")) - files, threading.active_count() - threads
    print(f"left over: {files} files, {threads} threads")


if __name__ == "__main__":
    watch_with_few_watches(*sys.argv[1:])
