"""The one place where requests are spent: PicWish counts creates and queries of a key together."""

import asyncio
import heapq
import math
from collections import deque
from enum import IntEnum
from itertools import count
from typing import NamedTuple

from picwish_watchd.clock import Clock
from picwish_watchd.scheduling.rate import INTERVAL_MARGIN, THROTTLE_FACTOR, max_per_second, recovered_rate
from picwish_watchd.scheduling.request_log import RequestLog

# seconds in which never more than QPS requests leave; the rest of the margin makes up for late timers
_WINDOW = 1.02
# how late a slot may be for the next ones to catch up, in seconds; or a quarter of the beat
_CATCH_UP_MAX = 0.05
# of QPS
_MIN_RATE_SHARE = 0.1
# seconds without a request after a 429 that names no Retry-After
_DEFAULT_PENALTY = 1.0
_PENALTY_MAX = 300.0
_THROTTLE_DEDUP_SECONDS = (
    # 429s within so many seconds are one lesson: they answer requests that left before it was learnt
    1.0
)
# seconds after which a new rate is looked at
_MAX_SLEEP = 1.0
# seconds in which a request must have left or failed: connections are given up sooner
_SEND_TIMEOUT = 60.0


class RequestKind(IntEnum):
    """Who goes first when a slot is free."""

    #: is PicWish back? Seldom, and who asks for thousands of old tasks must not keep the gate closed
    PROBE = 0
    #: a query for a task whose hour is running out
    EXPIRING = 1
    #: a new task: while images wait, nothing is won by asking early
    CREATE = 2
    #: is it done?
    QUERY = 3


class _QueueKey(NamedTuple):
    """The place of one that waits; the lowest goes first."""

    #: of a query with a priority that of a create
    rank: RequestKind
    #: the higher the lower
    priority: float
    kind: RequestKind
    sequence: int


class Permit:
    """Leave for one request.

    PicWish counts when a request comes, and a connection may have to be made first. So until `left` is called the slot
    counts as if the request were just leaving.
    """

    __slots__ = ("_pacer", "beats")

    def __init__(self, pacer: "RateLimiter", beats: tuple[float, float]) -> None:
        """``beats`` are the pacer's: as it was, and as this slot made it."""
        self._pacer = pacer
        self.beats = beats

    def mark_sent(self) -> None:
        """The first byte leaves at this moment. To be called once, more does no harm."""
        self._pacer._close_permit(self, left=True)

    def release(self) -> None:
        """The request has ended. One that never left gives its slot back."""
        self._pacer._close_permit(self, left=False)


