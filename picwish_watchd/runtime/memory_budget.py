"""How many bytes of images may be in memory at once; a number of uploads would say nothing about memory."""

import asyncio
from collections import deque


class MemoryBudget:
    """Leases of bytes, granted in the order of asking. An image larger than the whole budget is granted it alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def new_lease(self) -> "MemoryLease":
        """A lease of nothing as yet."""
        return MemoryLease(self)

    async def _acquire(self, size: int) -> None:
        if not self._waiters and self._has_room(size):
            self._used += size
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiters.append((size, granted))
        try:
            await granted
        except asyncio.CancelledError:
            # Also where nothing was granted: whoever waits behind may fit now.
            self._release(size if granted.done() and not granted.cancelled() else 0)
            raise

    def _release(self, size: int) -> None:
        self._used -= size
        while self._waiters:
            wanted, granted = self._waiters[0]
            if not granted.cancelled():
                if not self._has_room(wanted):
                    return
                self._used += wanted
                granted.set_result(None)
            self._waiters.popleft()

    def _has_room(self, size: int) -> bool:
        return self._used == 0 or self._used + size <= self._total


class MemoryLease:
    """Bytes for one image; to be released once, more does no harm."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    async def acquire(self, size: int) -> None:
        """Waits until ``size`` bytes are free."""
        await self._budget._acquire(size)
        self._size = size

    def release(self) -> None:
        """Gives them back."""
        size, self._size = self._size, 0
        if size:
            self._budget._release(size)
