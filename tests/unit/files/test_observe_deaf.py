"""Where the kernel grants no watches: it is told once, nothing piles up, and the folder is walked all the same."""

import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from picwish_watchd.files.observe import Inbox, Walked, Watcher
from picwish_watchd.files.walk import NameFilter, Sighting

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_a_folder_that_cannot_be_listened_to_is_walked(limit: str, tmp_path: Path) -> None:
    # A user namespace has limits of its own, and this machine's others are left alone.
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-m", __name__, limit, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    if done.returncode and done.stderr.startswith("unshare"):
        pytest.skip(f"needs a user namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    warning, *later, found, left = done.stdout.splitlines()
    assert warning.startswith("the kernel grants no more watches (")
    assert "walked every 0.05 s instead" in warning
    assert later == ["None"] * 5
    assert (found, left) == ("a.jpg", "left over: 0 files, 0 threads")


def watch_without_watches(limit: str, folder: str) -> None:
    """Says what a watcher reports of some walks and what it has left open after them."""
    Path(f"/proc/sys/user/{limit}").write_text("0", "utf-8")
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    news: queue.Queue[list[Sighting] | Walked] = queue.Queue()
    inbox = Inbox("scans", Path(folder), NameFilter(["*.jpg"], []), True, False, True, 0.05)
    watcher = Watcher(inbox, [], lambda _rule, found: news.put(found))
    watcher.start()
    for _ in range(6):
        walked = news.get(timeout=20)
        assert isinstance(walked, Walked)
        print(walked.warning)
    Path(folder, "a.jpg").touch()
    while isinstance(found := news.get(timeout=20), Walked):
        pass
    print(found[0].relative)
    watcher.stop()
    watcher.join(20)
    files, threads = len(os.listdir("/proc/self/fd")) - files, threading.active_count() - threads
    print(f"left over: {files} files, {threads} threads")


if __name__ == "__main__":
    watch_without_watches(*sys.argv[1:])
