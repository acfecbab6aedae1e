"""Grant permits for requests. It is the only place that does, because PicWish counts creates and queries together."""

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

# Length in seconds of the window that holds at most QPS requests. It is 2 % over a second, because timers are late.
_WINDOW = 1.02
# Seconds. A permit no later than this (or a quarter of the interval, if longer) keeps the schedule: the next catch up.
_CATCH_UP_MAX = 0.05
# The lowest rate after 429s, as a share of QPS.
_MIN_RATE_SHARE = 0.1
# Seconds without a request after a 429 without Retry-After.
_DEFAULT_PENALTY = 1.0
# Seconds. A longer Retry-After is cut to this.
_PENALTY_MAX = 300.0
# Seconds in which several 429s count as one: they answer requests that left before the rate was lowered.
_THROTTLE_DEDUP_SECONDS = 1.0
# Seconds after which the rate is looked at again, because it may have recovered.
_MAX_SLEEP = 1.0
# Seconds. If all granted requests are still unsent after this, the limiter is overdue. Connections give up earlier.
_SEND_TIMEOUT = 60.0


class RequestKind(IntEnum):
    """The kinds of requests; a lower value goes first."""

    #: A query whether PicWish works again. It is rare, and queries of thousands of old tasks must not delay it.
    PROBE = 0
    #: A query of a task whose result may expire soon.
    EXPIRING = 1
    #: A new task. While images wait, nothing is gained by querying tasks early.
    CREATE = 2
    #: A query whether a task is done.
    QUERY = 3


class _QueueKey(NamedTuple):
    """The position in the queue of a request that waits; the lowest goes first."""

    #: The kind; a query with a priority ranks as a create.
    rank: RequestKind
    #: The negative priority.
    priority: float
    kind: RequestKind
    sequence: int


class Permit:
    """The permission to send one request.

    PicWish counts a request when it arrives, which may be long after the permit was granted. Until `mark_sent`, the
    permit counts as a request that leaves now.
    """

    __slots__ = ("_rate_limiter", "due_times")

    def __init__(self, rate_limiter: "RateLimiter", due_times: tuple[float, float]) -> None:
        """``due_times`` are the times (monotonic seconds) at which the permit before and this one were due."""
        self._rate_limiter = rate_limiter
        self.due_times = due_times

    def mark_sent(self) -> None:
        """Record that the first byte leaves now. Further calls have no effect."""
        self._rate_limiter.close_permit(self, sent=True)

    def release(self) -> None:
        """Record that the request has ended. A permit whose request never left can be granted again."""
        self._rate_limiter.close_permit(self, sent=False)


