"""Limit the requests of a key per second."""

import math
from collections import deque


class RateWindow:
    """A sliding window: at most ``qps`` requests in any second.

    For a ``qps`` that is no whole number: ceil(qps) requests in ceil(qps)/qps seconds. Refused requests do not count.
    """

    def __init__(self) -> None:
        self._admitted_at: deque[float] = deque()

    def admit(self, qps: float | None, now: float) -> bool:
        """Return whether a request is admitted at ``now`` (monotonic seconds); always if ``qps`` is None."""
        if qps is None:
            return True
        limit = math.ceil(qps)
        while self._admitted_at and self._admitted_at[0] <= now - limit / qps:
            self._admitted_at.popleft()
        if len(self._admitted_at) >= limit:
            return False
        self._admitted_at.append(now)
        return True
