"""Places for downloads: few at a time, and a slow one gives its place to the next."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from picwish_watchd.clock import Clock

_AT_A_TIME = 4
_IN_ALL = 12  # on a narrow line more would only share it, until none is done in its time
_SLOW = 10.0  # seconds


class Places:
    """Granted in the order of asking.

    What takes longer than `_SLOW` goes on beside the next one: a server that drips must not hold up results that live
    one hour, and were paid.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quick = asyncio.Semaphore(_AT_A_TIME)
        self._all = asyncio.Semaphore(_IN_ALL)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Waits for a place, and holds it until the block ends."""
        async with self._all:
            await self._quick.acquire()
            slow = asyncio.create_task(self._give_way())
            try:
                yield
            finally:
                if not slow.done():
                    slow.cancel()
                    self._quick.release()

    async def _give_way(self) -> None:
        await self._clock.sleep(_SLOW)
        self._quick.release()
