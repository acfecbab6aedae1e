"""Places for downloads: four at a time, twelve in all, and a slow one gives way."""

import asyncio
from contextlib import AsyncExitStack

from picwish_watchd.clock import Clock
from picwish_watchd.scheduling.download_slots import Places


class HandClock(Clock):
    """Time goes by when it is told to."""

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


async def test_before_anything_has_come_home_few_tasks_are_made_and_ever_more_afterwards() -> None:
    places = Places(HandClock())
    assert places.collectable(64) == 64
    for _ in range(1000):
        places.kept()
    assert places.collectable(64) > 4000


async def test_no_more_is_bought_than_a_narrow_line_brings_in_twenty_minutes() -> None:
    crowd = Crowd(40)
    for _ in range(1000):
        crowd.places.kept()
    for number in range(30):
        await crowd.after(15)
        await crowd.end(number)
    assert 60 <= crowd.places.collectable(64) <= 100  # four a minute
    await crowd.end(*range(40))


async def test_a_line_that_has_become_better_is_believed_again() -> None:
    crowd = Crowd(40)
    for number in range(40):
        await crowd.after(100)
        await crowd.end(number)
    assert crowd.places.collectable(500) < 20
    for _ in range(50):
        async with crowd.places.one():
            await crowd.after(1)
    assert crowd.places.collectable(500) == 500


async def test_whoever_is_cancelled_while_waiting_takes_no_place_with_him() -> None:
    crowd = Crowd(30)
    await crowd.after(0)
    await crowd.end(*range(4, 30))
    await crowd.end(*range(4))
    async with AsyncExitStack() as stack, asyncio.timeout(5):
        for _ in range(4):
            await stack.enter_async_context(crowd.places.one())