class RateLimiter:
    """A source of permits for requests, the most urgent first, and never more than ``qps`` in any second.

    Permits are due at intervals of a little more than 1/rate. If a timer is late, the next permits come
    sooner, but no second gets more than ``qps``.
    """

    def __init__(self, qps: float, clock: Clock, request_log: RequestLog | None = None) -> None:
        """Count the requests of earlier runs as well, which are in ``request_log``."""
        self._qps = qps
        self._clock = clock
        self._sequence = count()
        self._waiters: list[tuple[_QueueKey, asyncio.Future[Permit]]] = []
        self._waiter_added = asyncio.Event()
        self._permit_closed = asyncio.Event()
        self._paused_until = -math.inf
        self._request_log = request_log
        ages = [] if request_log is None else request_log.recent_ages()
        # When the last requests left, in monotonic seconds.
        self._sent_times = deque(clock.monotonic() - age for age in ages)
        # When the last permit was due.
        self._last_due_at = self._sent_times[-1] if self._sent_times else -math.inf
        # Permits whose requests have not left yet.
        self._unsent_permits: set[Permit] = set()
        # The rate after the last 429, and when that was.
        self._throttled_rate = (qps, -math.inf)
        # When the loop must look again while requests wait.
        self._next_turn_at = 0.0
        # Whether a query goes before the creates. After a 429 one does, so that refused creates do not starve queries.
        self._query_goes_next = False

    async def acquire(self, kind: RequestKind, priority: int | None = None) -> Permit:
        """Wait for a permit. If the wait is cancelled, no permit is used up.

        Creates of a higher ``priority`` go first. A query with a priority goes before creates of a lower one.
        """
        granted: asyncio.Future[Permit] = asyncio.get_running_loop().create_future()
        rank = kind if priority is None else min(kind, RequestKind.CREATE)
        heapq.heappush(self._waiters, (_QueueKey(rank, -(priority or 0), kind, next(self._sequence)), granted))
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
        """Handle a 429: pause for ``retry_after`` seconds (None: 1 s) and lower the rate, which recovers slowly."""
        now = self._clock.monotonic()
        if now - self._throttled_rate[1] >= _THROTTLE_DEDUP_SECONDS:
            self._throttled_rate = (max(self._qps * _MIN_RATE_SHARE, self.rate * THROTTLE_FACTOR), now)
        self._query_goes_next = True
        pause = _DEFAULT_PENALTY if retry_after is None else retry_after
        self._paused_until = max(self._paused_until, now + min(pause, _PENALTY_MAX))

    def set_qps(self, qps: float) -> None:
        """Use the rate of a new configuration. If it differs, forget an earlier 429; otherwise change nothing."""
        if qps == self._qps:
            return
        self._qps = qps
        self._throttled_rate = (qps, -math.inf)

    @property
    def rate(self) -> float:
        """The requests per second at present."""
        rate, since = self._throttled_rate
        return recovered_rate(self._qps, rate, self._clock.monotonic() - since)

    @property
    def last_throttle(self) -> tuple[float, float] | None:
        """The rate after the last 429 and how many seconds ago that was, or None once the rate has recovered."""
        rate, since = self._throttled_rate
        return (rate, self._clock.monotonic() - since) if self.rate < self._qps else None

    @property
    def seconds_until_permit(self) -> float:
        """The seconds until the next permit can be granted at the earliest, at least 0."""
        pause = self._compute_delay()
        return max(0.0, pause) if math.isfinite(pause) else 0.0

    @property
    def overdue_seconds(self) -> float:
        """The seconds for which a permit could have been granted to a waiting request and was not, else 0."""
        if all(granted.done() for _, granted in self._waiters):
            return 0.0
        return max(0.0, self._clock.monotonic() - self._next_turn_at)

    async def run(self) -> None:
        """Grant permits until cancelled."""
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
                # A waiter that no longer needs the permit releases it now, before the next delay is computed.
                await asyncio.sleep(0)

    def close_permit(self, permit: Permit, *, sent: bool) -> None:
        """Count the request as sent, or take its permit back; a permit is closed only once."""
        if permit not in self._unsent_permits:
            return
        self._unsent_permits.remove(permit)
        if sent:
            self._sent_times.append(self._clock.monotonic())
            if self._request_log is not None:
                self._request_log.append()
        elif permit.due_times[1] == self._last_due_at:
            self._last_due_at = permit.due_times[0]
        self._permit_closed.set()

    def _next_waiter(self) -> asyncio.Future[Permit]:
        queries = [
            (key, granted) for key, granted in self._waiters if key.kind is RequestKind.QUERY and not granted.done()
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
        """Return the seconds until the next permit; infinite while ``qps`` granted requests have not left yet."""
        now = self._clock.monotonic()
        window = _WINDOW / min(1.0, self._qps)
        while self._sent_times and self._sent_times[0] <= now - window:
            self._sent_times.popleft()
        room = max_per_second(self._qps) - len(self._unsent_permits)
        if room <= 0:
            return math.inf
        full = self._sent_times[-room] + window - now if len(self._sent_times) >= room else 0.0
        return max(full, self._last_due_at + INTERVAL_MARGIN / self.rate - now, self._paused_until - now)

    def _grant_permit(self) -> Permit:
        now, interval = self._clock.monotonic(), INTERVAL_MARGIN / self.rate
        due = self._last_due_at + interval
        # After an idle time nothing is caught up.
        next_due = due if now - due <= max(_CATCH_UP_MAX, interval / 4) else now
        permit = Permit(self, (self._last_due_at, next_due))
        self._unsent_permits.add(permit)
        self._last_due_at = next_due
        return permit
