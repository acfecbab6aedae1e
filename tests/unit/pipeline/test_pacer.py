"""The pacer: never more than QPS in any second, the most urgent first, and polite after a 429."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.scheduling.rate import crept_back
from picwish_watchd.scheduling.rate_limiter import Pacer, Urgency
from picwish_watchd.scheduling.request_log import Departures
from picwish_watchd.simulator.rate_window import RateWindow
from tests.support.clock import FakeClock


class LateClock(FakeClock):
    """Timers that ring 3 ms late, as those of a busy machine do."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 0.003 if seconds > 0 else 0)


def paced(
    qps: float,
    act: Callable[[Pacer, FakeClock], Coroutine[Any, Any, None]],
    clock: FakeClock,
    journal: Path | None = None,
) -> None:
    """Lets ``act`` happen beside a running pacer, that of a daemon on ``journal``, in a moment of real time."""
    departures = None if journal is None else Departures(journal, clock)

    async def both() -> None:
        pacer = Pacer(qps, clock, departures)
        running = asyncio.create_task(pacer.run())
        await act(pacer, clock)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(both())
    if departures is not None:
        departures.close()


async def request(pacer: Pacer, urgency: Urgency = Urgency.CREATE) -> None:
    """A request that leaves at once."""
    (await pacer.slot(urgency)).left()


async def slots(pacer: Pacer, clock: FakeClock, number: int) -> list[float]:
    """So many slots as fast as they are granted; answers when, in seconds from now."""
    began = clock.monotonic()
    granted = []
    for _ in range(number):
        await request(pacer)
        granted.append(clock.monotonic() - began)
    return granted


WAITERS = st.lists(
    st.tuples(
        st.floats(0, 3),  # comes so late
        st.tuples(st.sampled_from(Urgency), st.none() | st.integers(-1, 1)),  # is so urgent, and has such a priority
        st.none() | st.floats(0, 2),  # is cancelled so long after that
        st.none() | st.sampled_from([None, 0.0, 0.5, 2.0]).map(lambda seconds: (seconds,)),  # is told 429
        st.none() | st.floats(0, 1.5),  # leaves so long after its slot; None: never, its connection could not be made
    ),
    max_size=25,
)
RATES = st.sampled_from([0.5, 1.0, 2.0, 2.7, 5.0, 30.0, 200.0]) | st.floats(0.5, 200)


@pytest.mark.untraced
@settings(max_examples=100, deadline=None)
@given(qps=RATES, reloaded=st.none() | RATES, late=st.booleans(), waiters=WAITERS)
def test_no_second_ever_holds_more_than_qps_requests_and_none_is_lost(
    qps: float, reloaded: float | None, late: bool, waiters: list[Any]
) -> None:
    left: list[float] = []
    granted: list[int] = []

    async def ask(pacer: Pacer, clock: FakeClock, waiter: Any) -> None:
        _, place, _, told, leaves = waiter
        slot = await pacer.slot(*place)
        granted.append(1)
        try:
            await clock.sleep(leaves or 0.0)
            if leaves is not None:
                slot.left()
                left.append(clock.monotonic())
        finally:
            slot.over()
        if told is not None:
            pacer.slow_down(told[0])

    async def wait(pacer: Pacer, clock: FakeClock, waiter: Any) -> None:
        delay, _, patience, _, _ = waiter
        await clock.sleep(delay)
        asking = asyncio.create_task(ask(pacer, clock, waiter))
        if patience is not None:
            await clock.sleep(patience)
            asking.cancel()
        await asyncio.wait([asking])

    async def all_of_them(pacer: Pacer, clock: FakeClock) -> None:
        async with asyncio.TaskGroup() as group:
            for waiter in waiters:
                group.create_task(wait(pacer, clock, waiter))
            if reloaded is not None:
                await clock.sleep(1.0)
                pacer.set_qps(reloaded)

    paced(qps, all_of_them, LateClock() if late else FakeClock())
    assert len(granted) >= sum(patience is None for _, _, patience, _, _ in waiters)
    left.sort()
    most = max(1, int(max(qps, reloaded or 0)))
    assert all(later - earlier > 1.0 for earlier, later in zip(left, left[most:], strict=False))
    if max(qps, reloaded or 0) < 1:
        assert all(later - earlier >= 1 / max(qps, reloaded or 0) for earlier, later in pairwise(left))


