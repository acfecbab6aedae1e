"""Whether results can be put where they belong. Nothing is made by looking."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.fs.mounts import AcceptedMount
from picwish_watchd.outbox.availability import describe_hang, find_write_problem

# seconds for all folders together
_PROBE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class KnownOutbox:
    """An outbox, as the journal remembers it."""

    folder: Path
    #: it was written to before
    is_known: bool
    #: the mount that it was last accepted on
    accepted: AcceptedMount
    #: bytes
    min_free: int


class OutboxProbe:
    """Looks at outboxes in a thread each. A mount that hangs keeps one thread, however often somebody asks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running_probes: dict[Path, _ProbeThread] = {}

    def find_unusable(self, places: Mapping[Path, KnownOutbox]) -> dict[Path, str]:
        """Why folders cannot be used now, by folder; the others are well. Answers within a second or so."""
        looks = {folder: self._start_probe(place) for folder, place in places.items()}
        until = time.monotonic() + _PROBE_TIMEOUT
        found = {}
        for folder, look in looks.items():
            look.join(max(0.0, until - time.monotonic()))
            told = describe_hang(_PROBE_TIMEOUT) if look.is_alive() else look.reason
            if told is not None:
                found[folder] = told
        return found

    def _start_probe(self, place: KnownOutbox) -> "_ProbeThread":
        with self._lock:
            look = self._running_probes.get(place.folder)
            if look is None or not look.is_alive():
                look = self._running_probes[place.folder] = _ProbeThread(place)
                look.start()
            return look


class _ProbeThread(threading.Thread):
    def __init__(self, place: KnownOutbox) -> None:
        super().__init__(name=f"look-{place.folder}", daemon=True)
        self.reason: str | None = None
        self._outbox = place

    def run(self) -> None:
        try:
            self.reason = _why_unusable(self._outbox)
        except OSError as error:
            self.reason = error.strerror or str(error)


def _why_unusable(outbox: KnownOutbox) -> str | None:
    problem = find_write_problem(outbox.folder, outbox.accepted, seen=outbox.is_known, min_free=outbox.min_free)
    return None if problem is None else problem.reason
