"""Whether results can be put where they belong. Nothing is made by looking."""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.mounts import Mount
from picwish_watchd.outbox.availability import ensure_usable

# seconds for all folders together
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """An outbox, as the journal remembers it."""

    folder: Path
    mode: int
    #: it was written to before
    seen: bool
    #: the mount that it was last accepted on
    home: Mount | None
    #: bytes
    min_free: int


class Outboxes:
    """Looks at outboxes in a thread each. A mount that hangs keeps one thread, however often somebody asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[Path, _Look] = {}

    def trouble(self, places: Mapping[Path, Place]) -> dict[Path, str]:
        """Why folders cannot be used now, by folder; the others are well. Answers within a second or so."""
        looks = {folder: self._look(place) for folder, place in places.items()}
        until = time.monotonic() + _PATIENCE
        found = {}
        for folder, look in looks.items():
            look.join(max(0.0, until - time.monotonic()))
            told = "it does not answer; look after the server that it is mounted from" if look.is_alive() else look.told
            if told is not None:
                found[folder] = told
        return found

    def _look(self, place: Place) -> "_Look":
        with self._lock:
            look = self._under_way.get(place.folder)
            if look is None or not look.is_alive():
                look = self._under_way[place.folder] = _Look(place)
                look.start()
            return look


class _Look(threading.Thread):
    def __init__(self, place: Place) -> None:
        super().__init__(name=f"look-{place.folder}", daemon=True)
        self.told: str | None = None
        self._place = place

    def run(self) -> None:
        try:
            self.told = _trouble(self._place)
        except OSError as error:
            self.told = error.strerror or str(error)


def _trouble(place: Place) -> str | None:
    folder = place.folder
    if not place.seen and not os.path.isdir(folder):
        return None if os.path.isdir(folder.parent) else f"{folder.parent} is not there"
    found = ensure_usable(folder, place.mode, seen=True, mount=place.home, min_free=place.min_free)
    return None if found is None else found.reason
