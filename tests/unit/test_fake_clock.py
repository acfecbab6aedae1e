"""The fake clock: sleepers wake in the order in which they are due, and nothing waits."""

import asyncio

import pytest

from tests.support.fake_clock import FakeClock


async def test_sleepers_wake_in_the_order_in_which_they_are_due() -> None:
    clock = FakeClock()
    began, woken = clock.monotonic(), []

    async def sleeper(*pauses: float) -> None:
        for pause in pauses:
            await clock.sleep(pause)
            woken.append(clock.monotonic() - began)

    await asyncio.gather(sleeper(5, 5), sleeper(1, 1, 1), sleeper(0, 86_400))
    assert woken == pytest.approx([0, 1, 2, 3, 5, 10, 86_400])


async def test_a_cancelled_sleeper_delays_no_other() -> None:
    clock = FakeClock()
    given_up = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    given_up.cancel()
    before = clock.now()
    await clock.sleep(7)
    assert clock.now() - before == pytest.approx(7)


async def test_even_the_shortest_sleep_ends_later_than_it_began() -> None:
    clock = FakeClock()
    before = clock.monotonic()
    await clock.sleep(1e-30)
    assert clock.monotonic() > before


def test_a_jump_moves_the_wall_clock_alone() -> None:
    clock = FakeClock(now=100.0)
    before = clock.monotonic()
    clock.advance(5)
    clock.jump(-50)
    assert (clock.now(), clock.monotonic() - before) == (55.0, 5.0)
