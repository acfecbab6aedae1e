"""Publish the daemon's report in the journal: what `status` cannot see from outside, or would take long to count."""

import math
import os
from collections.abc import Callable
from contextlib import suppress

from picwish_watchd import __version__
from picwish_watchd.clock import Clock, day_start, month_start
from picwish_watchd.config.model import Config
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.journal.writer import Journal
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.reporting.daemon_report import DaemonReport, GateReport, InboxReport
from picwish_watchd.scheduling.rate_limiter import RateLimiter

#: Seconds until a report that the journal did not take is published again.
_RETRY_DELAY = 10.0
#: Seconds between reports that differ only in their figures.
_REFRESH_INTERVAL = 10.0


class ReportPublisher:
    """Publishes the report at each change, and at least every `_REFRESH_INTERVAL` while figures change."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        current_config: Callable[[], Config],
        *,
        gate: Gate,
        inboxes: Inboxes,
        rate_limiter: RateLimiter,
    ) -> None:
        """``current_config`` returns the configuration in force, which a reload replaces."""
        self._journal = journal
        self._clock = clock
        self._current_config = current_config
        self._gate = gate
        self._inboxes = inboxes
        self._rate_limiter = rate_limiter
        self._started_at = clock.now()
        # Monotonic seconds; infinite unless the journal did not take the last report.
        self._retry_at = math.inf
        # Monotonic seconds.
        self._published_at = -math.inf
        # The last line of history that the published report counts.
        self._published_event = 0
        self._published_rate: tuple[float, float] | None = None
        #: Why the last reload changed nothing; empty if it did.
        self.reload_error = ""

    def publish(self, *, synced: bool = True) -> None:
        """Write the report. Without ``synced``, do not wait for the disk: the report is soon written again.

        A journal that is full or locked can block the event loop for seconds, so `refresh` tries again only later.
        """
        try:
            self._journal.publish_report(self._build_report().to_json(), synced=synced)
        except JournalTemporaryError:
            self._retry_at = self._clock.monotonic() + _RETRY_DELAY
        else:
            self._retry_at = math.inf

    def refresh(self) -> None:
        """Publish again after a failure, after a change of the rate, or when figures are old. Call it once a second."""
        now = self._clock.monotonic()
        if now > self._retry_at or self._last_throttle() != self._published_rate:
            self.publish()
        elif self._retry_at == math.inf and now - self._published_at >= _REFRESH_INTERVAL and self._is_behind():
            self.publish(synced=False)

    def _is_behind(self) -> bool:
        with suppress(JournalTemporaryError):
            return self._journal.last_event_id() != self._published_event
        return False

    def _last_throttle(self) -> tuple[float, float] | None:
        """Return the rate after the last 429, and when that was (Unix seconds); None once it has recovered."""
        throttle = self._rate_limiter.last_throttle
        return None if throttle is None else (throttle[0], round(self._clock.now() - throttle[1], 1))

    def _build_report(self) -> DaemonReport:
        journal, closure, now = self._journal, self._gate.why_not_submitting, self._clock.now()
        counts = journal.job_counts()
        self._published_at, self._published_event = self._clock.monotonic(), counts.last_event_id
        self._published_rate = self._last_throttle()
        return DaemonReport(
            pid=os.getpid(),
            version=__version__,
            started_at=self._started_at,
            refused=self.reload_error or None,
            slowed=self._published_rate,
            config=self._current_config().summary_to_json(),
            blocked=None if closure is None else GateReport(closure.code, closure.message),
            inboxes={
                inbox.rule.name: InboxReport(inbox.is_watching, inbox.unavailable, inbox.observer)
                for inbox in self._inboxes.list_active()
            },
            job_counts=counts,
            credits={moment: journal.credits_since(moment) for moment in (day_start(now), month_start(now))},
        )
