"""The rate limiter: never more than QPS requests in any second, the most urgent first, and restrained after a 429."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picwish_watchd.scheduling.rate import recovered_rate
from picwish_watchd.scheduling.rate_limiter import RateLimiter, RequestKind
from picwish_watchd.scheduling.request_log import RequestLog
from picwish_watchd.simulator.rate_window import RateWindow
from tests.support.fake_clock import FakeClock


class LateTimerClock(FakeClock):
    """A clock whose timers fire 3 ms late, as on a busy machine."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds + 0.003 if seconds > 0 else 0)


def run_with_limiter(
    qps: float,
    act: Callable[[RateLimiter, FakeClock], Coroutine[Any, Any, None]],
    clock: FakeClock,
    journal: Path | None = None,
) -> None:
    """Run ``act`` beside a rate limiter with this journal, in a moment of real time."""
    request_log = None if journal is None else RequestLog(journal, clock)

    async def both() -> None:
        limiter = RateLimiter(qps, clock, request_log)
        running = asyncio.create_task(limiter.run())
        await act(limiter, clock)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(both())
    if request_log is not None:
        request_log.close()


async def send_request(limiter: RateLimiter, kind: RequestKind = RequestKind.CREATE) -> None:
    """Acquire a permit and send the request at once."""
    (await limiter.acquire(kind)).mark_sent()


async def acquire_many(limiter: RateLimiter, clock: FakeClock, number: int) -> list[float]:
    """Acquire permits as fast as they are granted; return when, in seconds from now."""
    began = clock.monotonic()
    granted = []
    for _ in range(number):
        await send_request(limiter)
        granted.append(clock.monotonic() - began)
    return granted