@pytest.mark.untraced
@settings(max_examples=50, deadline=None)
@given(qps=st.sampled_from([1.0, 2.0, 5.0, 30.0, 300.0]), late=st.booleans())
def test_a_queue_gets_nearly_all_the_slots_that_there_are(qps: float, late: bool) -> None:
    async def hurry(pacer: Pacer, clock: FakeClock) -> None:
        granted = await slots(pacer, clock, 100)
        assert granted[-1] <= 99 / qps * 1.04 + 0.1
        most = max(1, int(qps))
        assert all(later - earlier > 1.0 for earlier, later in zip(granted, granted[most:], strict=False))

    paced(qps, hurry, LateClock() if late else FakeClock())


@pytest.mark.parametrize("qps", [0.2, 2.0, 10.0])
def test_no_second_holds_more_than_qps_across_a_kill_and_a_quick_start(tmp_path: Path, qps: float) -> None:
    clock, left = FakeClock(), []

    async def hurry(pacer: Pacer, clock: FakeClock) -> None:
        for _ in range(max(3, int(qps))):
            await request(pacer)
            left.append(clock.monotonic())

    for _ in range(4):
        paced(qps, hurry, clock, tmp_path / "journal.db")
        clock.advance(0.05)
        clock.jump(-3600)
    most = max(1, int(qps))
    assert all(later - earlier > most / qps for earlier, later in zip(left, left[most:], strict=False))


def test_what_left_before_the_machine_was_started_or_long_ago_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def hurry(pacer: Pacer, clock: FakeClock) -> None:
        began = clock.monotonic()
        await request(pacer)
        assert clock.monotonic() == began

    late, early = FakeClock(), FakeClock()
    late.advance(7000)
    for clock in (late, early, late):
        clock.advance(60)
        paced(2, hurry, clock, tmp_path / "journal.db")


@pytest.mark.parametrize("found", [b"\0\xff\n", b"garbage", b"000001", b"nan\ninf\n-inf\n"])
def test_a_memory_that_is_damaged_or_cannot_be_kept_stops_no_request(tmp_path: Path, found: bytes) -> None:
    async def hurry(pacer: Pacer, clock: FakeClock) -> None:
        await slots(pacer, clock, 3)

    (tmp_path / "journal.db.rate").write_bytes(found)
    (tmp_path / "away.db.rate").mkdir()
    for name in ("journal.db", "away.db", "nowhere/journal.db"):
        paced(2, hurry, FakeClock(), tmp_path / name)


def test_the_most_urgent_goes_first_and_equals_in_the_order_of_asking() -> None:
    order: list[tuple[Urgency, int]] = []

    async def ask(pacer: Pacer, urgency: Urgency, number: int) -> None:
        await request(pacer, urgency)
        order.append((urgency, number))

    async def crowd(pacer: Pacer, clock: FakeClock) -> None:
        asked = [Urgency.QUERY, Urgency.CREATE, Urgency.QUERY, Urgency.PROBE, Urgency.EXPIRING, Urgency.CREATE]
        async with asyncio.TaskGroup() as group:
            for number, urgency in enumerate(asked):
                group.create_task(ask(pacer, urgency, number))

    paced(2, crowd, FakeClock())
    assert order == sorted(order)
    assert [urgency for urgency, _ in order] == [0, 1, 2, 2, 3, 3]


