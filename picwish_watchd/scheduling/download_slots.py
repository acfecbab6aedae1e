"""Places for downloads: few at a time, and a slow one gives its place to the next; and how much the line can bring."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picwish_watchd.clock import Clock

_MAX_QUICK = 4
# on a narrow line more would only share it, until none is done in its time
_MAX_TOTAL = 12
# seconds
_SLOW_AFTER = 10.0
# seconds in which the line is to bring all that lies at PicWish: it lies there for one hour
_COLLECT_SECONDS = 1200.0
# downloads, until another pace of the line is believed
_SMOOTHING = 8
# what each download that need not wait leaves of that: the line may be a better one by now
_DECAY = 0.9
# tasks more at once, for each result that has come home
_GROWTH_PER_RESULT = 4


class DownloadSlots:
    """Granted in the order of asking.

    What takes longer than `_SLOW` goes on beside the next one: a server that drips must not hold up results that live
    one hour, and were paid.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quick_slots = asyncio.Semaphore(_MAX_QUICK)
        self._total_slots = asyncio.Semaphore(_MAX_TOTAL)
        self._waiting_count = 0
        # when the last one was over while others waited
        self._last_end_at: float | None = None
        # seconds between the ends of two, while others wait
        self._seconds_per_download = 0.0
        self._result_count = 0

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        """Waits for a place, and holds it until the block ends."""
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
        """A result has come home, by whatever way."""
        self._result_count += 1

    def max_in_flight(self, first: int) -> int:
        """How many tasks may be at PicWish at once, so that the line brings their results within their hour.

        ``first`` of them before any has come: how much the line can bring is only known from what it brought.
        """
        grown = first + _GROWTH_PER_RESULT * self._result_count
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
        last, self._last_end_at = self._last_end_at, self._clock.monotonic() if self._waiting_count else None
        if last is not None and self._last_end_at is not None:
            self._seconds_per_download += (self._last_end_at - last - self._seconds_per_download) / _SMOOTHING

    async def _release_when_slow(self) -> None:
        await self._clock.sleep(_SLOW_AFTER)
        self._quick_slots.release()
