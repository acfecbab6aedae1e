"""A clock for tests that never waits."""

import asyncio
import heapq
import math
from itertools import count

from picwish_watchd.clock import Clock

# Turns of the event loop after which every task that could run has run.
_LOOP_ROUNDS = 10


class FakeClock(Clock):
    """A clock that is advanced by sleeping: of several sleepers the one that is due first wakes first.

    A task that waits for anything else than this clock (a thread, a socket) does not hold it back.
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
        """Suspend the machine for ``seconds``, as a laptop does: `monotonic` does not advance."""
        self._now += seconds
        self._slept += seconds

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass without waking sleepers."""
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock alone, forwards or backwards."""
        self._now += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        # The next larger float is the least step: a shorter sleep would never end.
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