def test_a_higher_priority_goes_first_and_a_query_that_has_one_before_lower_creates() -> None:
    order: list[str] = []

    async def ask(pacer: Pacer, urgency: Urgency, priority: int | None) -> None:
        (await pacer.slot(urgency, priority)).left()
        order.append(f"{urgency.name.lower()} {priority}")

    async def crowd(pacer: Pacer, clock: FakeClock) -> None:
        async with asyncio.TaskGroup() as group:
            for urgency, priority in (
                (Urgency.QUERY, None), (Urgency.CREATE, 0), (Urgency.QUERY, 5), (Urgency.CREATE, -1),
                (Urgency.CREATE, 5), (Urgency.QUERY, 0), (Urgency.EXPIRING, None), (Urgency.PROBE, None),
            ):  # fmt: skip
                group.create_task(ask(pacer, urgency, priority))

    paced(2, crowd, FakeClock())
    assert order == [
        "probe None", "expiring None", "create 5", "query 5", "create 0", "query 0", "create -1", "query None",
    ]  # fmt: skip


def test_a_reload_that_leaves_the_rate_as_it_was_forgets_no_429() -> None:
    async def reload(pacer: Pacer, clock: FakeClock) -> None:
        pacer.slow_down(None)
        pacer.set_qps(2)
        assert pacer.rate < 2
        pacer.set_qps(3)
        assert pacer.rate == 3

    paced(2, reload, FakeClock())


def test_a_waiter_that_was_cancelled_spends_no_slot() -> None:
    async def cancel(pacer: Pacer, clock: FakeClock) -> None:
        first = await slots(pacer, clock, 1)
        given_up = [asyncio.create_task(pacer.slot(Urgency.PROBE)) for _ in range(9)]
        patient = asyncio.create_task(slots(pacer, clock, 1))
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        assert first == [0.0]
        assert (await patient)[0] == pytest.approx(0.5125)

    paced(2, cancel, FakeClock())


def test_waiters_that_were_all_cancelled_leave_the_pacer_ready() -> None:
    async def cancel(pacer: Pacer, clock: FakeClock) -> None:
        await slots(pacer, clock, 1)
        given_up = asyncio.create_task(pacer.slot(Urgency.QUERY))
        await asyncio.sleep(0)
        given_up.cancel()
        await clock.sleep(10)
        assert pacer.wait == 0.0
        assert await slots(pacer, clock, 1) == [0.0]

    paced(2, cancel, FakeClock())


def test_a_429_stops_for_a_second_and_slows_down() -> None:
    async def told(pacer: Pacer, clock: FakeClock) -> None:
        await slots(pacer, clock, 1)
        pacer.slow_down(None)
        assert pacer.wait == pytest.approx(1.0)
        assert pacer.rate == pytest.approx(1.4)
        assert await slots(pacer, clock, 2) == [pytest.approx(1.0), pytest.approx(1.0 + 1.025 / 1.42)]

    paced(2, told, FakeClock())


def test_after_a_429_one_query_goes_before_the_creates_that_would_be_refused_again() -> None:
    order: list[str] = []

    async def wait(pacer: Pacer, urgency: Urgency) -> None:
        await request(pacer, urgency)
        order.append(urgency.name)

    async def act(pacer: Pacer, clock: FakeClock) -> None:
        await request(pacer)
        pacer.slow_down(0.0)
        async with asyncio.TaskGroup() as group:
            for urgency in (Urgency.CREATE, Urgency.QUERY, Urgency.CREATE, Urgency.QUERY):
                group.create_task(wait(pacer, urgency))

    paced(2, act, FakeClock())
    assert order == ["QUERY", "CREATE", "CREATE", "QUERY"]


@pytest.mark.parametrize(("said", "waits"), [(20.0, 20.0), (0.0, 0.0), (86_400.0, 300.0)])
def test_retry_after_is_obeyed_up_to_five_minutes(said: float, waits: float) -> None:
    async def told(pacer: Pacer, clock: FakeClock) -> None:
        pacer.slow_down(said)
        assert await slots(pacer, clock, 1) == [pytest.approx(waits)]

    paced(2, told, FakeClock())


