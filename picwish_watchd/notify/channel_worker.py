"""Bringing messages to one notifier: one after the other, in a thread of its own, with patience that ends."""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from picwish_watchd.clock import Clock
from picwish_watchd.config.notifiers import Notifier
from picwish_watchd.notify.channels.send import send_with_timeout
from picwish_watchd.notify.message import SUMMARY_EVENT, Message, MessageSent
from picwish_watchd.runtime.keyed_executor import KeyedExecutor
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.wording import pluralize

_log = structlog.get_logger()

#: messages for one notifier
MAX_QUEUED_MESSAGES = 100
# seconds between tries of one message: a network may be out for hours
_BACKOFF_DELAYS = (5.0, 30.0, 120.0, *[600.0] * 24)
# tries of a message that may have been heard
_MAX_DOUBTFUL_TRIES = 5
_HOUR = 3600.0
# messages of a summary that are told by their subjects
_MAX_LISTED = 20


class ChannelWorker:
    """One notifier, and the messages that wait for it. ``done`` is called for each that is sent or given up."""

    def __init__(
        self, notifier: Notifier, *, lanes: KeyedExecutor, clock: Clock, done: Callable[[Message], None]
    ) -> None:
        self.notifier = notifier
        self._executor = lanes
        self._clock = clock
        self._on_done = done
        self._queue: deque[Message] = deque()
        self._wakeup = Wakeup()
        # of the messages of the last hour, monotonic
        self._sent_times: deque[float] = deque()
        self._overflowing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way: there is no message, or one that is tried again later."""
        return self._idle.is_set()

    async def wait_until_idle(self) -> None:
        """Returns once nothing is under way."""
        await self._idle.wait()

    def enqueue(self, notice: Message) -> None:
        """Brings it when it is its turn; drops it, with one line in the log, while too many wait."""
        if len(self._queue) >= MAX_QUEUED_MESSAGES:
            if not self._overflowing:
                self._log_failure(notice, f"{MAX_QUEUED_MESSAGES} messages wait already; what comes now is dropped")
            self._overflowing = True
            self._on_done(notice)
            return
        self._queue.append(notice)
        self._idle.clear()
        self._wakeup.notify()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if not self._queue:
                self._overflowing = False
                self._idle.set()
                await self._wakeup.wait(_HOUR)
                continue
            if (pause := self._rate_limit_delay()) > 0:
                self._idle.set()
                await self._clock.sleep(pause)
                if len(self._queue) > 1:
                    await self._send_with_retries(*self._drain_queue())
                    continue
            self._idle.clear()
            await self._send_with_retries(self._queue.popleft())

    def _rate_limit_delay(self) -> float:
        """Seconds until one more message fits into the hour."""
        now = self._clock.monotonic()
        while self._sent_times and now - self._sent_times[0] >= _HOUR:
            self._sent_times.popleft()
        if len(self._sent_times) < self.notifier.at_most:
            return 0.0
        return self._sent_times[len(self._sent_times) - self.notifier.at_most] + _HOUR - now

    def _drain_queue(self) -> list[Message]:
        found = list(self._queue)
        self._queue.clear()
        return found

    async def _send_with_retries(self, *notices: Message) -> None:
        """One message, or one for all of several: tried a few times, then dropped with a line in the log."""
        notice = notices[0] if len(notices) == 1 else summarize_messages(notices, self.notifier.at_most)
        self._sent_times.append(self._clock.monotonic())
        for tries, pause in enumerate((*_BACKOFF_DELAYS, None), 1):
            self._idle.clear()
            outcome = await send_with_timeout(self._executor, self.notifier, notice)
            if isinstance(outcome, MessageSent):
                _log.info("notify.sent", to=self.notifier.label, notice=notice.id, subject=notice.subject)
                break
            if pause is None or not outcome.is_retryable or (tries >= _MAX_DOUBTFUL_TRIES and not outcome.not_accepted):
                self._log_failure(notice, outcome.reason)
                break
            _log.debug("notify.tried", to=self.notifier.label, notice=notice.id, reason=outcome.reason, again_in=pause)
            self._idle.set()
            await self._clock.sleep(pause)
        for each in notices:
            self._on_done(each)

    def _log_failure(self, notice: Message, reason: str) -> None:
        label = self.notifier.label
        _log.error("notify.failed", to=label, notice=notice.id, subject=notice.subject, reason=reason)


def summarize_messages(notices: Sequence[Message], at_most: int) -> Message:
    """One message for all that had to wait."""
    ids = hashlib.sha256("\0".join(notice.id for notice in notices).encode()).hexdigest()[:16]
    kinds = Counter(notice.event for notice in notices)
    told = [f"- {notice.subject}" for notice in notices[:_MAX_LISTED]]
    if len(notices) > _MAX_LISTED:
        told.append(f"- and {len(notices) - _MAX_LISTED} more")
    return Message(
        id=f"summary-{ids}",
        event=SUMMARY_EVENT,
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
