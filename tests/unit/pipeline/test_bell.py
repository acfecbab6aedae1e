"""The bell: it shortens a wait, is not lost when rung early, and silence ends by itself."""

import asyncio

from picwish_watchd.runtime.wakeup import Bell

LONG = 60.0  # seconds: a test that waits so long has failed


async def test_a_ring_ends_the_wait() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(LONG))
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    await asyncio.wait_for(waiting, 5)


async def test_a_ring_before_the_wait_is_not_lost_and_counts_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await asyncio.wait_for(bell.wait(LONG), 5)
    again = asyncio.create_task(bell.wait(LONG))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_silence_ends_with_patience() -> None:
    bell = Bell()
    await bell.wait(0.01)
    await bell.wait(0.0)
    await bell.wait(-5.0)


async def test_a_bell_rung_without_patience_is_heard_all_the_same() -> None:
    bell = Bell()
    bell.ring()
    await bell.wait(0.0)
    again = asyncio.create_task(bell.wait(LONG))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
