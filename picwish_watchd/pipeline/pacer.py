"""The one place where requests are spent: PicWish counts creates and queries of a key together."""

import asyncio
import heapq
from collections import deque
from enum import IntEnum
from itertools import count

from picwish_watchd.clock import Clock

#: Exactly 1/QPS let three requests into one second by the jitter of timers; 2 % more (10 ms at QPS 2) kept two.
_MARGIN = 1.02
_WINDOW = 1.01  # seconds in which never more than QPS requests start
_SLACK = 0.05  # how far a fast key may catch up what late timers lost, in seconds
_LOWERED = 0.7  # the rate after a 429, of what it was
_LOWEST = 0.1  # of QPS
_RECOVERY = 0.01  # of QPS, a second
_PENALTY = 1.0  # seconds without a request after a 429 that names no Retry-After
_PENALTY_MAX = 300.0


class Urgency(IntEnum):
    """Who goes first when a slot is free."""

    EXPIRING = 0  #: a query for a task whose hour is running out
    PROBE = 1  #: is PicWish back?
    CREATE = 2  #: a new task: while images wait, nothing is won by asking early
    QUERY = 3  #: is it done?


class Pacer:
    """Grants slots for requests, the most urgent first, never more than ``qps`` in any second."""

    def __init__(self, qps: float, clock: Clock) -> None:
        self._qps = qps
        self._clock = clock
        self._order = count()
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []
        self._wanted = asyncio.Event()
        self._next = 0.0
        self._recent: deque[float] = deque()
        self._lowered = (qps, 0.0)  # the rate, and when it was so
        self._turn = 0.0  # when the loop is to turn, as long as somebody waits
        self._courtesy = False  # after a 429 a query goes before the creates: refused creates must not starve them

    async def slot(self, urgency: Urgency) -> None:
        """Waits for a slot; it is spent when this returns. Cancelled while waiting, nothing is spent."""
        granted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._order), granted))
        if not self._wanted.is_set():
            self._turn = self._clock.monotonic()
            self._wanted.set()
        await granted

    def slow_down(self, retry_after: float | None) -> None:
        """PicWish said 429: no request for a while (seconds), and fewer afterwards; the rate creeps back."""
        now = self._clock.monotonic()
        self._lowered = (max(self._qps * _LOWEST, self.rate * _LOWERED), now)
        self._courtesy = True
        self._next = max(self._next, now + min(_PENALTY if retry_after is None else retry_after, _PENALTY_MAX))

    def sent(self) -> None:
        """A request that was granted a slot leaves only now: the next one keeps its distance from this moment.

        A fast key does not need that: its window has room for such delays.
        """
        interval = _MARGIN / self.rate
        if interval > _SLACK:
            self._next = max(self._next, self._clock.monotonic() + interval)

    def set_qps(self, qps: float) -> None:
        """Another configuration is in force."""
        self._qps = qps
        self._lowered = (qps, self._clock.monotonic())

    @property
    def rate(self) -> float:
        """Requests a second that are asked of PicWish at present."""
        rate, since = self._lowered
        return min(self._qps, rate + self._qps * _RECOVERY * (self._clock.monotonic() - since))

    @property
    def wait(self) -> float:
        """Seconds until the next slot can be granted at the earliest, at least 0."""
        return max(0.0, self._pause())

    @property
    def overdue(self) -> float:
        """Seconds for which somebody has been waiting for a slot that could be granted, and was not; else 0."""
        if all(waiter[2].done() for waiter in self._waiting):
            return 0.0
        return max(0.0, self._clock.monotonic() - self._turn)

    async def run(self) -> None:
        """Grants slots until cancelled."""
        while True:
            await self._wanted.wait()
            self._drop_cancelled()
            if not self._waiting:
                self._wanted.clear()
                continue
            pause = self._pause()
            self._turn = self._clock.monotonic() + max(0.0, pause)
            if pause > 0:
                await self._clock.sleep(pause)
                continue
            self._spend()
            self._next_waiter().set_result(None)

    def _next_waiter(self) -> asyncio.Future[None]:
        queries = [waiter for waiter in self._waiting if waiter[0] is Urgency.QUERY and not waiter[2].done()]
        if self._courtesy and queries:
            self._courtesy = False
            first = min(queries)
            self._waiting.remove(first)
            heapq.heapify(self._waiting)
            return first[2]
        return heapq.heappop(self._waiting)[2]

    def _drop_cancelled(self) -> None:
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)

    def _pause(self) -> float:
        now = self._clock.monotonic()
        while self._recent and self._recent[0] <= now - _WINDOW:
            self._recent.popleft()
        full = len(self._recent) >= max(1, int(self._qps))
        return max(self._next - now, self._recent[0] + _WINDOW - now if full else 0.0)

    def _spend(self) -> None:
        now = self._clock.monotonic()
        interval = _MARGIN / self.rate
        slack = _SLACK if interval < _SLACK else 0.0
        self._next = max(self._next, now - slack) + interval
        self._recent.append(now)
