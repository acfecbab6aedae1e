"""Deliver the messages of one notifier: one after another, with retries that end."""

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

#: Waiting messages of one notifier; later ones are dropped.
MAX_QUEUED_MESSAGES = 100
# Seconds between tries of one message: about four hours in all, because a network may be down for hours.
_BACKOFF_DELAYS = (5.0, 30.0, 120.0, *[600.0] * 24)
# Tries of a message that the other side may have received.
_MAX_DOUBTFUL_TRIES = 5
# Seconds.
_HOUR = 3600.0
# Messages whose subjects a summary lists.
_MAX_LISTED = 20


class ChannelWorker:
    """The queue of one notifier and the loop that sends it. ``on_done`` is called for each message sent or dropped."""

    def __init__(
        self, notifier: Notifier, *, executor: KeyedExecutor, clock: Clock, on_done: Callable[[Message], None]
    ) -> None:
        self.notifier = notifier
        self._executor = executor
        self._clock = clock
        self._on_done = on_done
        self._queue: deque[Message] = deque()
        self._wakeup = Wakeup()
        # Monotonic times of the messages of the last hour.
        self._sent_times: deque[float] = deque()
        self._overflowing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent: the queue is empty, or its messages wait for a later time."""
        return self._idle.is_set()

    async def wait_until_idle(self) -> None:
        """Wait until `is_idle` holds."""
        await self._idle.wait()

    def enqueue(self, message: Message) -> None:
        """Queue a message. If 100 wait already, drop it; the first that is dropped is logged."""
        if len(self._queue) >= MAX_QUEUED_MESSAGES:
            if not self._overflowing:
                reason = f"{MAX_QUEUED_MESSAGES} messages are waiting already; further ones are dropped"
                self._log_failure(message, reason)
            self._overflowing = True
            self._on_done(message)
            return
        self._queue.append(message)
        self._idle.clear()
        self._wakeup.notify()

    async def run(self) -> None:
        """Send the queued messages until cancelled."""
        while True:
            if not self._queue:
                self._overflowing = False
                self._idle.set()
                await self._wakeup.wait(_HOUR)
                continue
            if (delay := self._rate_limit_delay()) > 0:
                self._idle.set()
                await self._clock.sleep(delay)
                if len(self._queue) > 1:
                    await self._send_with_retries(*self._drain_queue())
                    continue
            self._idle.clear()
            await self._send_with_retries(self._queue.popleft())

    def _rate_limit_delay(self) -> float:
        """Return the seconds until `at_most` allows one more message in the hour; 0 if it does now."""
        now = self._clock.monotonic()
        while self._sent_times and now - self._sent_times[0] >= _HOUR:
            self._sent_times.popleft()
        if len(self._sent_times) < self.notifier.at_most:
            return 0.0
        return self._sent_times[len(self._sent_times) - self.notifier.at_most] + _HOUR - now

    def _drain_queue(self) -> list[Message]:
        messages = list(self._queue)
        self._queue.clear()
        return messages

    async def _send_with_retries(self, *messages: Message) -> None:
        """Send one message, or a summary of several; try a few times, then drop it with a line in the log."""
        message = messages[0] if len(messages) == 1 else summarize_messages(messages, self.notifier.at_most)
        self._sent_times.append(self._clock.monotonic())
        for tries, delay in enumerate((*_BACKOFF_DELAYS, None), 1):
            self._idle.clear()
            outcome = await send_with_timeout(self._executor, self.notifier, message)
            if isinstance(outcome, MessageSent):
                _log.info("notify.sent", to=self.notifier.label, notice=message.id, subject=message.subject)
                break
            if delay is None or not outcome.is_retryable or (tries >= _MAX_DOUBTFUL_TRIES and not outcome.not_accepted):
                self._log_failure(message, outcome.reason)
                break
            _log.debug("notify.tried", to=self.notifier.label, notice=message.id, reason=outcome.reason, again_in=delay)
            self._idle.set()
            await self._clock.sleep(delay)
        for each in messages:
            self._on_done(each)

    def _log_failure(self, message: Message, reason: str) -> None:
        label = self.notifier.label
        _log.error("notify.failed", to=label, notice=message.id, subject=message.subject, reason=reason)


def summarize_messages(messages: Sequence[Message], at_most: int) -> Message:
    """Build one message that lists the subjects of all messages that the limit of ``at_most`` an hour held back."""
    ids = hashlib.sha256("\0".join(message.id for message in messages).encode()).hexdigest()[:16]
    events = Counter(message.event for message in messages)
    subjects = [f"- {message.subject}" for message in messages[:_MAX_LISTED]]
    if len(messages) > _MAX_LISTED:
        subjects.append(f"- and {len(messages) - _MAX_LISTED} more")
    return Message(
        id=f"summary-{ids}",
        event=SUMMARY_EVENT,
        at=messages[-1].at,
        subject=f"{pluralize(len(messages), 'message')} in one",
        text="\n".join(
            [
                f"These {len(messages)} messages had to wait: at most {at_most} an hour are sent (at_most).",
                "",
                *subjects,
                "",
                "`picwish-watchd status` shows the current state.",
            ]
        ),
        facts={"messages": dict(events), "notices": [message.id for message in messages]},
    )
