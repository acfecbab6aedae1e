"""The gate: what stands before paying, and whether it is open."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import structlog

from picwish_watchd.job import State
from picwish_watchd.picwish import Busy, Healthy, Unauthorized, Unavailable
from picwish_watchd.pipeline.context import Context
from picwish_watchd.runtime.wakeup import Bell
from picwish_watchd.scheduling.rate_limiter import Pacer, Urgency

_log = structlog.get_logger()

_PROBE_FIRST, _PROBE_MAX = 1.0, 30.0  # seconds between free queries while the gate is closed
_TRIAL_FIRST, _TRIAL_MAX = 1.0, 300.0  # seconds before a single image may try what failed for the one before it
_TURN_MAX = 900.0  # seconds that a turn may take: a pause, a slot and a probe, each of 5 minutes at most


class Reason(StrEnum):
    """Why nothing is being submitted; users see the word in `status`."""

    UNAUTHORIZED = "unauthorized"
    API_DOWN = "api_down"
    RESULTS_UNREACHABLE = "results_unreachable"  #: tasks succeed, and their results cannot be downloaded
    BUDGET = "budget"  #: nothing more may be spent today or this month
    SPOOL = "spool"  #: results cannot be kept on this machine


@dataclass(frozen=True, slots=True)
class Blocked:
    """The closed gate: a word for scripts and a sentence for people."""

    code: Reason
    message: str


class Gate:
    """Closed by the first answer that shows that no submission can succeed, and opened again by itself.

    A free query tells when API and key are well. What was closed by more than that (a failed create, results that
    cannot be fetched or kept) is then tried by one image at a time, ever more seldom, until one succeeds. No job's
    attempts are used up meanwhile: jobs stay `queued`.
    """

    def __init__(self, context: Context, *, pacer: Pacer, changed: Callable[[], None] = lambda: None) -> None:
        self._context = context
        self._pacer = pacer
        self._changed = changed
        self._closed = Bell()
        self._hurry = Bell()
        self._needs_trial = False
        self._trial_open = False
        self._trial: int | None = None  # the job that tries
        self._trial_sent = False
        self._trial_pause = _TRIAL_FIRST
        self._rest_until = -math.inf  # PicWish asked for that pause (monotonic seconds)
        self._at_once = False  # a probe is wanted now: whatever the last one said is old
        self._grounds: dict[Reason, Blocked] = {}  # all that is not yet proved wrong, the last one told last
        self.short: Blocked | None = None  #: the budget is reached, which is no fault: checked anew for each image

    @property
    def blocked(self) -> Blocked | None:
        """Why the gate is closed: the last reason of those that hold."""
        return next(reversed(self._grounds.values()), None)

    @property
    def grounds(self) -> tuple[Blocked, ...]:
        """All reasons that hold, the last one told last; the budget is none of them."""
        return tuple(self._grounds.values())

    @property
    def told(self) -> Blocked | None:
        """Why nothing is being submitted, for people."""
        return self.blocked or self.short

    def afford(self, shortage: str | None) -> None:
        """Whether the next image can be paid for, or what is short."""
        if (shortage is None) != (self.short is None):
            self.short = None if shortage is None else Blocked(Reason.BUDGET, shortage)
            if shortage is None:
                _log.info("budget.renewed")
            else:
                _log.warning("budget.reached", reason=shortage)
            self._changed()

    def close(
        self, code: Reason, message: str, *, trial: bool = False, by: int | None = None, rest: float | None = None
    ) -> None:
        """Nothing is submitted until a probe succeeds, and with ``trial`` one image after it.

        ``by`` is the job that found out: one that was bought before does not end the trial of another. ``rest``:
        seconds that PicWish asks to be left alone; obeyed up to `_TRIAL_MAX`.
        """
        if rest is not None:
            self._rest_until = max(self._rest_until, self._context.clock.monotonic() + min(rest, _TRIAL_MAX))
        is_news = self.blocked is None or self.blocked.code is not code
        if trial:
            self._needs_trial = is_news = True
            if by is None or self._trial is None or by == self._trial:
                if self._trial is not None:
                    self._trial_pause = min(_TRIAL_MAX, self._trial_pause * 2)
                self._trial_open, self._trial = False, None
        elif self._trial is None:
            self._trial_open = False  # nobody is to try what is known not to go
        if is_news:
            self._grounds.pop(code, None)
            self._grounds[code] = Blocked(code, message)
            _log.error("gate.closed", reason=code, message=message)
            self._changed()
            self._closed.ring()

    def succeeded(self, *reasons: Reason) -> None:
        """Something went well that proves these reasons wrong: submissions may go on if no other one holds."""
        wrong = [self._grounds.pop(reason) for reason in reasons if reason in self._grounds]
        if wrong and not self._grounds:
            self._open(after=wrong[-1].code)
        elif wrong:
            self._changed()
        if self.blocked is None:
            self._trial_pause = _TRIAL_FIRST

    def may_submit(self) -> bool:
        """Whether a job may be prepared now."""
        if self.blocked is None:
            return True
        if self._trial is not None and self._trial_sent and not self._is_at_picwish(self._trial):
            self._trial = None  # it ended, and proved nothing
        return self._trial_open and self._trial is None

    def admits(self, job_id: int) -> bool:
        """Whether this job may go through: the gate is open, or this is the one that tries."""
        return self.blocked is None or self._trial == job_id

    def begins(self, job_id: int) -> None:
        """A job is being prepared; behind a closed gate it is the one that tries."""
        if self.blocked is not None:
            self._trial, self._trial_sent = job_id, False

    def ends(self, job_id: int) -> None:
        """Its submission is over: accepted, it goes on trying until its result is here.

        One that never left proved nothing: another one may try, once a probe says that PicWish is still well.
        """
        if self._trial == job_id:
            self._trial_sent = self._is_at_picwish(job_id)
            if not self._trial_sent:
                self._trial, self._trial_open = None, False
                self._at_once = True
                self._closed.ring()

    def _is_at_picwish(self, job_id: int) -> bool:
        job = self._context.journal.get(job_id)
        return job is not None and job.state in (State.SUBMITTING, State.PENDING, State.FETCHING)

    def look(self) -> None:
        """Key or address may have changed: a closed gate is probed at once."""
        self._trial_pause = _TRIAL_FIRST
        self._rest_until = -math.inf
        self._at_once = True
        self._hurry.ring()
        self._closed.ring()

    async def probe(self) -> None:
        """Asks PicWish, by a query that costs nothing, whether API and key are well, and sets the gate by it."""
        slot = await self._pacer.slot(Urgency.PROBE)
        try:
            outcome = await self._context.client.probe(leaving=slot.left)
        finally:
            slot.over()
        match outcome:
            case Healthy():
                if self._needs_trial and self.blocked is not None:
                    self._trial_open = True
                    self._context.bells.submit.ring()
                else:
                    self.succeeded(Reason.API_DOWN, Reason.UNAUTHORIZED)
            case Unauthorized(message=message):
                self.close(Reason.UNAUTHORIZED, message)
            case Busy(retry_after=seconds):
                self._pacer.slow_down(seconds)
            case Unavailable(reason=reason):
                self.close(Reason.API_DOWN, f"PicWish does not answer: {reason}")
            case _:
                assert_never(outcome)

    async def run(self) -> None:
        """Probes while the gate is closed, less and less often, until cancelled."""
        while True:
            self._context.pulse.beat("gate", within=_TURN_MAX)
            await self._closed.wait(_PROBE_MAX)
            pause = _PROBE_FIRST
            while self.blocked is not None:
                self._context.pulse.beat("gate", within=_TURN_MAX)
                if self._needs_trial and not self._trial_open and not self._at_once:
                    rest = self._rest_until - self._context.clock.monotonic()
                    await self._pause(max(self._trial_pause, rest))
                if self._trial is None or self._at_once:
                    self._at_once = False
                    await self.probe()
                if self.blocked is not None:
                    await self._closed.wait(pause)
                pause = min(_PROBE_MAX, pause * 2)

    async def _pause(self, seconds: float) -> None:
        """Until then, or until somebody says `look`."""
        waits = [
            asyncio.ensure_future(self._context.clock.sleep(seconds)),
            asyncio.ensure_future(self._hurry.wait(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _open(self, *, after: Reason) -> None:
        _log.info("gate.opened", after=after)
        self._needs_trial, self._trial_open, self._trial = False, False, None
        self._changed()
        self._context.bells.submit.ring()
