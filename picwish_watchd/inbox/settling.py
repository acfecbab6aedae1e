"""Wait until a file has not changed for long enough to be validated. Does no input or output.

The wait starts when the file is first seen with its present stamp (inode, size, modification time). It does not start
at the modification time, because the clock of a server may be wrong. Times are monotonic seconds.
"""

import heapq
from dataclasses import dataclass

from picwish_watchd.job import Stamp

#: Shortest pause in seconds between the first two checks; `settle` if that is longer.
_PAUSE_MIN = 0.5
#: Seconds between two checks at most, unless `settle` is longer.
_PAUSE_MAX = 60.0


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """A file to validate now. If its stamp has changed, pass the new one to `record_sighting` instead.

    ``decode`` is True once `settle_timeout` has passed since its last change: then a full decode decides.
    """

    relative: str
    stamp: Stamp
    decode: bool


@dataclass(slots=True)
class _Candidate:
    stamp: Stamp
    changed_at: float
    # Seconds from this check to the next.
    pause: float
    # None while the file is with the caller of `pop_ready`.
    due_at: float | None


class SettleTracker:
    """The candidates of one rule, by their paths below its inbox.

    A file that `pop_ready` returned is not returned again until it is seen with a new stamp, postponed, or removed and
    seen again. Every call costs O(log n). For one thread at a time.
    """

    def __init__(self, settle: float, settle_timeout: float) -> None:
        self._settle = settle
        self._timeout = max(settle, settle_timeout)
        self._candidates: dict[str, _Candidate] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._push_count = 0

    def __len__(self) -> int:
        return len(self._candidates)

    def __contains__(self, relative: str) -> bool:
        return relative in self._candidates

    def record_sighting(self, relative: str, stamp: Stamp, now: float) -> bool:
        """Record that the file was seen with this stamp; return whether the stamp is new, which restarts the wait."""
        known = self._candidates.get(relative)
        if known is not None and known.stamp == stamp:
            return False
        pause = max(self._settle, _PAUSE_MIN)
        candidate = _Candidate(stamp, changed_at=now, pause=pause, due_at=None)
        self._candidates[relative] = candidate
        self._schedule(relative, candidate, now + self._settle)
        return True

    def pop_ready(self, now: float, limit: int | None = None) -> list[ReadyFile]:
        """Return the files that are due for a check, the longest waiting first, at most ``limit`` of them."""
        ready: list[ReadyFile] = []
        while (limit is None or len(ready) < limit) and (at := self.next_ready_at()) is not None and at <= now:
            relative = heapq.heappop(self._heap)[2]
            candidate = self._candidates[relative]
            candidate.due_at = None
            decode = now - candidate.changed_at >= self._timeout
            ready.append(ReadyFile(relative, candidate.stamp, decode))
        return ready

    def postpone(self, relative: str, now: float) -> None:
        """Postpone a file that is incomplete or unreadable. The pause doubles, up to a minute.

        No pause skips `settle_timeout`: a check is made then. An unknown file is ignored.
        """
        candidate = self._candidates.get(relative)
        if candidate is None:
            return
        at = now + candidate.pause
        deadline = candidate.changed_at + self._timeout
        candidate.pause = min(candidate.pause * 2, max(self._settle, _PAUSE_MAX))
        self._schedule(relative, candidate, min(at, deadline) if now < deadline else at)

    def retry_later(self, file: ReadyFile, now: float) -> None:
        """Check a file again after a pause because its verdict could not be written to the journal."""
        if file.relative not in self._candidates:
            self.record_sighting(file.relative, file.stamp, now)
        elif self._candidates[file.relative].due_at is None:
            self.postpone(file.relative, now)

    def remove(self, relative: str, stamp: Stamp) -> None:
        """Remove a file that became a job or is gone, unless it was seen with another stamp since."""
        candidate = self._candidates.get(relative)
        if candidate is not None and candidate.stamp == stamp:
            del self._candidates[relative]

    def next_ready_at(self) -> float | None:
        """Return when `pop_ready` will next return a file; None while none waits."""
        while self._heap:
            at, _, relative = self._heap[0]
            candidate = self._candidates.get(relative)
            if candidate is not None and candidate.due_at == at:
                return at
            heapq.heappop(self._heap)
        return None

    def _schedule(self, relative: str, candidate: _Candidate, at: float) -> None:
        candidate.due_at = at
        self._push_count += 1
        heapq.heappush(self._heap, (at, self._push_count, relative))
        if len(self._heap) > 2 * len(self._candidates) + 64:
            self._heap = [entry for entry in self._heap if self._is_scheduled(entry)]
            heapq.heapify(self._heap)

    def _is_scheduled(self, entry: tuple[float, int, str]) -> bool:
        candidate = self._candidates.get(entry[2])
        return candidate is not None and candidate.due_at == entry[0]
