"""An inbox whose mount goes away during a walk: nothing that lies on it counts as gone, nothing below it as seen."""

import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from picwish_watchd.fs.mounts import home_of
from picwish_watchd.inbox.name_filter import NameFilter
from picwish_watchd.inbox.scanner import Sighting
from picwish_watchd.inbox.watcher import Inbox, Walked, Watcher
from tests.support.mounting import mount, mounted, umount
from tests.support.races import before

DEADLINE = 20.0  # seconds


@pytest.fixture
def nas(tmp_path: Path) -> Iterator[Path]:
    """``disk`` bound to a mount point; another file lies below it."""
    (tmp_path / "disk").mkdir()
    with mounted(tmp_path / "nas") as folder:
        umount(folder)
        (folder / "below.jpg").write_bytes(b"picture")
        mount(folder, tmp_path / "disk")
        yield folder


class Watched:
    """A watcher that walks when told, or with ``native`` by itself when the kernel tells, and what it reports."""

    def __init__(self, inbox: Path, *, native: bool = False) -> None:
        self.news: queue.Queue[list[Sighting] | Walked] = queue.Queue()
        settings = Inbox("scans", inbox, NameFilter(["*.jpg"], []), True, False, native, 600.0)
        self.watcher = Watcher(settings, [], lambda _rule, news: self.news.put(news), home_of(inbox))

    def walk(self) -> tuple[list[str], str | None]:
        """What a walk sees, and why it could not be done; the first one comes by itself."""
        if self.watcher.is_alive():
            self.watcher.walk_now()
        else:
            self.watcher.start()
        return self.walked()

    def walked(self) -> tuple[list[str], str | None]:
        """The same of a walk that was begun already."""
        seen: list[str] = []
        while not isinstance(news := self.news.get(timeout=DEADLINE), Walked):
            seen += [sighting.relative for sighting in news]
        return sorted(seen), news.away


@pytest.mark.parametrize("event", ["unmounted", "mounted over"])
def test_a_mount_that_goes_during_a_walk_takes_nothing_with_it(
    nas: Path, tmp_path: Path, event: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (nas / name).write_bytes(b"picture")
    watched = Watched(nas)
    try:
        assert watched.walk() == (["a.jpg", "b.jpg"], None)
        with monkeypatch.context() as race:
            before(race, "open", lambda: umount(nas) if event == "unmounted" else mount(nas))
            seen, away = watched.walk()
        assert seen == []
        assert away is not None
        assert "mount that again" in away
        if event == "unmounted":
            mount(nas, tmp_path / "disk")
        else:
            umount(nas)
        (nas / "c.jpg").write_bytes(b"picture")
        assert watched.walk() == (["c.jpg"], None)
    finally:
        watched.watcher.stop()
        watched.watcher.join(DEADLINE)


def test_an_inbox_on_another_mount_is_looked_at_when_told_and_not_without_pause(nas: Path) -> None:
    watched = Watched(nas)
    try:
        assert watched.walk() == ([], None)
        umount(nas)
        _, away = watched.walk()
        assert away is not None
        with pytest.raises(queue.Empty):
            watched.news.get(timeout=0.3)
    finally:
        watched.watcher.stop()
        watched.watcher.join(DEADLINE)


def test_an_inbox_is_heard_again_after_its_file_system_was_unmounted_and_mounted_between_two_walks(nas: Path) -> None:
    """A tmpfs has the same device and inode as the one before it, as a disk has: only the kernel's watch is gone."""
    mount(nas)
    watched = Watched(nas, native=True)
    try:
        assert watched.walk() == ([], None)
        umount(nas)
        mount(nas)
        assert watched.walk() == ([], None)
        (nas / "a.jpg").write_bytes(b"picture")
        assert watched.walked() == (["a.jpg"], None)
    finally:
        watched.watcher.stop()
        watched.watcher.join(DEADLINE)