def test_a_shorter_retry_after_does_not_cut_a_longer_one_short() -> None:
    async def told(pacer: Pacer, clock: FakeClock) -> None:
        pacer.slow_down(20.0)
        pacer.slow_down(1.0)
        assert await slots(pacer, clock, 1) == [pytest.approx(20.0)]

    paced(2, told, FakeClock())


def test_the_rate_creeps_back_and_never_beyond_qps() -> None:
    clock = FakeClock()
    pacer = Pacer(2, clock)
    pacer.slow_down(None)
    rates = []
    for _ in range(7):
        clock.advance(10)
        rates.append(pacer.rate)
    assert rates == pytest.approx([1.6, 1.8, 1.94, 1.95, 1.97, 2.0, 2.0], abs=0.005)


def test_from_the_lowest_rate_it_is_back_within_minutes() -> None:
    assert crept_back(2, 0.2, 60) < 0.6
    assert crept_back(2, 0.2, 200) == 2


def test_many_429s_never_slow_down_to_a_standstill() -> None:
    clock = FakeClock()
    pacer = Pacer(2, clock)
    for _ in range(50):
        clock.advance(1.0)
        pacer.slow_down(1.0)
    assert pacer.rate == pytest.approx(0.2)


def test_429s_to_requests_that_left_together_are_one_lesson() -> None:
    clock = FakeClock()
    pacer = Pacer(200, clock)
    for _ in range(20):
        clock.advance(0.01)
        pacer.slow_down(None)
    assert pacer.rate == pytest.approx(140, rel=0.01)


def test_it_tells_how_it_was_slowed_down_until_the_rate_has_crept_back() -> None:
    clock = FakeClock()
    pacer = Pacer(2, clock)
    told = [pacer.lowered]
    pacer.slow_down(None)
    for seconds in (10, 50):
        clock.advance(seconds)
        told.append(pacer.lowered)
    assert told == [None, (1.4, 10), None]
    assert crept_back(2, 1.4, 10) == pytest.approx(1.6)


def test_another_qps_is_in_force_at_once() -> None:
    async def change(pacer: Pacer, clock: FakeClock) -> None:
        pacer.slow_down(0.0)
        pacer.set_qps(10)
        assert pacer.rate == 10
        fast = await slots(pacer, clock, 20)
        assert fast[-1] <= 19 * 0.1025 + 0.01
        pacer.set_qps(1)
        slow = await slots(pacer, clock, 4)
        assert all(later - earlier > 1.0 for earlier, later in pairwise(slow))

    paced(2, change, FakeClock())


def test_a_request_counts_from_the_moment_at_which_it_leaves() -> None:
    """A first connection takes its time; PicWish counts when the request arrives."""

    async def late(pacer: Pacer, clock: FakeClock) -> None:
        first = await pacer.slot(Urgency.PROBE)
        await clock.sleep(0.4)
        first.left()
        following = await slots(pacer, clock, 2)
        assert following == [pytest.approx(0.1125), pytest.approx(1.02)]

    paced(2, late, FakeClock())


def test_as_many_as_a_second_may_hold_can_be_leaving_and_no_more() -> None:
    async def stall(pacer: Pacer, clock: FakeClock) -> None:
        stalled = [await pacer.slot(Urgency.QUERY) for _ in range(2)]
        third = asyncio.create_task(pacer.slot(Urgency.CREATE))
        done = []
        for _ in range(2):
            await clock.sleep(20)
            done.append(third.done())
            stalled.pop().over()
        assert done == [False, True]

    paced(2, stall, FakeClock())


