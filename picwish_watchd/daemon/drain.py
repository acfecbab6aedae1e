"""``run --once``: find out when all work is done, or when the rest needs a person."""

from collections import Counter
from collections.abc import Callable

import structlog

from picwish_watchd.clock import Clock
from picwish_watchd.config.model import Config
from picwish_watchd.job import UNSUCCESSFUL, Job
from picwish_watchd.journal.writer import Journal
from picwish_watchd.pipeline.gate import CloseReason, Gate, GateClosure
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.reporting.forecast import Forecast, build_forecast
from picwish_watchd.state import AT_PICWISH, State

_log = structlog.get_logger()

# Seconds between checks whether the run is over.
_CHECK_INTERVAL = 0.1
# Seconds between forecasts.
_FORECAST_INTERVAL = 2.0
# Seconds between forecasts while there is nothing to forecast yet.
_FIRST_FORECAST_INTERVAL = 0.5
# Seconds to wait for an API that does not answer, or while the key is refused with tasks at PicWish.
_GIVE_UP_AFTER = 300.0


class Drain:
    """Follows one run of ``run --once``. Make it before the run changes anything in the journal."""

    def __init__(
        self, journal: Journal, clock: Clock, current_config: Callable[[], Config], *, gate: Gate, inboxes: Inboxes
    ) -> None:
        """``current_config`` returns the configuration in force, which a reload replaces."""
        self._journal = journal
        self._clock = clock
        self._current_config = current_config
        self._gate = gate
        self._inboxes = inboxes
        self._start_event = journal.last_event_id()
        self._forecast: Forecast | None = None
        self._forecast_at = 0.0
        # Why nothing was submitted at the time of the forecast.
        self._forecast_closure: GateClosure | None = None

    async def run(self) -> None:
        """Return when all work is done, or when all that remains needs a person."""
        clock = self._clock
        deadline = clock.monotonic() + _GIVE_UP_AFTER
        while True:
            await clock.sleep(_CHECK_INTERVAL)
            if self._gate.closure is None:
                deadline = clock.monotonic() + _GIVE_UP_AFTER
            timed_out = clock.monotonic() > deadline
            if (
                self._is_intake_idle()
                and self._is_disposal_done()
                and (self._count_remaining() == 0 or self._is_stuck(timed_out=timed_out))
            ):
                return

    def counts_by_state(self) -> Counter[State]:
        """Return the number of jobs by state: all unfinished jobs, and those that ended in this run."""
        return Counter(self._journal.counts_since(self._start_event))

    def forecast(self, rate: float, *, refresh: bool = False) -> Forecast:
        """Return the forecast of the remaining work at ``rate`` requests a second.

        The last forecast is returned unless it is 2 s old, the gate opened or closed since, or ``refresh`` is true.
        """
        closure, now = self._gate.why_not_submitting, self._clock.monotonic()
        images = 0 if self._forecast is None else self._forecast.images
        refresh |= closure != self._forecast_closure or now - self._forecast_at >= (
            _FORECAST_INTERVAL if images else _FIRST_FORECAST_INTERVAL
        )
        if self._forecast is None or refresh:
            self._forecast_at, self._forecast_closure = now, closure
            self._forecast = build_forecast(
                self._current_config().summary(),
                self._journal,
                self._clock.now(),
                counts=self._journal.counts_by_rule(),
                rate=rate,
                stopped=None if closure is None else closure.message,
                collecting=self._gate.closure is None,
            )
        return self._forecast

    def list_finished_jobs(self) -> list[Job]:
        """Return the jobs that were completed in this run, oldest first."""
        return self._journal.jobs_changed_since(self._start_event, (State.DONE,))

    def compute_exit_code(self) -> int:
        """Return 0 if all images are done; else log the reason and return 1.

        To be called before the inboxes are closed.
        """
        remaining = self._count_remaining()
        if remaining:
            closure = self._gate.why_not_submitting
            reason = closure.message if closure else "`picwish-watchd jobs` shows what each of them waits for"
            _log.error("run.unfinished", jobs=remaining, reason=reason)
        unavailable = any(inbox.unavailable for inbox in self._inboxes.list_active())
        unreadable = self._inboxes.unreadable_count
        if unreadable:
            _log.error(
                "run.unread", number=unreadable, reason="files or folders could not be read; see the warnings above"
            )
        unsuccessful = self._journal.jobs_changed_since(self._start_event, UNSUCCESSFUL)
        return 1 if unsuccessful or remaining or unavailable or unreadable else 0

    def _is_intake_idle(self) -> bool:
        return (
            self._inboxes.has_scanned_all
            and not self._inboxes.has_pending_rescans
            and self._inboxes.settling_count == 0
        )

    def _is_disposal_done(self) -> bool:
        """Return whether every original that should be moved was tried, or another one for the same folder."""
        return self._journal.count_waiting_originals(self._clock.now()) == 0

    def _count_remaining(self) -> int:
        """Return the number of unfinished jobs, without queued ones whose rule is no longer in the configuration."""
        journal = self._journal
        names = {rule.name for rule in self._current_config().rules}
        counts = journal.counts_by_rule()
        orphans = sum(states.get(State.QUEUED, 0) for name, states in counts.items() if name not in names)
        return journal.count_unfinished() - orphans

    def _is_stuck(self, *, timed_out: bool) -> bool:
        """Return whether all remaining jobs need a person. ``timed_out``: the gate was closed for too long."""
        totals: Counter[State] = Counter()
        for states in self._journal.counts_by_rule().values():
            totals.update(states)
        at_picwish = sum(totals[state] for state in AT_PICWISH)
        if at_picwish:
            return timed_out
        delivering = totals[State.DELIVERING]
        if delivering != self._journal.count_blocked(State.DELIVERING):
            return False
        closure = self._gate.closure
        gate_needs_person = closure is not None and (timed_out or closure.code is CloseReason.UNAUTHORIZED)
        return (
            gate_needs_person
            or self._gate.budget_closure is not None
            or self._has_only_waiting_jobs(self._count_remaining() - delivering, delivering)
        )

    def _has_only_waiting_jobs(self, queued: int, delivering: int) -> bool:
        """Return whether each queued job was tried in vain, is held by the burst limit, or is a copy of such a job."""
        journal = self._journal
        waiting = journal.count_blocked(State.QUEUED) + sum(journal.flood_counts().values())
        if waiting < queued and waiting + delivering > 0:
            waiting += journal.count_waiting_duplicates()
        return waiting == queued
