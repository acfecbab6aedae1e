"""What this process counts while it runs, for whoever looks on. What the journal holds is not counted here again."""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds that are left of the hour for which PicWish keeps a result; 0: it was late and came all the same.
HOUR_BOUNDS = (0.0, 60.0, 300.0, 600.0, 1200.0, 1800.0, 2400.0, 3000.0, 3300.0, 3480.0, 3540.0, 3570.0, 3590.0)
#: Seconds of a walk: 100,000 names take 0.05 s on a local disk, and minutes over a slow network.
WALK_BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values fell up to each bound and above the one before it; the last number is of those above all."""

    bounds: tuple[float, ...]
    numbers: tuple[int, ...]
    total: float = 0.0  #: of all values

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> "Histogram":
        """Without a value as yet."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def plus(self, value: float) -> "Histogram":
        """With one value more."""
        place = bisect_left(self.bounds, value)
        numbers = (*self.numbers[:place], self.numbers[place] + 1, *self.numbers[place + 1 :])
        return Histogram(self.bounds, numbers, self.total + value)


@dataclass(frozen=True, slots=True)
class Counts:
    """A `Tally` at a moment."""

    requests: Mapping[tuple[str, str], int]  #: by kind and code
    hour_left: Histogram
    walks: Mapping[str, Histogram]  #: by rule


class Tally:
    """Counts from the start of this process on. To be written and read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str]] = Counter()
        self._hour_left = Histogram.empty(HOUR_BOUNDS)
        self._walks: dict[str, Histogram] = {}

    def request(self, kind: str, code: str) -> None:
        """A request of this kind is over; ``code`` is that of the answer, or a word where none came."""
        with self._lock:
            self._requests[kind, code] += 1

    def saved(self, left: float) -> None:
        """A result is in the spool, so many seconds before its hour is over (below 0 counts as 0)."""
        with self._lock:
            self._hour_left = self._hour_left.plus(max(0.0, left))

    def walked(self, rule: str, seconds: float) -> None:
        """A walk of the rule's inbox has come to its end."""
        with self._lock:
            self._walks[rule] = self._walks.get(rule, Histogram.empty(WALK_BOUNDS)).plus(seconds)

    def read(self) -> Counts:
        """All of it as it is now."""
        with self._lock:
            return Counts(dict(self._requests), self._hour_left, dict(self._walks))
