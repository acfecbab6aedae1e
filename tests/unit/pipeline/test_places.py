"""Places for downloads: four at a time, twelve in all, and a slow one gives way."""

import asyncio

from picwish_watchd.clock import Clock
from picwish_watchd.pipeline.places import Places


class HandClock(Clock):
    """Time goes by when it is told to."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        ring = asyncio.Event()
        self._sleepers.append((self._now + seconds, ring))
        await ring.wait()

    def advance(self, seconds: float) -> None:
        self._now += seconds
        for due, ring in self._sleepers:
            if due <= self._now:
                ring.set()


class Crowd:
    """Downloads that each end when told."""

    def __init__(self, number: int) -> None:
        self.clock = HandClock()
        self.places = Places(self.clock)
        self.running: list[int] = []
        self._tasks = [asyncio.create_task(self._hold(each)) for each in range(number)]

    async def _hold(self, number: int) -> None:
        async with self.places.one():
            self.running.append(number)
            try:
                await asyncio.Event().wait()
            finally:
                self.running.remove(number)

    async def end(self, *numbers: int) -> None:
        for number in numbers:
            self._tasks[number].cancel()
        await self.after(0)

    async def after(self, seconds: float) -> None:
        self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)


async def test_four_at_a_time_in_the_order_of_asking() -> None:
    crowd = Crowd(7)
    await crowd.after(0)
    assert crowd.running == [0, 1, 2, 3]
    await crowd.end(1, 2)
    assert crowd.running == [0, 3, 4, 5]
    await crowd.end(*range(7))


async def test_four_slow_ones_do_not_hold_up_the_others() -> None:
    crowd = Crowd(7)
    await crowd.after(0)
    await crowd.after(9)
    assert crowd.running == [0, 1, 2, 3]
    await crowd.after(2)
    assert crowd.running == [0, 1, 2, 3, 4, 5, 6]
    await crowd.end(*range(7))
    assert crowd.running == []


async def test_a_hundred_slow_ones_share_the_line_by_twelve_and_places_never_multiply() -> None:
    crowd = Crowd(100)
    for _ in range(9):
        await crowd.after(100)
    assert crowd.running == list(range(12))
    await crowd.end(*range(50))
    assert len(crowd.running) == 4
    await crowd.end(*range(100))
