"""Slots for downloads: few at a time, and a slow download does not hold up the others.

The pace of the downloads shows how many results the connection can bring in time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picwish_watchd.clock import Clock

# Downloads at once that are not slow.
_MAX_QUICK = 4
# Downloads at once, slow ones included. On a slow connection more would share it until none ends in time.
_MAX_TOTAL = 12
# Seconds after which a download counts as slow.
_SLOW_AFTER = 10.0
# Seconds in which the connection should bring all results at PicWish, which keeps each for one hour.
_COLLECT_SECONDS = 1200.0
# Downloads over which the average of their pace extends.
_SMOOTHING = 8
# Factor on that average for each download that need not wait: the connection may have become faster.
_DECAY = 0.9
# Additional tasks at once for each result that was downloaded.
_GROWTH_PER_RESULT = 4


class DownloadSlots:
    """The slots for downloads, granted in the order of request.

    A download that takes longer than `_SLOW_AFTER` gives up its slot and continues beside the next one: a server that
    sends slowly must not hold up paid results that are kept for one hour only.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quick_slots = asyncio.Semaphore(_MAX_QUICK)
        self._total_slots = asyncio.Semaphore(_MAX_TOTAL)
        self._waiting_count = 0
        # When the last download ended while others waited, in monotonic seconds.
        self._last_end_at: float | None = None
        # Average seconds between the ends of two downloads while others wait.
        self._seconds_per_download = 0.0
        self._result_count = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it until the block ends, or until the download is slow."""
        async with self._reserve_slot():
            slow = asyncio.create_task(self._release_when_slow())
            try:
                yield
            finally:
                if not slow.done():
                    slow.cancel()
                    self._quick_slots.release()
                self._record_end()

    def record_result(self) -> None:
        """Record that a result is on this machine, whether it was downloaded or came in a response."""
        self._result_count += 1

    def max_in_flight(self, initial: int) -> int:
        """Return how many tasks may be at PicWish so that the connection can download their results within their hour.

        ``initial`` is the limit before any result has come. It grows with each result, because what the connection can
        download is known only from what it has downloaded.
        """
        grown = initial + _GROWTH_PER_RESULT * self._result_count
        return min(grown, max(_MAX_QUICK, int(_COLLECT_SECONDS / max(self._seconds_per_download, 1e-3))))

    @asynccontextmanager
    async def _reserve_slot(self) -> AsyncIterator[None]:
        if not self._total_slots.locked() and not self._quick_slots.locked():
            self._seconds_per_download *= _DECAY
        self._waiting_count += 1
        try:
            await self._total_slots.acquire()
            try:
                await self._quick_slots.acquire()
            except asyncio.CancelledError:
                self._total_slots.release()
                raise
        finally:
            self._waiting_count -= 1
        try:
            yield
        finally:
            self._total_slots.release()

    def _record_end(self) -> None:
        previous, self._last_end_at = self._last_end_at, self._clock.monotonic() if self._waiting_count else None
        if previous is not None and self._last_end_at is not None:
            self._seconds_per_download += (self._last_end_at - previous - self._seconds_per_download) / _SMOOTHING

    async def _release_when_slow(self) -> None:
        await self._clock.sleep(_SLOW_AFTER)
        self._quick_slots.release()
