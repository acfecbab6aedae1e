"""What `status` cannot see from outside, or would have to count for long: the daemon says it in the journal."""

import math
import os
from contextlib import suppress

from picwish_watchd import __version__
from picwish_watchd.clock import day_start, month_start
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.reporting.daemon_report import DaemonReport, GateReport, InboxReport
from picwish_watchd.scheduling.rate_limiter import RateLimiter

# seconds until the journal is tried again that did not take it
_RETRY_DELAY = 10.0
# seconds from one report to the next that only has newer figures
_REFRESH_INTERVAL = 10.0


class ReportPublisher:
    """The daemon's word on itself, as long as it serves."""

    def __init__(self, context: StepContext, gate: Gate, inboxes: Inboxes, rate_limiter: RateLimiter) -> None:
        self._context, self._gate, self._inboxes, self._rate_limiter = context, gate, inboxes, rate_limiter
        self._started_at = context.clock.now()
        # when a report that the journal did not take is to be repeated (monotonic)
        self._retry_at = math.inf
        # monotonic
        self._published_at = -math.inf
        # the last line of history that is counted in it
        self._published_event = 0
        self._published_rate: tuple[float, float] | None = None
        #: why the last reload changed nothing
        self.reload_error = ""

    def publish(self, *, synced: bool = True) -> None:
        """Writes it down; not ``synced``: without the disk's word for it, as it is soon written again.

        A journal that is full or locked may keep the event loop for seconds: it is tried again in `look`, some later.
        """
        try:
            self._context.journal.publish_report(self._render(), synced=synced)
        except JournalTemporaryError:
            self._retry_at = self._context.clock.monotonic() + _RETRY_DELAY
        else:
            self._retry_at = math.inf

    def refresh(self) -> None:
        """To be called once a second: tells it again where that failed, or where something has changed by itself."""
        now = self._context.clock.monotonic()
        if now > self._retry_at or self._last_throttle() != self._published_rate:
            self.publish()
        elif self._retry_at == math.inf and now - self._published_at >= _REFRESH_INTERVAL and self._is_behind():
            self.publish(synced=False)

    def _is_behind(self) -> bool:
        with suppress(JournalTemporaryError):
            return self._context.journal.last_event_id() != self._published_event
        return False

    def _last_throttle(self) -> tuple[float, float] | None:
        """The rate after the last 429, and when that was (Unix seconds); None once it has crept back."""
        lowered = self._rate_limiter.last_throttle
        return None if lowered is None else (lowered[0], round(self._context.clock.now() - lowered[1], 1))

    def _render(self) -> str:
        context, journal, closure = self._context, self._context.journal, self._gate.why_not_submitting
        now, counts = context.clock.now(), journal.job_counts()
        self._published_at, self._published_event = context.clock.monotonic(), counts.last_event_id
        self._published_rate = self._last_throttle()
        report = DaemonReport(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            refused=self.reload_error or None,
            slowed=self._published_rate,
            config=context.config.summary_to_json(),
            blocked=None if closure is None else GateReport(closure.code, closure.message),
            inboxes={
                inbox.rule.name: InboxReport(inbox.is_watching, inbox.unavailable, inbox.observer)
                for inbox in self._inboxes.list_active()
            },
            job_counts=counts,
            credits={moment: journal.credits_since(moment) for moment in (day_start(now), month_start(now))},
        )
        return report.to_json()
