"""How many requests a second a key may send."""

import math
from collections import deque


class RateWindow:
    """A sliding window: at most ``qps`` requests in any second; below or between whole numbers, ceil(qps)
    requests in ceil(qps)/qps seconds. Requests that were turned away do not count."""

    def __init__(self) -> None:
        self._admitted_at: deque[float] = deque()

    def admit(self, qps: float | None, now: float) -> bool:
        """Whether a request may pass at this moment (monotonic seconds); None: always."""
        if qps is None:
            return True
        most = math.ceil(qps)
        while self._admitted_at and self._admitted_at[0] <= now - most / qps:
            self._admitted_at.popleft()
        if len(self._admitted_at) >= most:
            return False
        self._admitted_at.append(now)
        return True