# Each row: arrival in seconds; kind of request and priority; seconds until it is cancelled; Retry-After of a 429;
# seconds from permit to sending, where None means that no connection is made.
WAITERS = st.lists(
    st.tuples(
        st.floats(0, 3),
        st.tuples(st.sampled_from(RequestKind), st.none() | st.integers(-1, 1)),
        st.none() | st.floats(0, 2),
        st.none() | st.sampled_from([None, 0.0, 0.5, 2.0]).map(lambda seconds: (seconds,)),
        st.none() | st.floats(0, 1.5),
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
    sent_at: list[float] = []
    granted: list[int] = []

    async def send(limiter: RateLimiter, clock: FakeClock, waiter: Any) -> None:
        _, kind_and_priority, _, retry_after, leaves = waiter
        slot = await limiter.acquire(*kind_and_priority)
        granted.append(1)
        try:
            await clock.sleep(leaves or 0.0)
            if leaves is not None:
                slot.mark_sent()
                sent_at.append(clock.monotonic())
        finally:
            slot.release()
        if retry_after is not None:
            limiter.throttle(retry_after[0])

    async def wait(limiter: RateLimiter, clock: FakeClock, waiter: Any) -> None:
        delay, _, patience, _, _ = waiter
        await clock.sleep(delay)
        sending = asyncio.create_task(send(limiter, clock, waiter))
        if patience is not None:
            await clock.sleep(patience)
            sending.cancel()
        await asyncio.wait([sending])

    async def all_of_them(limiter: RateLimiter, clock: FakeClock) -> None:
        async with asyncio.TaskGroup() as group:
            for waiter in waiters:
                group.create_task(wait(limiter, clock, waiter))
            if reloaded is not None:
                await clock.sleep(1.0)
                limiter.set_qps(reloaded)

    run_with_limiter(qps, all_of_them, LateTimerClock() if late else FakeClock())
    assert len(granted) >= sum(patience is None for _, _, patience, _, _ in waiters)
    sent_at.sort()
    most = max(1, int(max(qps, reloaded or 0)))
    assert all(later - earlier > 1.0 for earlier, later in zip(sent_at, sent_at[most:], strict=False))
    if max(qps, reloaded or 0) < 1:
        assert all(later - earlier >= 1 / max(qps, reloaded or 0) for earlier, later in pairwise(sent_at))


@pytest.mark.untraced
@settings(max_examples=50, deadline=None)
@given(qps=st.sampled_from([1.0, 2.0, 5.0, 30.0, 300.0]), late=st.booleans())
def test_a_queue_gets_nearly_all_permits_that_the_rate_allows(qps: float, late: bool) -> None:
    async def hurry(limiter: RateLimiter, clock: FakeClock) -> None:
        granted = await acquire_many(limiter, clock, 100)
        assert granted[-1] <= 99 / qps * 1.04 + 0.1
        most = max(1, int(qps))
        assert all(later - earlier > 1.0 for earlier, later in zip(granted, granted[most:], strict=False))

    run_with_limiter(qps, hurry, LateTimerClock() if late else FakeClock())


@pytest.mark.parametrize("qps", [0.2, 2.0, 10.0])
def test_no_second_holds_more_than_qps_across_a_kill_and_a_quick_start(tmp_path: Path, qps: float) -> None:
    clock, sent_at = FakeClock(), []

    async def hurry(limiter: RateLimiter, clock: FakeClock) -> None:
        for _ in range(max(3, int(qps))):
            await send_request(limiter)
            sent_at.append(clock.monotonic())

    for _ in range(4):
        run_with_limiter(qps, hurry, clock, tmp_path / "journal.db")
        clock.advance(0.05)
        clock.jump(-3600)
    most = max(1, int(qps))
    assert all(later - earlier > most / qps for earlier, later in zip(sent_at, sent_at[most:], strict=False))


def test_requests_before_boot_or_long_ago_delay_nothing(tmp_path: Path) -> None:
    async def hurry(limiter: RateLimiter, clock: FakeClock) -> None:
        began = clock.monotonic()
        await send_request(limiter)
        assert clock.monotonic() == began

    late, early = FakeClock(), FakeClock()
    late.advance(7000)
    for clock in (late, early, late):
        clock.advance(60)
        run_with_limiter(2, hurry, clock, tmp_path / "journal.db")


@pytest.mark.parametrize("content", [b"\0\xff\n", b"garbage", b"000001", b"nan\ninf\n-inf\n"])
def test_a_damaged_or_unwritable_request_log_stops_no_request(tmp_path: Path, content: bytes) -> None:
    async def hurry(limiter: RateLimiter, clock: FakeClock) -> None:
        await acquire_many(limiter, clock, 3)

    (tmp_path / "journal.db.rate").write_bytes(content)
    (tmp_path / "away.db.rate").mkdir()
    for name in ("journal.db", "away.db", "nowhere/journal.db"):
        run_with_limiter(2, hurry, FakeClock(), tmp_path / name)


def test_the_most_urgent_goes_first_and_equals_in_the_order_of_their_requests() -> None:
    order: list[tuple[RequestKind, int]] = []

    async def send(limiter: RateLimiter, kind: RequestKind, number: int) -> None:
        await send_request(limiter, kind)
        order.append((kind, number))

    async def send_all(limiter: RateLimiter, clock: FakeClock) -> None:
        kinds = [
            RequestKind.QUERY,
            RequestKind.CREATE,
            RequestKind.QUERY,
            RequestKind.PROBE,
            RequestKind.EXPIRING,
            RequestKind.CREATE,
        ]
        async with asyncio.TaskGroup() as group:
            for number, kind in enumerate(kinds):
                group.create_task(send(limiter, kind, number))

    run_with_limiter(2, send_all, FakeClock())
    assert order == sorted(order)
    assert [kind for kind, _ in order] == [0, 1, 2, 2, 3, 3]


def test_a_higher_priority_goes_first_also_a_query_before_lower_creates() -> None:
    order: list[str] = []

    async def send(limiter: RateLimiter, kind: RequestKind, priority: int | None) -> None:
        (await limiter.acquire(kind, priority)).mark_sent()
        order.append(f"{kind.name.lower()} {priority}")

    async def send_all(limiter: RateLimiter, clock: FakeClock) -> None:
        async with asyncio.TaskGroup() as group:
            for kind, priority in (
                (RequestKind.QUERY, None),
                (RequestKind.CREATE, 0),
                (RequestKind.QUERY, 5),
                (RequestKind.CREATE, -1),
                (RequestKind.CREATE, 5),
                (RequestKind.QUERY, 0),
                (RequestKind.EXPIRING, None),
                (RequestKind.PROBE, None),
            ):
                group.create_task(send(limiter, kind, priority))

    run_with_limiter(2, send_all, FakeClock())
    assert order == [
        "probe None",
        "expiring None",
        "create 5",
        "query 5",
        "create 0",
        "query 0",
        "create -1",
        "query None",
    ]


def test_a_reload_that_leaves_the_rate_as_it_was_forgets_no_429() -> None:
    async def reload(limiter: RateLimiter, clock: FakeClock) -> None:
        limiter.throttle(None)
        limiter.set_qps(2)
        assert limiter.rate < 2
        limiter.set_qps(3)
        assert limiter.rate == 3

    run_with_limiter(2, reload, FakeClock())


def test_a_cancelled_waiter_uses_no_permit() -> None:
    async def cancel(limiter: RateLimiter, clock: FakeClock) -> None:
        first = await acquire_many(limiter, clock, 1)
        given_up = [asyncio.create_task(limiter.acquire(RequestKind.PROBE)) for _ in range(9)]
        patient = asyncio.create_task(acquire_many(limiter, clock, 1))
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        assert first == [0.0]
        assert (await patient)[0] == pytest.approx(0.5125)

    run_with_limiter(2, cancel, FakeClock())


def test_cancelling_all_waiters_leaves_the_limiter_ready() -> None:
    async def cancel(limiter: RateLimiter, clock: FakeClock) -> None:
        await acquire_many(limiter, clock, 1)
        given_up = asyncio.create_task(limiter.acquire(RequestKind.QUERY))
        await asyncio.sleep(0)
        given_up.cancel()
        await clock.sleep(10)
        assert limiter.seconds_until_permit == 0.0
        assert await acquire_many(limiter, clock, 1) == [0.0]

    run_with_limiter(2, cancel, FakeClock())


def test_a_429_stops_for_a_second_and_slows_down() -> None:
    async def throttle_once(limiter: RateLimiter, clock: FakeClock) -> None:
        await acquire_many(limiter, clock, 1)
        limiter.throttle(None)
        assert limiter.seconds_until_permit == pytest.approx(1.0)
        assert limiter.rate == pytest.approx(1.4)
        assert await acquire_many(limiter, clock, 2) == [pytest.approx(1.0), pytest.approx(1.0 + 1.025 / 1.42)]

    run_with_limiter(2, throttle_once, FakeClock())


def test_after_a_429_one_query_goes_before_the_waiting_creates() -> None:
    order: list[str] = []

    async def wait(limiter: RateLimiter, kind: RequestKind) -> None:
        await send_request(limiter, kind)
        order.append(kind.name)

    async def act(limiter: RateLimiter, clock: FakeClock) -> None:
        await send_request(limiter)
        limiter.throttle(0.0)
        async with asyncio.TaskGroup() as group:
            for kind in (RequestKind.CREATE, RequestKind.QUERY, RequestKind.CREATE, RequestKind.QUERY):
                group.create_task(wait(limiter, kind))

    run_with_limiter(2, act, FakeClock())
    assert order == ["QUERY", "CREATE", "CREATE", "QUERY"]


@pytest.mark.parametrize(("retry_after", "waits"), [(20.0, 20.0), (0.0, 0.0), (86_400.0, 300.0)])
def test_retry_after_is_obeyed_up_to_five_minutes(retry_after: float, waits: float) -> None:
    async def throttle_once(limiter: RateLimiter, clock: FakeClock) -> None:
        limiter.throttle(retry_after)
        assert await acquire_many(limiter, clock, 1) == [pytest.approx(waits)]

    run_with_limiter(2, throttle_once, FakeClock())


def test_a_shorter_retry_after_does_not_cut_a_longer_one_short() -> None:
    async def throttle_twice(limiter: RateLimiter, clock: FakeClock) -> None:
        limiter.throttle(20.0)
        limiter.throttle(1.0)
        assert await acquire_many(limiter, clock, 1) == [pytest.approx(20.0)]

    run_with_limiter(2, throttle_twice, FakeClock())


def test_the_rate_recovers_slowly_and_never_beyond_qps() -> None:
    clock = FakeClock()
    limiter = RateLimiter(2, clock)
    limiter.throttle(None)
    rates = []
    for _ in range(7):
        clock.advance(10)
        rates.append(limiter.rate)
    assert rates == pytest.approx([1.6, 1.8, 1.94, 1.95, 1.97, 2.0, 2.0], abs=0.005)


def test_from_the_lowest_rate_it_is_back_within_minutes() -> None:
    assert recovered_rate(2, 0.2, 60) < 0.6
    assert recovered_rate(2, 0.2, 200) == 2


def test_many_429s_never_slow_down_to_a_standstill() -> None:
    clock = FakeClock()
    limiter = RateLimiter(2, clock)
    for _ in range(50):
        clock.advance(1.0)
        limiter.throttle(1.0)
    assert limiter.rate == pytest.approx(0.2)


def test_429s_to_simultaneous_requests_count_as_one() -> None:
    clock = FakeClock()
    limiter = RateLimiter(200, clock)
    for _ in range(20):
        clock.advance(0.01)
        limiter.throttle(None)
    assert limiter.rate == pytest.approx(140, rel=0.01)


def test_the_slowdown_is_reported_until_the_rate_has_recovered() -> None:
    clock = FakeClock()
    limiter = RateLimiter(2, clock)
    reports = [limiter.last_throttle]
    limiter.throttle(None)
    for seconds in (10, 50):
        clock.advance(seconds)
        reports.append(limiter.last_throttle)
    assert reports == [None, (1.4, 10), None]
    assert recovered_rate(2, 1.4, 10) == pytest.approx(1.6)


def test_another_qps_is_in_force_at_once() -> None:
    async def change(limiter: RateLimiter, clock: FakeClock) -> None:
        limiter.throttle(0.0)
        limiter.set_qps(10)
        assert limiter.rate == 10
        fast = await acquire_many(limiter, clock, 20)
        assert fast[-1] <= 19 * 0.1025 + 0.01
        limiter.set_qps(1)
        slow = await acquire_many(limiter, clock, 4)
        assert all(later - earlier > 1.0 for earlier, later in pairwise(slow))

    run_with_limiter(2, change, FakeClock())


def test_a_request_counts_from_the_moment_at_which_it_leaves() -> None:
    """A first connection takes time, and PicWish counts a request when it arrives."""

    async def late(limiter: RateLimiter, clock: FakeClock) -> None:
        first = await limiter.acquire(RequestKind.PROBE)
        await clock.sleep(0.4)
        first.mark_sent()
        following = await acquire_many(limiter, clock, 2)
        assert following == [pytest.approx(0.1125), pytest.approx(1.02)]

    run_with_limiter(2, late, FakeClock())


def test_as_many_as_a_second_may_hold_can_be_leaving_and_no_more() -> None:
    async def stall(limiter: RateLimiter, clock: FakeClock) -> None:
        stalled = [await limiter.acquire(RequestKind.QUERY) for _ in range(2)]
        third = asyncio.create_task(limiter.acquire(RequestKind.CREATE))
        done = []
        for _ in range(2):
            await clock.sleep(20)
            done.append(third.done())
            stalled.pop().release()
        assert done == [False, True]

    run_with_limiter(2, stall, FakeClock())


def test_a_permit_whose_request_was_never_sent_is_released() -> None:
    async def fail(limiter: RateLimiter, clock: FakeClock) -> None:
        for _ in range(20):
            (await limiter.acquire(RequestKind.QUERY)).release()
        assert await acquire_many(limiter, clock, 2) == [0.0, pytest.approx(0.5125)]

    run_with_limiter(2, fail, FakeClock())


def test_an_unused_permit_goes_to_the_next_waiter_at_once() -> None:
    async def decline(limiter: RateLimiter, clock: FakeClock) -> None:
        async def needless() -> None:
            (await limiter.acquire(RequestKind.EXPIRING)).release()

        declining = [asyncio.create_task(needless()) for _ in range(5)]
        await asyncio.sleep(0)
        assert await acquire_many(limiter, clock, 2) == [0.0, pytest.approx(0.5125)]
        await asyncio.wait(declining)

    run_with_limiter(2, decline, FakeClock())


@pytest.mark.parametrize("rounds", range(6))
def test_a_permit_granted_to_a_cancelled_waiter_is_released(rounds: int) -> None:
    async def cancel(limiter: RateLimiter, clock: FakeClock) -> None:
        async def hesitate() -> None:
            slot = await limiter.acquire(RequestKind.CREATE)
            try:
                await clock.sleep(5)
            finally:
                slot.release()

        impatient = asyncio.create_task(hesitate())
        for _ in range(rounds):
            await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.wait([impatient])
        assert await acquire_many(limiter, clock, 2) == [0.0, pytest.approx(0.5125)]

    run_with_limiter(2, cancel, FakeClock())


async def test_a_limiter_that_grants_nothing_although_it_could_is_overdue() -> None:
    clock = FakeClock()
    limiter = RateLimiter(2, clock)
    clock.advance(500)
    # No request is waiting.
    assert limiter.overdue_seconds == 0
    waiting = asyncio.create_task(limiter.acquire(RequestKind.CREATE))
    await asyncio.sleep(0)
    clock.advance(50)
    assert limiter.overdue_seconds == 50
    waiting.cancel()
    await asyncio.sleep(0)
    assert limiter.overdue_seconds == 0


def test_a_limiter_paused_by_picwish_is_not_overdue() -> None:
    clock = FakeClock()
    late: list[float] = []

    async def act(limiter: RateLimiter, clock: FakeClock) -> None:
        limiter.throttle(120)
        waiting = asyncio.create_task(limiter.acquire(RequestKind.CREATE))
        while not waiting.done():
            await clock.sleep(10)
            late.append(limiter.overdue_seconds)

    run_with_limiter(2, act, clock)
    assert len(late) >= 12
    assert max(late) <= 10


def simulate_shared_key(every: float, seconds: float = 600.0) -> tuple[float, float]:
    """Share a key of QPS 2 with a program that sends a request every ``every`` seconds and ignores the responses.

    Return how many of our requests a second succeed, and which share of them is refused.
    """
    refusals: list[bool] = []
    window, chance = RateWindow(), random.Random(1)

    async def both_at_work(limiter: RateLimiter, clock: FakeClock) -> None:
        until = clock.monotonic() + seconds

        async def other() -> None:
            while clock.monotonic() < until:
                await clock.sleep(every * chance.uniform(0.9, 1.1))
                window.admit(2, clock.monotonic())

        async def ours() -> None:
            while clock.monotonic() < until:
                await send_request(limiter)
                refusals.append(window.admit(2, clock.monotonic()))
                if not refusals[-1]:
                    limiter.throttle(None)

        await asyncio.gather(other(), ours())

    run_with_limiter(2, both_at_work, FakeClock())
    return sum(refusals) / seconds, 1 - sum(refusals) / len(refusals)


@pytest.mark.untraced
@pytest.mark.parametrize(
    ("every", "passing", "refused"),
    [(1e9, 1.95, 0.0), (2.0, 0.9, 0.06), (1.0, 0.8, 0.06), (0.5, 0.15, 0.5), (0.1, 0.01, 0.95)],
)
def test_sharing_a_key_with_another_program_refuses_few_requests(every: float, passing: float, refused: float) -> None:
    passed, share = simulate_shared_key(every)
    assert passed >= passing
    assert share <= refused
