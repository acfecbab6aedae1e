"""Download slots: four at a time, twelve in all, and a slow download gives way."""

import asyncio
from contextlib import AsyncExitStack

from picwish_watchd.clock import Clock
from picwish_watchd.scheduling.download_slots import DownloadSlots


class ManualMonotonicClock(Clock):
    """A clock that advances only when the test sets it."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        ring = asyncio.Event()
        self._sleepers.append((self._now + seconds, ring))
        await ring.wait()

    def advance(self, seconds: float) -> None:
        self._now += seconds
        for due, ring in self._sleepers:
            if due <= self._now:
                ring.set()


class DownloadCrowd:
    """Downloads that end when the test ends them."""

    def __init__(self, number: int) -> None:
        self.clock = ManualMonotonicClock()
        self.slots = DownloadSlots(self.clock)
        self.running: list[int] = []
        self._tasks = [asyncio.create_task(self._hold(each)) for each in range(number)]

    async def _hold(self, number: int) -> None:
        async with self.slots.acquire():
            self.running.append(number)
            try:
                await asyncio.Event().wait()
            finally:
                self.running.remove(number)

    async def end(self, *numbers: int) -> None:
        for number in numbers:
            self._tasks[number].cancel()
        await self.advance(0)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)


async def test_four_at_a_time_in_the_order_of_their_requests() -> None:
    downloads = DownloadCrowd(7)
    await downloads.advance(0)
    assert downloads.running == [0, 1, 2, 3]
    await downloads.end(1, 2)
    assert downloads.running == [0, 3, 4, 5]
    await downloads.end(*range(7))


async def test_four_slow_downloads_do_not_block_the_others() -> None:
    downloads = DownloadCrowd(7)
    await downloads.advance(0)
    await downloads.advance(9)
    assert downloads.running == [0, 1, 2, 3]
    await downloads.advance(2)
    assert downloads.running == [0, 1, 2, 3, 4, 5, 6]
    await downloads.end(*range(7))
    assert downloads.running == []


async def test_a_hundred_slow_downloads_use_at_most_twelve_slots() -> None:
    downloads = DownloadCrowd(100)
    for _ in range(9):
        await downloads.advance(100)
    assert downloads.running == list(range(12))
    await downloads.end(*range(50))
    assert len(downloads.running) == 4
    await downloads.end(*range(100))


async def test_in_flight_tasks_start_few_and_grow_as_results_arrive() -> None:
    slots = DownloadSlots(ManualMonotonicClock())
    assert slots.max_in_flight(64) == 64
    for _ in range(1000):
        slots.record_result()
    assert slots.max_in_flight(64) > 4000


async def test_no_more_is_paid_for_than_can_be_downloaded_in_twenty_minutes() -> None:
    downloads = DownloadCrowd(40)
    for _ in range(1000):
        downloads.slots.record_result()
    for number in range(30):
        await downloads.advance(15)
        await downloads.end(number)
    # Four a minute.
    assert 60 <= downloads.slots.max_in_flight(64) <= 100
    await downloads.end(*range(40))


async def test_a_connection_that_improved_is_trusted_again() -> None:
    downloads = DownloadCrowd(40)
    for number in range(40):
        await downloads.advance(100)
        await downloads.end(number)
    assert downloads.slots.max_in_flight(500) < 20
    for _ in range(50):
        async with downloads.slots.acquire():
            await downloads.advance(1)
    assert downloads.slots.max_in_flight(500) == 500


async def test_a_cancelled_waiter_takes_no_slot() -> None:
    downloads = DownloadCrowd(30)
    await downloads.advance(0)
    await downloads.end(*range(4, 30))
    await downloads.end(*range(4))
    async with AsyncExitStack() as stack, asyncio.timeout(5):
        for _ in range(4):
            await stack.enter_async_context(downloads.slots.acquire())