class RateLimiter:
    """Grants slots for requests, the most urgent first, never more than ``qps`` in any second.

    Slots keep a beat of a little more than 1/rate; what a late timer loses the next ones catch up, as far as no second
    then holds more than ``qps``.
    """

    def __init__(self, qps: float, clock: Clock, departures: RequestLog | None = None) -> None:
        """``departures``: of the requests of earlier runs, which count as well."""
        self._qps = qps
        self._clock = clock
        self._sequence = count()
        self._waiters: list[tuple[_QueueKey, asyncio.Future[Permit]]] = []
        self._waiter_added = asyncio.Event()
        self._permit_closed = asyncio.Event()
        self._paused_until = -math.inf
        self._request_log = departures
        earlier = [] if departures is None else departures.recent_ages()
        # of the last requests, when
        self._sent_times = deque(clock.monotonic() - ago for ago in earlier)
        # when the last slot was due
        self._last_due_at = self._sent_times[-1] if self._sent_times else -math.inf
        # granted, and not known to have left
        self._unsent_permits: set[Permit] = set()
        # the rate, and when it was so
        self._throttled_rate = (qps, -math.inf)
        # when the loop is to turn, as long as somebody waits
        self._next_turn_at = 0.0
        self._query_goes_next = (
            # after a 429 a query goes before the creates: refused creates must not starve them
            False
        )

    async def acquire(self, urgency: RequestKind, priority: int | None = None) -> Permit:
        """Waits for a slot. Cancelled while waiting, nothing is spent.

        Creates of a higher ``priority`` go first, and so does a query that has one, before creates of a lower one.
        """
        granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        rank = urgency if priority is None else min(urgency, RequestKind.CREATE)
        heapq.heappush(self._waiters, (_QueueKey(rank, -(priority or 0), urgency, next(self._sequence)), granted))
        if not self._waiter_added.is_set():
            self._next_turn_at = self._clock.monotonic()
            self._waiter_added.set()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                granted.result().release()
            raise

    def throttle(self, retry_after: float | None) -> None:
        """PicWish said 429: no request for a while (seconds), and fewer afterwards; the rate creeps back."""
        now = self._clock.monotonic()
        if now - self._throttled_rate[1] >= _THROTTLE_DEDUP_SECONDS:
            self._throttled_rate = (max(self._qps * _MIN_RATE_SHARE, self.rate * THROTTLE_FACTOR), now)
        self._query_goes_next = True
        rest = _DEFAULT_PENALTY if retry_after is None else retry_after
        self._paused_until = max(self._paused_until, now + min(rest, _PENALTY_MAX))

    def set_qps(self, qps: float) -> None:
        """Another configuration is in force. What a 429 has taught is forgotten only where the rate is another one."""
        if qps == self._qps:
            return
        self._qps = qps
        self._throttled_rate = (qps, -math.inf)

    @property
    def rate(self) -> float:
        """Requests a second that are asked of PicWish at present."""
        rate, since = self._throttled_rate
        return recovered_rate(self._qps, rate, self._clock.monotonic() - since)

    @property
    def last_throttle(self) -> tuple[float, float] | None:
        """The rate after the last 429, and how many seconds ago that was; None once it has crept back."""
        rate, since = self._throttled_rate
        return (rate, self._clock.monotonic() - since) if self.rate < self._qps else None

    @property
    def seconds_until_permit(self) -> float:
        """Seconds until the next slot can be granted at the earliest, at least 0."""
        pause = self._compute_delay()
        return max(0.0, pause) if math.isfinite(pause) else 0.0

    @property
    def overdue_seconds(self) -> float:
        """Seconds for which somebody has been waiting for a slot that could be granted, and was not; else 0."""
        if all(granted.done() for _, granted in self._waiters):
            return 0.0
        return max(0.0, self._clock.monotonic() - self._next_turn_at)

    async def run(self) -> None:
        """Grants slots until cancelled."""
        while True:
            await self._waiter_added.wait()
            self._drop_cancelled()
            if not self._waiters:
                self._waiter_added.clear()
                continue
            self._permit_closed.clear()
            pause = self._compute_delay()
            self._next_turn_at = self._clock.monotonic() + min(_SEND_TIMEOUT, max(0.0, pause))
            if pause == math.inf:
                await self._permit_closed.wait()
            elif pause > 0:
                await self._clock.sleep(min(pause, _MAX_SLEEP))
            else:
                self._next_waiter().set_result(self._grant_permit())
                # whoever has no use for it after all gives it back now, and nothing is lost
                await asyncio.sleep(0)

    def _next_waiter(self) -> asyncio.Future[Permit]:
        queries = [
            (turn, granted) for turn, granted in self._waiters if turn.kind is RequestKind.QUERY and not granted.done()
        ]
        if self._query_goes_next and queries:
            self._query_goes_next = False
            first = min(queries)
            self._waiters.remove(first)
            heapq.heapify(self._waiters)
            return first[1]
        return heapq.heappop(self._waiters)[1]

    def _drop_cancelled(self) -> None:
        while self._waiters and self._waiters[0][1].done():
            heapq.heappop(self._waiters)

    def _compute_delay(self) -> float:
        """Seconds until the next slot; infinite while as many requests as a second may hold are just leaving."""
        now, most = self._clock.monotonic(), max_per_second(self._qps)
        window = _WINDOW / min(1.0, self._qps)
        while self._sent_times and self._sent_times[0] <= now - window:
            self._sent_times.popleft()
        room = most - len(self._unsent_permits)
        if room <= 0:
            return math.inf
        full = self._sent_times[-room] + window - now if len(self._sent_times) >= room else 0.0
        return max(full, self._last_due_at + INTERVAL_MARGIN / self.rate - now, self._paused_until - now)

    def _grant_permit(self) -> Permit:
        now, interval = self._clock.monotonic(), INTERVAL_MARGIN / self.rate
        due = self._last_due_at + interval
        # after a rest nothing is caught up
        beat = due if now - due <= max(_CATCH_UP_MAX, interval / 4) else now
        slot = Permit(self, (self._last_due_at, beat))
        self._unsent_permits.add(slot)
        self._last_due_at = beat
        return slot

    def _close_permit(self, slot: Permit, *, left: bool) -> None:
        if slot not in self._unsent_permits:
            return
        self._unsent_permits.remove(slot)
        if left:
            self._sent_times.append(self._clock.monotonic())
            if self._request_log is not None:
                self._request_log.append()
        elif slot.beats[1] == self._last_due_at:
            self._last_due_at = slot.beats[0]
        self._permit_closed.set()
