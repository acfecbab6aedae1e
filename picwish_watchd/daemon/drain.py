"""``run --once``: when is nothing left to do, and when can nothing more be done?"""

from collections import Counter

import structlog

from picwish_watchd.job import UNSUCCESSFUL, Job
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.gate import CloseReason, Gate, GateClosure
from picwish_watchd.pipeline.inboxes import Inboxes
from picwish_watchd.reporting.forecast import Forecast, build_forecast
from picwish_watchd.state import AT_PICWISH, State

_log = structlog.get_logger()

_CHECK_INTERVAL = 0.1
# seconds between forecasts
_FORECAST_INTERVAL = 2.0
# the same, until there is anything to foretell
_FIRST_FORECAST_INTERVAL = 0.5
# seconds that a dead API, or a refused key with tasks at PicWish, is waited for
_GIVE_UP_AFTER = 300.0


class Drain:
    """Watches over one run. Made before anything has happened in it."""

    def __init__(self, context: StepContext, *, gate: Gate, inboxes: Inboxes) -> None:
        self._context = context
        self._gate = gate
        self._inboxes = inboxes
        self._start_event = context.journal.last_event_id()
        self._forecast: Forecast | None = None
        self._forecast_at = 0.0
        # as it was then
        self._forecast_closure: GateClosure | None = None

    async def run(self) -> None:
        """Returns when all is done, or when all that is left waits for a person."""
        clock = self._context.clock
        give_up = clock.monotonic() + _GIVE_UP_AFTER
        while True:
            await clock.sleep(_CHECK_INTERVAL)
            if self._gate.closure is None:
                give_up = clock.monotonic() + _GIVE_UP_AFTER
            weary = clock.monotonic() > give_up
            if (
                self._is_intake_idle()
                and self._is_disposal_done()
                and (self._count_remaining() == 0 or self._is_stuck(weary=weary))
            ):
                return

    def counts_by_state(self) -> Counter[State]:
        """Number of jobs by state: those on their way, and those that ended in this run."""
        return Counter(self._context.journal.counts_since(self._start_event))

    def forecast(self, rate: float, *, afresh: bool = False) -> Forecast:
        """What is left to do, at ``rate`` requests a second; looked at ``afresh`` every 2 seconds, and where the gate
        was closed or opened.
        """
        context, blocked = self._context, self._gate.why_not_submitting
        now = context.clock.monotonic()
        images = 0 if self._forecast is None else self._forecast.images
        afresh |= blocked != self._forecast_closure or now - self._forecast_at >= (
            _FORECAST_INTERVAL if images else _FIRST_FORECAST_INTERVAL
        )
        if self._forecast is None or afresh:
            self._forecast_at, self._forecast_closure = now, blocked
            self._forecast = build_forecast(
                context.config.summary(),
                context.journal,
                context.clock.now(),
                counts=context.journal.counts_by_rule(),
                rate=rate,
                stopped=None if blocked is None else blocked.message,
                collecting=self._gate.closure is None,
            )
        return self._forecast

    def list_finished_jobs(self) -> list[Job]:
        """What was done in this run, oldest first."""
        return self._context.journal.jobs_changed_since(self._start_event, (State.DONE,))

    def compute_exit_code(self) -> int:
        """0 if all went well; else 1, and the log says why. To be asked while the desks are open."""
        left = self._count_remaining()
        if left:
            blocked = self._gate.why_not_submitting
            reason = blocked.message if blocked else "`picwish-watchd jobs` shows what each of them waits for"
            _log.error("run.unfinished", jobs=left, reason=reason)
        away = any(desk.unavailable for desk in self._inboxes.list_active())
        unreadable = self._inboxes.unreadable_count
        if unreadable:
            _log.error("run.unread", number=unreadable, reason="files or folders could not be read; see above")
        bad = self._context.journal.jobs_changed_since(self._start_event, UNSUCCESSFUL)
        return 1 if bad or left or away or unreadable else 0

    def _is_intake_idle(self) -> bool:
        return (
            self._inboxes.has_scanned_all
            and not self._inboxes.has_pending_rescans
            and self._inboxes.settling_count == 0
        )

    def _is_disposal_done(self) -> bool:
        """Whether every original that is to go was at least tried, or one for all that wait for the same folder."""
        return self._context.journal.count_waiting_originals(self._context.clock.now()) == 0

    def _count_remaining(self) -> int:
        """Number of jobs on their way, less those that wait for a rule that left the configuration."""
        journal = self._context.journal
        names = {rule.name for rule in self._context.config.rules}
        counts = journal.counts_by_rule()
        orphans = sum(states.get(State.QUEUED, 0) for name, states in counts.items() if name not in names)
        return journal.count_unfinished() - orphans

    def _is_stuck(self, *, weary: bool) -> bool:
        """Whether all that is left waits for something that a person has to mend."""
        totals: Counter[State] = Counter()
        for states in self._context.journal.counts_by_rule().values():
            totals.update(states)
        at_picwish = sum(totals[state] for state in AT_PICWISH)
        if at_picwish:
            return weary
        delivering = totals[State.DELIVERING]
        if delivering != self._context.journal.count_blocked(State.DELIVERING):
            return False
        blocked = self._gate.closure
        shut = blocked is not None and (weary or blocked.code is CloseReason.UNAUTHORIZED)
        return (
            shut
            or self._gate.budget_closure is not None
            or self._has_only_waiting_jobs(self._count_remaining() - delivering, delivering)
        )

    def _has_only_waiting_jobs(self, queued: int, delivering: int) -> bool:
        """Whether each queued job was tried in vain, is held by a flood, or is a copy of one that waits so."""
        journal = self._context.journal
        waiting = journal.count_blocked(State.QUEUED) + sum(journal.flood_counts().values())
        if waiting < queued and waiting + delivering > 0:
            waiting += journal.count_waiting_duplicates()
        return waiting == queued
