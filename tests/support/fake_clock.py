"""A clock that nobody has to wait for."""

import asyncio
import heapq
import math
from itertools import count

from picwish_watchd.clock import Clock

# of the event loop, in which whatever can go on at this moment does
_LOOP_ROUNDS = 10


class FakeClock(Clock):
    """Sleeping turns it: of several sleepers the one that is due first, once the others had their turn.

    What waits for something else than this clock (a thread, a socket) cannot hold it back.
    """

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._slept = 5000.0
        self._sleepers: list[tuple[float, int]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def since_boot(self) -> float:
        return self._monotonic + self._slept

    def suspend(self, seconds: float) -> None:
        """The machine sleeps, as a laptop does."""
        self._now += seconds
        self._slept += seconds

    def advance(self, seconds: float) -> None:
        """Time goes by while nobody sleeps."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock alone is set, forwards or backwards."""
        self._now += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        # The least step that a float can show: a shorter sleep would never end.
        due = max(self._monotonic + seconds, math.nextafter(self._monotonic, math.inf))
        sleeper = (due, next(self._order))
        heapq.heappush(self._sleepers, sleeper)
        try:
            rounds = 0
            while rounds < _LOOP_ROUNDS:
                await asyncio.sleep(0)
                rounds = rounds + 1 if self._sleepers[0] == sleeper else 0
        finally:
            self._sleepers.remove(sleeper)
            heapq.heapify(self._sleepers)
        self._now += max(0.0, due - self._monotonic)
        self._monotonic = max(self._monotonic, due)
