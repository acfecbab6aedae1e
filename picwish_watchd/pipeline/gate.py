"""The gate: what stands before paying, and whether it is open."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import structlog

from picwish_watchd.picwish import Healthy, RateLimited, Unauthorized, Unavailable
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.scheduling.rate_limiter import RateLimiter, RequestKind
from picwish_watchd.state import AT_PICWISH

_log = structlog.get_logger()

# seconds between free queries while the gate is closed
_PROBE_FIRST, _PROBE_MAX = 1.0, 30.0
# seconds before a single image may try what failed for the one before it
_TRIAL_FIRST, _TRIAL_MAX = 1.0, 300.0
# seconds that a turn may take: a pause, a slot and a probe, each of 5 minutes at most
_HEARTBEAT_TIMEOUT = 900.0


class CloseReason(StrEnum):
    """Why nothing is being submitted; users see the word in `status`."""

    UNAUTHORIZED = "unauthorized"
    API_DOWN = "api_down"
    #: tasks succeed, and their results cannot be downloaded
    RESULTS_UNREACHABLE = "results_unreachable"
    #: nothing more may be spent today or this month
    BUDGET = "budget"
    #: results cannot be kept on this machine
    SPOOL = "spool"


@dataclass(frozen=True, slots=True)
class GateClosure:
    """The closed gate: a word for scripts and a sentence for people."""

    code: CloseReason
    message: str


class Gate:
    """Closed by the first answer that shows that no submission can succeed, and opened again by itself.

    A free query tells when API and key are well. What was closed by more than that (a failed create, results that
    cannot be fetched or kept) is then tried by one image at a time, ever more seldom, until one succeeds. No job's
    attempts are used up meanwhile: jobs stay `queued`.
    """

    def __init__(self, context: StepContext, *, pacer: RateLimiter, changed: Callable[[], None] = lambda: None) -> None:
        self._context = context
        self._rate_limiter = pacer
        self._on_change = changed
        self._closed_wakeup = Wakeup()
        self._probe_wakeup = Wakeup()
        self._needs_trial = False
        self._trial_allowed = False
        # the job that tries
        self._trial_job: int | None = None
        self._trial_sent = False
        self._trial_pause = _TRIAL_FIRST
        # PicWish asked for that pause (monotonic seconds)
        self._paused_until = -math.inf
        # a probe is wanted now: whatever the last one said is old
        self._probe_requested = False
        # all that is not yet proved wrong, the last one told last
        self._closures: dict[CloseReason, GateClosure] = {}
        self.budget_closure: GateClosure | None = (
            #: the budget is reached, which is no fault: checked anew for each image
            None
        )

    @property
    def closure(self) -> GateClosure | None:
        """Why the gate is closed: the last reason of those that hold."""
        return next(reversed(self._closures.values()), None)

    @property
    def closures(self) -> tuple[GateClosure, ...]:
        """All reasons that hold, the last one told last; the budget is none of them."""
        return tuple(self._closures.values())

    @property
    def why_not_submitting(self) -> GateClosure | None:
        """Why nothing is being submitted, for people."""
        return self.closure or self.budget_closure

    def update_budget(self, shortage: str | None) -> None:
        """Whether the next image can be paid for, or what is short."""
        if (shortage is None) != (self.budget_closure is None):
            self.budget_closure = None if shortage is None else GateClosure(CloseReason.BUDGET, shortage)
            if shortage is None:
                _log.info("budget.renewed")
            else:
                _log.warning("budget.reached", reason=shortage)
            self._on_change()

    def close(
        self, code: CloseReason, message: str, *, trial: bool = False, by: int | None = None, rest: float | None = None
    ) -> None:
        """Nothing is submitted until a probe succeeds, and with ``trial`` one image after it.

        ``by`` is the job that found out: one that was bought before does not end the trial of another. ``rest``:
        seconds that PicWish asks to be left alone; obeyed up to `_TRIAL_MAX`.
        """
        if rest is not None:
            self._paused_until = max(self._paused_until, self._context.clock.monotonic() + min(rest, _TRIAL_MAX))
        is_news = self.closure is None or self.closure.code is not code
        if trial:
            self._needs_trial = is_news = True
            if by is None or self._trial_job is None or by == self._trial_job:
                if self._trial_job is not None:
                    self._trial_pause = min(_TRIAL_MAX, self._trial_pause * 2)
                self._trial_allowed, self._trial_job = False, None
        elif self._trial_job is None:
            # nobody is to try what is known not to go
            self._trial_allowed = False
        if is_news:
            self._closures.pop(code, None)
            self._closures[code] = GateClosure(code, message)
            _log.error("gate.closed", reason=code, message=message)
            self._on_change()
            self._closed_wakeup.notify()

    def clear_reasons(self, *reasons: CloseReason) -> None:
        """Something went well that proves these reasons wrong: submissions may go on if no other one holds."""
        wrong = [self._closures.pop(reason) for reason in reasons if reason in self._closures]
        if wrong and not self._closures:
            self._open(after=wrong[-1].code)
        elif wrong:
            self._on_change()
        if self.closure is None:
            self._trial_pause = _TRIAL_FIRST

    def can_submit(self) -> bool:
        """Whether a job may be prepared now."""
        if self.closure is None:
            return True
        if self._trial_job is not None and self._trial_sent and not self._is_at_picwish(self._trial_job):
            # it ended, and proved nothing
            self._trial_job = None
        return self._trial_allowed and self._trial_job is None

    def is_admitted(self, job_id: int) -> bool:
        """Whether this job may go through: the gate is open, or this is the one that tries."""
        return self.closure is None or self._trial_job == job_id

    def begin_attempt(self, job_id: int) -> None:
        """A job is being prepared; behind a closed gate it is the one that tries."""
        if self.closure is not None:
            self._trial_job, self._trial_sent = job_id, False

    def end_attempt(self, job_id: int) -> None:
        """Its submission is over: accepted, it goes on trying until its result is here.

        One that never left proved nothing: another one may try, once a probe says that PicWish is still well.
        """
        if self._trial_job == job_id:
            self._trial_sent = self._is_at_picwish(job_id)
            if not self._trial_sent:
                self._trial_job, self._trial_allowed = None, False
                self._probe_requested = True
                self._closed_wakeup.notify()

    def _is_at_picwish(self, job_id: int) -> bool:
        job = self._context.journal.get(job_id)
        return job is not None and job.state in AT_PICWISH

    def probe_now(self) -> None:
        """Key or address may have changed: a closed gate is probed at once."""
        self._trial_pause = _TRIAL_FIRST
        self._paused_until = -math.inf
        self._probe_requested = True
        self._probe_wakeup.notify()
        self._closed_wakeup.notify()

    async def probe(self) -> None:
        """Asks PicWish, by a query that costs nothing, whether API and key are well, and sets the gate by it."""
        slot = await self._rate_limiter.acquire(RequestKind.PROBE)
        try:
            outcome = await self._context.client.probe(on_send_start=slot.mark_sent)
        finally:
            slot.release()
        match outcome:
            case Healthy():
                if self._needs_trial and self.closure is not None:
                    self._trial_allowed = True
                    self._context.wakeups.submit.notify()
                else:
                    self.clear_reasons(CloseReason.API_DOWN, CloseReason.UNAUTHORIZED)
            case Unauthorized(message=message):
                self.close(CloseReason.UNAUTHORIZED, message)
            case RateLimited(retry_after=seconds):
                self._rate_limiter.throttle(seconds)
            case Unavailable(reason=reason):
                self.close(CloseReason.API_DOWN, f"PicWish does not answer: {reason}")
            case _:
                assert_never(outcome)

    async def run(self) -> None:
        """Probes while the gate is closed, less and less often, until cancelled."""
        while True:
            self._context.heartbeat.beat("gate", within=_HEARTBEAT_TIMEOUT)
            await self._closed_wakeup.wait(_PROBE_MAX)
            pause = _PROBE_FIRST
            while self.closure is not None:
                self._context.heartbeat.beat("gate", within=_HEARTBEAT_TIMEOUT)
                if self._needs_trial and not self._trial_allowed and not self._probe_requested:
                    rest = self._paused_until - self._context.clock.monotonic()
                    await self._sleep_until_hurried(max(self._trial_pause, rest))
                if self._trial_job is None or self._probe_requested:
                    self._probe_requested = False
                    await self.probe()
                if self.closure is not None:
                    await self._closed_wakeup.wait(pause)
                pause = min(_PROBE_MAX, pause * 2)

    async def _sleep_until_hurried(self, seconds: float) -> None:
        """Until then, or until somebody says `look`."""
        waits = [
            asyncio.ensure_future(self._context.clock.sleep(seconds)),
            asyncio.ensure_future(self._probe_wakeup.wait(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _open(self, *, after: CloseReason) -> None:
        _log.info("gate.opened", after=after)
        self._needs_trial, self._trial_allowed, self._trial_job = False, False, None
        self._on_change()
        self._context.wakeups.submit.notify()
