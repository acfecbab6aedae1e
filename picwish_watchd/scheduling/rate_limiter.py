"""The one place where requests are spent: PicWish counts creates and queries of a key together."""

import asyncio
import heapq
import math
from collections import deque
from enum import IntEnum
from itertools import count
from typing import NamedTuple

from picwish_watchd.clock import Clock
from picwish_watchd.scheduling.rate import LOWERED, MARGIN, crept_back, most_in_a_second
from picwish_watchd.scheduling.request_log import Departures

_WINDOW = 1.02  # seconds in which never more than QPS requests leave; the rest of the margin makes up for late timers
_SLACK = 0.05  # how late a slot may be for the next ones to catch up, in seconds; or a quarter of the beat
_LOWEST = 0.1  # of QPS
_PENALTY = 1.0  # seconds without a request after a 429 that names no Retry-After
_PENALTY_MAX = 300.0
_SAME = 1.0  # 429s within so many seconds are one lesson: they answer requests that left before it was learnt
_TURN_MAX = 1.0  # seconds after which a new rate is looked at
_LEAVING = 60.0  # seconds in which a request must have left or failed: connections are given up sooner


class Urgency(IntEnum):
    """Who goes first when a slot is free."""

    PROBE = 0  #: is PicWish back? Seldom, and who asks for thousands of old tasks must not keep the gate closed
    EXPIRING = 1  #: a query for a task whose hour is running out
    CREATE = 2  #: a new task: while images wait, nothing is won by asking early
    QUERY = 3  #: is it done?


class _Turn(NamedTuple):
    """The place of one that waits; the lowest goes first."""

    urgency: Urgency  #: of a query with a priority that of a create
    priority: float  #: the higher the lower
    kind: Urgency
    number: int


class Slot:
    """Leave for one request.

    PicWish counts when a request comes, and a connection may have to be made first. So until `left` is called the slot
    counts as if the request were just leaving.
    """

    __slots__ = ("_pacer", "beats")

    def __init__(self, pacer: "Pacer", beats: tuple[float, float]) -> None:
        """``beats`` are the pacer's: as it was, and as this slot made it."""
        self._pacer = pacer
        self.beats = beats

    def left(self) -> None:
        """The first byte leaves at this moment. To be called once, more does no harm."""
        self._pacer._close(self, left=True)

    def over(self) -> None:
        """The request has ended. One that never left gives its slot back."""
        self._pacer._close(self, left=False)


