"""Places for downloads: few at a time, and a slow one gives its place to the next; and how much the line can bring."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picwish_watchd.clock import Clock

_AT_A_TIME = 4
_IN_ALL = 12  # on a narrow line more would only share it, until none is done in its time
_SLOW = 10.0  # seconds
_COLLECTABLE = 1200.0  # seconds in which the line is to bring all that lies at PicWish: it lies there for one hour
_SMOOTH = 8  # downloads, until another pace of the line is believed
_FADES = 0.9  # what each download that need not wait leaves of that: the line may be a better one by now
_GROWS = 4  # tasks more at once, for each result that has come home


class Places:
    """Granted in the order of asking.

    What takes longer than `_SLOW` goes on beside the next one: a server that drips must not hold up results that live
    one hour, and were paid.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quick = asyncio.Semaphore(_AT_A_TIME)
        self._all = asyncio.Semaphore(_IN_ALL)
        self._waiting = 0
        self._ended: float | None = None  # when the last one was over while others waited
        self._each = 0.0  # seconds between the ends of two, while others wait
        self._kept = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Waits for a place, and holds it until the block ends."""
        async with self._place():
            slow = asyncio.create_task(self._give_way())
            try:
                yield
            finally:
                if not slow.done():
                    slow.cancel()
                    self._quick.release()
                self._note_end()

    def kept(self) -> None:
        """A result has come home, by whatever way."""
        self._kept += 1

    def collectable(self, first: int) -> int:
        """How many tasks may be at PicWish at once, so that the line brings their results within their hour.

        ``first`` of them before any has come: how much the line can bring is only known from what it brought.
        """
        grown = first + _GROWS * self._kept
        return min(grown, max(_AT_A_TIME, int(_COLLECTABLE / max(self._each, 1e-3))))

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if not self._all.locked() and not self._quick.locked():
            self._each *= _FADES
        self._waiting += 1
        try:
            await self._all.acquire()
            try:
                await self._quick.acquire()
            except asyncio.CancelledError:
                self._all.release()
                raise
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._all.release()

    def _note_end(self) -> None:
        last, self._ended = self._ended, self._clock.monotonic() if self._waiting else None
        if last is not None and self._ended is not None:
            self._each += (self._ended - last - self._each) / _SMOOTH

    async def _give_way(self) -> None:
        await self._clock.sleep(_SLOW)
        self._quick.release()
