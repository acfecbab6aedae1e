"""How many bytes of images may be in memory at once; a number of uploads would say nothing about memory."""

import asyncio
from collections import deque


class ByteBudget:
    """Leases of bytes, granted in the order of asking. An image larger than the whole budget is granted it alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def lease(self) -> "Lease":
        """A lease of nothing as yet."""
        return Lease(self)

    async def _take(self, size: int) -> None:
        if not self._waiting and self._fits(size):
            self._used += size
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((size, granted))
        try:
            await granted
        except asyncio.CancelledError:
            # Also where nothing was granted: whoever waits behind may fit now.
            self._give(size if granted.done() and not granted.cancelled() else 0)
            raise

    def _give(self, size: int) -> None:
        self._used -= size
        while self._waiting:
            wanted, granted = self._waiting[0]
            if not granted.cancelled():
                if not self._fits(wanted):
                    return
                self._used += wanted
                granted.set_result(None)
            self._waiting.popleft()

    def _fits(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._total


class Lease:
    """Bytes for one image; to be released once, more does no harm."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._size = 0

    async def take(self, size: int) -> None:
        """Waits until ``size`` bytes are free."""
        await self._budget._take(size)
        self._size = size

    def release(self) -> None:
        """Gives them back."""
        size, self._size = self._size, 0
        if size:
            self._budget._give(size)