class Pacer:
    """Grants slots for requests, the most urgent first, never more than ``qps`` in any second.

    Slots keep a beat of a little more than 1/rate; what a late timer loses the next ones catch up, as far as no second
    then holds more than ``qps``.
    """

    def __init__(self, qps: float, clock: Clock, departures: Departures | None = None) -> None:
        """``departures``: of the requests of earlier runs, which count as well."""
        self._qps = qps
        self._clock = clock
        self._order = count()
        self._waiting: list[tuple[_Turn, asyncio.Future[Slot]]] = []
        self._wanted = asyncio.Event()
        self._freed = asyncio.Event()
        self._rest_until = -math.inf
        self._departures = departures
        earlier = [] if departures is None else departures.ago()
        self._left = deque(clock.monotonic() - ago for ago in earlier)  # of the last requests, when
        self._beat = self._left[-1] if self._left else -math.inf  # when the last slot was due
        self._leaving: set[Slot] = set()  # granted, and not known to have left
        self._lowered = (qps, -math.inf)  # the rate, and when it was so
        self._turn = 0.0  # when the loop is to turn, as long as somebody waits
        self._courtesy = False  # after a 429 a query goes before the creates: refused creates must not starve them

    async def slot(self, urgency: Urgency, priority: int | None = None) -> Slot:
        """Waits for a slot. Cancelled while waiting, nothing is spent.

        Creates of a higher ``priority`` go first, and so does a query that has one, before creates of a lower one.
        """
        granted: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        rank = urgency if priority is None else min(urgency, Urgency.CREATE)
        heapq.heappush(self._waiting, (_Turn(rank, -(priority or 0), urgency, next(self._order)), granted))
        if not self._wanted.is_set():
            self._turn = self._clock.monotonic()
            self._wanted.set()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                granted.result().over()
            raise

    def slow_down(self, retry_after: float | None) -> None:
        """PicWish said 429: no request for a while (seconds), and fewer afterwards; the rate creeps back."""
        now = self._clock.monotonic()
        if now - self._lowered[1] >= _SAME:
            self._lowered = (max(self._qps * _LOWEST, self.rate * LOWERED), now)
        self._courtesy = True
        rest = _PENALTY if retry_after is None else retry_after
        self._rest_until = max(self._rest_until, now + min(rest, _PENALTY_MAX))

    def set_qps(self, qps: float) -> None:
        """Another configuration is in force. What a 429 has taught is forgotten only where the rate is another one."""
        if qps == self._qps:
            return
        self._qps = qps
        self._lowered = (qps, -math.inf)

    @property
    def rate(self) -> float:
        """Requests a second that are asked of PicWish at present."""
        rate, since = self._lowered
        return crept_back(self._qps, rate, self._clock.monotonic() - since)

    @property
    def lowered(self) -> tuple[float, float] | None:
        """The rate after the last 429, and how many seconds ago that was; None once it has crept back."""
        rate, since = self._lowered
        return (rate, self._clock.monotonic() - since) if self.rate < self._qps else None

    @property
    def wait(self) -> float:
        """Seconds until the next slot can be granted at the earliest, at least 0."""
        pause = self._pause()
        return max(0.0, pause) if math.isfinite(pause) else 0.0

    @property
    def overdue(self) -> float:
        """Seconds for which somebody has been waiting for a slot that could be granted, and was not; else 0."""
        if all(granted.done() for _, granted in self._waiting):
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
            self._freed.clear()
            pause = self._pause()
            self._turn = self._clock.monotonic() + min(_LEAVING, max(0.0, pause))
            if pause == math.inf:
                await self._freed.wait()
            elif pause > 0:
                await self._clock.sleep(min(pause, _TURN_MAX))
            else:
                self._next_waiter().set_result(self._spend())
                await asyncio.sleep(0)  # whoever has no use for it after all gives it back now, and nothing is lost

    def _next_waiter(self) -> asyncio.Future[Slot]:
        queries = [
            (turn, granted) for turn, granted in self._waiting if turn.kind is Urgency.QUERY and not granted.done()
        ]
        if self._courtesy and queries:
            self._courtesy = False
            first = min(queries)
            self._waiting.remove(first)
            heapq.heapify(self._waiting)
            return first[1]
        return heapq.heappop(self._waiting)[1]

    def _drop_cancelled(self) -> None:
        while self._waiting and self._waiting[0][1].done():
            heapq.heappop(self._waiting)

    def _pause(self) -> float:
        """Seconds until the next slot; infinite while as many requests as a second may hold are just leaving."""
        now, most = self._clock.monotonic(), most_in_a_second(self._qps)
        window = _WINDOW / min(1.0, self._qps)
        while self._left and self._left[0] <= now - window:
            self._left.popleft()
        room = most - len(self._leaving)
        if room <= 0:
            return math.inf
        full = self._left[-room] + window - now if len(self._left) >= room else 0.0
        return max(full, self._beat + MARGIN / self.rate - now, self._rest_until - now)

    def _spend(self) -> Slot:
        now, interval = self._clock.monotonic(), MARGIN / self.rate
        due = self._beat + interval
        beat = due if now - due <= max(_SLACK, interval / 4) else now  # after a rest nothing is caught up
        slot = Slot(self, (self._beat, beat))
        self._leaving.add(slot)
        self._beat = beat
        return slot

    def _close(self, slot: Slot, *, left: bool) -> None:
        if slot not in self._leaving:
            return
        self._leaving.remove(slot)
        if left:
            self._left.append(self._clock.monotonic())
            if self._departures is not None:
                self._departures.note()
        elif slot.beats[1] == self._beat:
            self._beat = slot.beats[0]
        self._freed.set()
