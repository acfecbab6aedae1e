"""The memory budget: exceeded only by a single image alone, granted in order, and always returned."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.runtime.memory_budget import MemoryBudget, MemoryLease

TOTAL = 100


async def yield_to_loop() -> None:
    """Let all other tasks continue."""
    for _ in range(5):
        await asyncio.sleep(0)


async def request_lease(budget: MemoryBudget, size: int) -> tuple[MemoryLease, asyncio.Task[None]]:
    lease = budget.new_lease()
    taking = asyncio.create_task(lease.acquire(size))
    await yield_to_loop()
    return lease, taking


async def test_what_fits_is_granted_at_once_and_what_does_not_waits_for_room() -> None:
    budget = MemoryBudget(TOTAL)
    first, one = await request_lease(budget, 60)
    second, two = await request_lease(budget, 40)
    _, three = await request_lease(budget, 1)
    assert (one.done(), two.done(), three.done()) == (True, True, False)
    second.release()
    await yield_to_loop()
    assert three.done()
    first.release()


async def test_an_image_larger_than_the_budget_is_granted_alone() -> None:
    budget = MemoryBudget(TOTAL)
    small, one = await request_lease(budget, 10)
    huge, two = await request_lease(budget, 500)
    later, three = await request_lease(budget, 10)
    assert (one.done(), two.done(), three.done()) == (True, False, False)
    small.release()
    await yield_to_loop()
    assert (two.done(), three.done()) == (True, False)
    huge.release()
    await yield_to_loop()
    assert three.done()
    later.release()


async def test_a_small_image_does_not_overtake_a_large_one_that_waits() -> None:
    budget = MemoryBudget(TOTAL)
    first, _ = await request_lease(budget, 60)
    _, large = await request_lease(budget, 90)
    _, small = await request_lease(budget, 10)
    assert (large.done(), small.done()) == (False, False)
    first.release()
    await yield_to_loop()
    assert (large.done(), small.done()) == (True, True)


async def test_a_waiter_behind_a_cancelled_one_is_granted_at_once_if_it_fits() -> None:
    budget = MemoryBudget(TOTAL)
    await request_lease(budget, 60)
    _, large = await request_lease(budget, 90)
    _, small = await request_lease(budget, 10)
    large.cancel()
    await yield_to_loop()
    assert small.done()
    _, another = await request_lease(budget, 30)
    assert another.done()


async def test_a_grant_that_comes_with_a_cancellation_is_given_back() -> None:
    budget = MemoryBudget(TOTAL)
    first, _ = await request_lease(budget, 100)
    lease, second = await request_lease(budget, 100)
    first.release()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    lease.release()
    _, third = await request_lease(budget, 100)
    assert third.done()


async def test_a_lease_is_given_back_once_however_often_it_is_released() -> None:
    budget = MemoryBudget(TOTAL)
    first, _ = await request_lease(budget, 60)
    first.release()
    first.release()
    budget.new_lease().release()
    await request_lease(budget, 60)
    _, second = await request_lease(budget, 60)
    assert not second.done()
    second.cancel()


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "release", "cancel"]), st.integers(0, 150), st.booleans()), max_size=40
)


@pytest.mark.untraced
@settings(deadline=None)
@given(STEPS)
def test_the_memory_budget_holds_and_leaks_nothing_in_any_order(steps: list[tuple[str, int, bool]]) -> None:
    async def go() -> None:
        budget = MemoryBudget(TOTAL)
        open_leases: list[tuple[int, MemoryLease, asyncio.Task[None]]] = []
        for act, number, wait in steps:
            if act == "take":
                lease = budget.new_lease()
                open_leases.append((number, lease, asyncio.create_task(lease.acquire(number))))
            elif open_leases:
                size, lease, taking = open_leases[number % len(open_leases)]
                if act == "release" and taking.done():
                    lease.release()
                    open_leases.remove((size, lease, taking))
                elif act == "cancel" and not taking.done():
                    taking.cancel()
                    open_leases.remove((size, lease, taking))
            if wait:
                await yield_to_loop()
                held = [size for size, _, taking in open_leases if taking.done() and size]
                assert sum(held) <= TOTAL or len(held) == 1
                waiting = [size for size, _, taking in open_leases if not taking.done()]
                assert not waiting or (held and sum(held) + waiting[0] > TOTAL)
        while open_leases:
            await yield_to_loop()
            done = [each for each in open_leases if each[2].done()]
            assert done
            for each in done:
                each[1].release()
                open_leases.remove(each)
        _, whole = await request_lease(budget, TOTAL)
        assert whole.done()

    asyncio.run(go())
