"""The wake-up: it ends a wait early, is kept if it comes before the wait, and a wait ends without it."""

import asyncio

from picwish_watchd.runtime.wakeup import Wakeup

# Seconds. A test that waits for this long has failed.
LONG_TIMEOUT = 60.0


async def test_a_notify_ends_the_wait() -> None:
    wakeup = Wakeup()
    waiting = asyncio.create_task(wakeup.wait(LONG_TIMEOUT))
    await asyncio.sleep(0)
    assert not waiting.done()
    wakeup.notify()
    await asyncio.wait_for(waiting, 5)


async def test_a_notify_before_the_wait_is_not_lost_and_counts_once() -> None:
    wakeup = Wakeup()
    wakeup.notify()
    wakeup.notify()
    await asyncio.wait_for(wakeup.wait(LONG_TIMEOUT), 5)
    again = asyncio.create_task(wakeup.wait(LONG_TIMEOUT))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_a_wait_without_a_notify_ends_at_its_timeout() -> None:
    wakeup = Wakeup()
    await wakeup.wait(0.01)
    await wakeup.wait(0.0)
    await wakeup.wait(-5.0)


async def test_a_wakeup_notified_without_a_timeout_is_noticed() -> None:
    wakeup = Wakeup()
    wakeup.notify()
    await wakeup.wait(0.0)
    again = asyncio.create_task(wakeup.wait(LONG_TIMEOUT))
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()
