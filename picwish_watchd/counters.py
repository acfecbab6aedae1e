"""Count requests, saved results and scans while this process runs; the metrics show them.

What the journal holds is not counted here again.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds left of the hour for which PicWish keeps a result; 0: it was saved after that hour.
RESULT_MARGIN_BOUNDS = (0.0, 60.0, 300.0, 600.0, 1200.0, 1800.0, 2400.0, 3000.0, 3300.0, 3480.0, 3540.0, 3570.0, 3590.0)
#: Seconds per scan: 100,000 names take 0.05 s on a local disk, and minutes over a slow network.
SCAN_SECONDS_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """The number of values in each interval between two bounds.

    ``counts[i]`` is the number of values above ``bounds[i - 1]`` and up to ``bounds[i]``; the last count is of those
    above all bounds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    #: Sum of all values.
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> "Histogram":
        """Return a histogram without values."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def with_value(self, value: float) -> "Histogram":
        """Return this histogram with one more value."""
        place = bisect_left(self.bounds, value)
        numbers = (*self.counts[:place], self.counts[place] + 1, *self.counts[place + 1 :])
        return Histogram(self.bounds, numbers, self.total + value)


@dataclass(frozen=True, slots=True)
class CounterSnapshot:
    """The values of `Counters` at one moment."""

    #: By kind of request and code of the answer.
    requests: Mapping[tuple[str, str], int]
    result_margins: Histogram
    #: By rule.
    scan_seconds: Mapping[str, Histogram]


class Counters:
    """Counts since the start of this process. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._result_margins = Histogram.empty(RESULT_MARGIN_BOUNDS)
        self._scan_seconds: dict[str, Histogram] = {}

    def count_request(self, kind: str, code: str) -> None:
        """Count a finished request; ``code`` is that of the answer, or a word such as "timeout" without one."""
        with self._lock:
            self._requests[kind, code] += 1

    def observe_result_saved(self, left: float) -> None:
        """Count a result saved to the spool; ``left``: seconds until PicWish deletes it (below 0 counts as 0)."""
        with self._lock:
            self._result_margins = self._result_margins.with_value(max(0.0, left))

    def observe_scan(self, rule: str, seconds: float) -> None:
        """Count a finished scan of the rule's inbox."""
        with self._lock:
            self._scan_seconds[rule] = self._scan_seconds.get(rule, Histogram.empty(SCAN_SECONDS_BOUNDS)).with_value(
                seconds
            )

    def snapshot(self) -> CounterSnapshot:
        """Return all counts as they are now."""
        with self._lock:
            return CounterSnapshot(dict(self._requests), self._result_margins, dict(self._scan_seconds))
