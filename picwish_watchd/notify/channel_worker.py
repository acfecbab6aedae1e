"""Bringing messages to one notifier: one after the other, in a thread of its own, with patience that ends."""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from picwish_watchd.clock import Clock
from picwish_watchd.config.notifiers import Notifier
from picwish_watchd.notify.channels.send import attempt
from picwish_watchd.notify.message import SUMMARY, Notice, Sent
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.wording import pluralize

_log = structlog.get_logger()

#: messages for one notifier
MOST_WAITING = 100
# seconds between tries of one message: a network may be out for hours
_PAUSES = (5.0, 30.0, 120.0, *[600.0] * 24)
# tries of a message that may have been heard
_FEW = 5
_HOUR = 3600.0
# messages of a summary that are told by their subjects
_NAMED = 20


class Courier:
    """One notifier, and the messages that wait for it. ``done`` is called for each that is sent or given up."""

    def __init__(
        self, notifier: Notifier, *, lanes: KeyedExecutor, clock: Clock, done: Callable[[Notice], None]
    ) -> None:
        self.notifier = notifier
        self._lanes = lanes
        self._clock = clock
        self._done = done
        self._queue: deque[Notice] = deque()
        self._bell = Wakeup()
        # of the messages of the last hour, monotonic
        self._times: deque[float] = deque()
        self._overflowing = False
        self._rests = asyncio.Event()
        self._rests.set()

    @property
    def resting(self) -> bool:
        """Whether nothing is under way: there is no message, or one that is tried again later."""
        return self._rests.is_set()

    async def rested(self) -> None:
        """Returns once nothing is under way."""
        await self._rests.wait()

    def take(self, notice: Notice) -> None:
        """Brings it when it is its turn; drops it, with one line in the log, while too many wait."""
        if len(self._queue) >= MOST_WAITING:
            if not self._overflowing:
                self._tell(notice, f"{MOST_WAITING} messages wait already; what comes now is dropped")
            self._overflowing = True
            self._done(notice)
            return
        self._queue.append(notice)
        self._rests.clear()
        self._bell.notify()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._queue:
                self._overflowing = False
                self._rests.set()
                await self._bell.wait(_HOUR)
                continue
            if (pause := self._full_for()) > 0:
                self._rests.set()
                await self._clock.sleep(pause)
                if len(self._queue) > 1:
                    await self._bring(*self._drained())
                    continue
            self._rests.clear()
            await self._bring(self._queue.popleft())

    def _full_for(self) -> float:
        """Seconds until one more message fits into the hour."""
        now = self._clock.monotonic()
        while self._times and now - self._times[0] >= _HOUR:
            self._times.popleft()
        if len(self._times) < self.notifier.at_most:
            return 0.0
        return self._times[len(self._times) - self.notifier.at_most] + _HOUR - now

    def _drained(self) -> list[Notice]:
        found = list(self._queue)
        self._queue.clear()
        return found

    async def _bring(self, *notices: Notice) -> None:
        """One message, or one for all of several: tried a few times, then dropped with a line in the log."""
        notice = notices[0] if len(notices) == 1 else summed_up(notices, self.notifier.at_most)
        self._times.append(self._clock.monotonic())
        for tries, pause in enumerate((*_PAUSES, None), 1):
            self._rests.clear()
            outcome = await attempt(self._lanes, self.notifier, notice)
            if isinstance(outcome, Sent):
                _log.info("notify.sent", to=self.notifier.label, notice=notice.id, subject=notice.subject)
                break
            if pause is None or not outcome.again or (tries >= _FEW and not outcome.unheard):
                self._tell(notice, outcome.reason)
                break
            _log.debug("notify.tried", to=self.notifier.label, notice=notice.id, reason=outcome.reason, again_in=pause)
            self._rests.set()
            await self._clock.sleep(pause)
        for each in notices:
            self._done(each)

    def _tell(self, notice: Notice, reason: str) -> None:
        label = self.notifier.label
        _log.error("notify.failed", to=label, notice=notice.id, subject=notice.subject, reason=reason)


def summed_up(notices: Sequence[Notice], at_most: int) -> Notice:
    """One message for all that had to wait."""
    ids = hashlib.sha256("\0".join(notice.id for notice in notices).encode()).hexdigest()[:16]
    kinds = Counter(notice.event for notice in notices)
    told = [f"- {notice.subject}" for notice in notices[:_NAMED]]
    if len(notices) > _NAMED:
        told.append(f"- and {len(notices) - _NAMED} more")
    return Notice(
        id=f"summary-{ids}",
        event=SUMMARY,
        at=notices[-1].at,
        subject=f"{pluralize(len(notices), 'message')} in one",
        text="\n".join(
            [
                f"These {len(notices)} messages had to wait, as more than {at_most} an hour are not sent (at_most):",
                "",
                *told,
                "",
                "`picwish-watchd status` shows how things stand.",
            ]
        ),
        facts={"messages": dict(kinds), "notices": [notice.id for notice in notices]},
    )
