"""Which files have stood still long enough to be looked at. Pure: it is told what was seen, and when.

A file counts from the moment when it was first seen in its present shape (inode, size, time of change); its own clock
is not asked, for it may be a server's and wrong. Times are monotonic seconds.
"""

import heapq
from dataclasses import dataclass

from picwish_watchd.job import Stamp

# seconds until the second look, if settle is shorter
_PAUSE_MIN = 0.5
_PAUSE_MAX = 60.0


@dataclass(frozen=True, slots=True)
class ReadyFile:
    """A file to look at now: stat it, tell `Settling.see`, and inspect it if it still has this stamp.

    ``decode`` is set once `settle_timeout` has passed since its last change: a full decode decides.
    """

    relative: str
    stamp: Stamp
    decode: bool


@dataclass(slots=True)
class _Candidate:
    stamp: Stamp
    changed_at: float
    # between this look and the next
    pause: float
    # None: handed out, and not yet put back
    due_at: float | None


class SettleTracker:
    """The candidates of one rule, by their paths below its inbox.

    Every call costs O(log n); used by one thread at a time.

    A file that `due` has answered is in the caller's hands until it is seen changed, put back by `not_yet`, or
    forgotten.
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
        """The file was seen so. True if that is news: its time of stillness begins anew."""
        known = self._candidates.get(relative)
        if known is not None and known.stamp == stamp:
            return False
        pause = max(self._settle, _PAUSE_MIN)
        candidate = _Candidate(stamp, changed_at=now, pause=pause, due_at=None)
        self._candidates[relative] = candidate
        self._schedule(relative, candidate, now + self._settle)
        return True

    def pop_ready(self, now: float, limit: int | None = None) -> list[ReadyFile]:
        """The files that want a look, the longest waiting first, at most ``limit`` of them."""
        found: list[ReadyFile] = []
        while (limit is None or len(found) < limit) and (at := self.next_ready_at()) is not None and at <= now:
            relative = heapq.heappop(self._heap)[2]
            candidate = self._candidates[relative]
            candidate.due_at = None
            decode = now - candidate.changed_at >= self._timeout
            found.append(ReadyFile(relative, candidate.stamp, decode))
        return found

    def postpone(self, relative: str, now: float) -> None:
        """It is not whole yet, or could not be read: another look after a pause that grows up to a minute.

        There is always a look at `settle_timeout`. A file that is not known is passed over.
        """
        candidate = self._candidates.get(relative)
        if candidate is None:
            return
        at = now + candidate.pause
        deadline = candidate.changed_at + self._timeout
        candidate.pause = min(candidate.pause * 2, max(self._settle, _PAUSE_MAX))
        self._schedule(relative, candidate, min(at, deadline) if now < deadline else at)

    def retry_later(self, due: ReadyFile, now: float) -> None:
        """What came of it could not be written down: it is looked at again after a pause."""
        if due.relative not in self._candidates:
            self.record_sighting(due.relative, due.stamp, now)
        elif self._candidates[due.relative].due_at is None:
            self.postpone(due.relative, now)

    def remove(self, relative: str, stamp: Stamp) -> None:
        """It became a job, or is gone; unless it was seen with another stamp meanwhile, which is news."""
        candidate = self._candidates.get(relative)
        if candidate is not None and candidate.stamp == stamp:
            del self._candidates[relative]

    def next_ready_at(self) -> float | None:
        """When `due` will next have something to tell; None while nothing waits."""
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