def test_a_slot_whose_request_never_left_is_given_back() -> None:
    async def fail(pacer: Pacer, clock: FakeClock) -> None:
        for _ in range(20):
            (await pacer.slot(Urgency.QUERY)).over()
        assert await slots(pacer, clock, 2) == [0.0, pytest.approx(0.5125)]

    paced(2, fail, FakeClock())


def test_a_slot_that_nobody_has_a_use_for_goes_to_the_next_one_at_once() -> None:
    async def decline(pacer: Pacer, clock: FakeClock) -> None:
        async def needless() -> None:
            (await pacer.slot(Urgency.EXPIRING)).over()

        declining = [asyncio.create_task(needless()) for _ in range(5)]
        await asyncio.sleep(0)
        assert await slots(pacer, clock, 2) == [0.0, pytest.approx(0.5125)]
        await asyncio.wait(declining)

    paced(2, decline, FakeClock())


@pytest.mark.parametrize("turns", range(6))
def test_a_slot_that_was_granted_to_somebody_who_is_being_cancelled_is_given_back(turns: int) -> None:
    async def cancel(pacer: Pacer, clock: FakeClock) -> None:
        async def hesitate() -> None:
            slot = await pacer.slot(Urgency.CREATE)
            try:
                await clock.sleep(5)
            finally:
                slot.over()

        impatient = asyncio.create_task(hesitate())
        for _ in range(turns):
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        assert await slots(pacer, clock, 2) == [0.0, pytest.approx(0.5125)]

    paced(2, cancel, FakeClock())


async def test_a_pacer_that_grants_nothing_although_it_could_is_overdue() -> None:
    clock = FakeClock()
    pacer = Pacer(2, clock)
    clock.advance(500)
    assert pacer.overdue == 0  # nobody waits
    waiting = asyncio.create_task(pacer.slot(Urgency.CREATE))
    await asyncio.sleep(0)
    clock.advance(50)
    assert pacer.overdue == 50
    waiting.cancel()
    await asyncio.sleep(0)
    assert pacer.overdue == 0


def test_a_pacer_that_picwish_told_to_wait_is_not_overdue() -> None:
    clock = FakeClock()
    late: list[float] = []

    async def act(pacer: Pacer, clock: FakeClock) -> None:
        pacer.slow_down(120)
        waiting = asyncio.create_task(pacer.slot(Urgency.CREATE))
        while not waiting.done():
            await clock.sleep(10)
            late.append(pacer.overdue)

    paced(2, act, clock)
    assert len(late) >= 12
    assert max(late) <= 10


def shared(every: float, seconds: float = 600.0) -> tuple[float, float]:
    """A key of QPS 2 is shared with a program that asks ``every`` so many seconds, whatever it is told, for so long.

    Answers how many of our requests a second pass, and what share of them is refused.
    """
    told: list[bool] = []
    window, chance = RateWindow(), random.Random(1)

    async def both_at_work(pacer: Pacer, clock: FakeClock) -> None:
        until = clock.monotonic() + seconds

        async def other() -> None:
            while clock.monotonic() < until:
                await clock.sleep(every * chance.uniform(0.9, 1.1))
                window.admit(2, clock.monotonic())

        async def ours() -> None:
            while clock.monotonic() < until:
                await request(pacer)
                told.append(window.admit(2, clock.monotonic()))
                if not told[-1]:
                    pacer.slow_down(None)

        await asyncio.gather(other(), ours())

    paced(2, both_at_work, FakeClock())
    return sum(told) / seconds, 1 - sum(told) / len(told)


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("every", "passing", "refused"),
    [(1e9, 1.95, 0.0), (2.0, 0.9, 0.06), (1.0, 0.8, 0.06), (0.5, 0.15, 0.5), (0.1, 0.01, 0.95)],
)
def test_beside_another_program_with_the_same_key_requests_pass_and_few_are_refused(
    every: float, passing: float, refused: float
) -> None:
    passed, share = shared(every)
    assert passed >= passing
    assert share <= refused
