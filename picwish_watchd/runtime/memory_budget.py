"""Limit the bytes of images in memory. A limit on the number of uploads would not limit memory."""

import asyncio
from collections import deque


class MemoryBudget:
    """Leases of bytes, granted in the order of the requests.

    An image larger than the whole budget gets its lease when no other lease is held.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def new_lease(self) -> "MemoryLease":
        """Return a lease of 0 bytes; `MemoryLease.acquire` fills it."""
        return MemoryLease(self)

    async def reserve(self, size: int) -> None:
        """Wait until ``size`` bytes are free, and reserve them; to be called by `MemoryLease`."""
        if not self._waiters and self._has_room(size):
            self._used += size
            return
        granted = asyncio.get_running_loop().create_future()
        self._waiters.append((size, granted))
        try:
            await granted
        except asyncio.CancelledError:
            # Release even if nothing was granted: a smaller request behind this one may fit now.
            self.give_back(size if granted.done() and not granted.cancelled() else 0)
            raise

    def give_back(self, size: int) -> None:
        """Give ``size`` bytes back, and grant what fits now; to be called by `MemoryLease`."""
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
    """The bytes reserved for one image."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    async def acquire(self, size: int) -> None:
        """Wait until ``size`` bytes are free, and reserve them."""
        await self._budget.reserve(size)
        self._size = size

    def release(self) -> None:
        """Give the bytes back. A second call does nothing."""
        size, self._size = self._size, 0
        if size:
            self._budget.give_back(size)
