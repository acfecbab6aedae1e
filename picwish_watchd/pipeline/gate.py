"""The gate: a circuit breaker before paying.

It closes at the first answer that shows that no submission can succeed, and opens automatically.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import assert_never

import structlog

from picwish_watchd.picwish import Healthy, RateLimited, Unauthorized, Unavailable
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.runtime.wakeup import Wakeup
from picwish_watchd.scheduling.rate_limiter import RateLimiter, RequestKind
from picwish_watchd.state import AT_PICWISH

_log = structlog.get_logger()

# Seconds between free probes while the gate is closed; doubled from the first to the longest pause.
_PROBE_FIRST, _PROBE_MAX = 1.0, 30.0
# Seconds before one image may try what failed for the image before it; doubled as well.
_TRIAL_FIRST, _TRIAL_MAX = 1.0, 300.0
# Seconds that one turn of the loop may take: a pause, a permit and a probe, each of 5 minutes at most.
_HEARTBEAT_TIMEOUT = 900.0


class CloseReason(StrEnum):
    """The reasons for which nothing is submitted; users see these words in `status`."""

    UNAUTHORIZED = "unauthorized"
    API_DOWN = "api_down"
    #: Tasks succeed, but their results cannot be downloaded.
    RESULTS_UNREACHABLE = "results_unreachable"
    #: Nothing more may be spent today or this month.
    BUDGET = "budget"
    #: Results cannot be stored on this machine.
    SPOOL = "spool"


@dataclass(frozen=True, slots=True)
class GateClosure:
    """A reason for which the gate is closed: a word for scripts and a sentence for people."""

    code: CloseReason
    message: str


class BreakerState(Enum):
    """The states of the gate as a circuit breaker.

    A gate and a circuit use "open" in opposite senses: current flows through a *closed* circuit, images pass an *open*
    gate. Everywhere else in this program, "open" and "closed" are meant of the gate.
    """

    #: The gate is open, the circuit closed: every image may be submitted.
    PASSING = auto()
    #: The gate is closed, the circuit open. A successful probe is enough to open the gate.
    PROBING = auto()
    #: The gate is closed, the circuit open. After a pause and a successful probe, one image must try first.
    TRIAL_NEEDED = auto()
    #: The circuit is half-open: a probe succeeded, and one image may be submitted as the trial.
    HALF_OPEN = auto()
    #: An image is being prepared and submitted as the trial.
    TRIAL_STARTED = auto()
    #: PicWish has, or may have, the trial's image; the gate waits for its result.
    TRIAL_SENT = auto()


class Gate:
    """The circuit breaker before paying.

    A free probe shows whether the API works and accepts the key. After failures of another kind (a failed create,
    results that cannot be downloaded or stored) one image at a time must try, with growing pauses, until one succeeds.
    Meanwhile the other jobs stay `queued` and use up no attempts.
    """

    def __init__(
        self, context: StepContext, *, rate_limiter: RateLimiter, on_change: Callable[[], None] = lambda: None
    ) -> None:
        """Start with an open gate; call ``on_change`` whenever the reasons have changed."""
        self._context = context
        self._rate_limiter = rate_limiter
        self._on_change = on_change
        self._closed_wakeup = Wakeup()
        self._probe_wakeup = Wakeup()
        # PASSING if and only if there are no closures.
        self._state = BreakerState.PASSING
        # The job of TRIAL_STARTED and TRIAL_SENT.
        self._trial_job: int | None = None
        # Seconds.
        self._trial_pause = _TRIAL_FIRST
        # Monotonic seconds until which PicWish asked for no trial.
        self._paused_until = -math.inf
        # Whether to probe at once, because the result of the last probe is out of date.
        self._probe_requested = False
        # The reasons that still hold, the latest one last.
        self._closures: dict[CloseReason, GateClosure] = {}
        #: Set while the budget is reached. That is no failure, and it is checked anew for each image.
        self.budget_closure: GateClosure | None = None

    @property
    def closure(self) -> GateClosure | None:
        """The latest of the reasons for which the gate is closed, or None if it is open."""
        return next(reversed(self._closures.values()), None)

    @property
    def closures(self) -> tuple[GateClosure, ...]:
        """All reasons for which the gate is closed, the latest one last, without the budget."""
        return tuple(self._closures.values())

    @property
    def why_not_submitting(self) -> GateClosure | None:
        """The reason for which nothing is submitted, the budget included, or None."""
        return self.closure or self.budget_closure

    def update_budget(self, shortage: str | None) -> None:
        """Record why the next image cannot be paid for, or None if it can."""
        if (shortage is None) != (self.budget_closure is None):
            self.budget_closure = None if shortage is None else GateClosure(CloseReason.BUDGET, shortage)
            if shortage is None:
                _log.info("budget.renewed")
            else:
                _log.warning("budget.reached", reason=shortage)
            self._on_change()

    def close(
        self,
        code: CloseReason,
        message: str,
        *,
        trial: bool = False,
        job_id: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Submit nothing until a probe succeeds and, with ``trial``, one image after it.

        ``job_id`` is the job that failed: if it is not the trial, the trial goes on. ``retry_after`` are the seconds
        that PicWish asked to wait; they are obeyed up to `_TRIAL_MAX`.
        """
        if retry_after is not None:
            pause = min(retry_after, _TRIAL_MAX)
            self._paused_until = max(self._paused_until, self._context.clock.monotonic() + pause)
        is_news = trial or self.closure is None or self.closure.code is not code
        if trial:
            self._require_trial(job_id)
        elif self._state is BreakerState.PASSING:
            self._state = BreakerState.PROBING
        elif self._state is BreakerState.HALF_OPEN:
            # No image is to try what is known to fail.
            self._state = BreakerState.TRIAL_NEEDED
        if is_news:
            self._closures.pop(code, None)
            self._closures[code] = GateClosure(code, message)
            _log.error("gate.closed", reason=code, message=message)
            self._on_change()
            self._closed_wakeup.notify()

    def clear_reasons(self, *reasons: CloseReason) -> None:
        """Drop reasons that a success has disproved, and open the gate if none is left."""
        disproved = [self._closures.pop(reason) for reason in reasons if reason in self._closures]
        if disproved and not self._closures:
            self._open(after=disproved[-1].code)
        elif disproved:
            self._on_change()
        if self.closure is None:
            self._trial_pause = _TRIAL_FIRST

    def can_submit(self) -> bool:
        """Return whether another job may be prepared now. A trial that ended without any proof lets another one go."""
        match self._state:
            case BreakerState.PASSING | BreakerState.HALF_OPEN:
                return True
            case BreakerState.TRIAL_SENT if not self._is_trial_at_picwish():
                self._state, self._trial_job = BreakerState.HALF_OPEN, None
                return True
            case _:
                return False

    def is_admitted(self, job_id: int) -> bool:
        """Return whether this job may be sent: the gate is open, or the job is the trial."""
        return self.closure is None or self._trial_job == job_id

    def begin_attempt(self, job_id: int) -> None:
        """Record that a job is being prepared; if the gate is closed, the job is the trial."""
        if self.closure is not None:
            self._state, self._trial_job = BreakerState.TRIAL_STARTED, job_id

    def end_attempt(self, job_id: int) -> None:
        """Record that a job's submission is over. A trial that PicWish has goes on until its result is here.

        A trial that never left proved nothing. Another one may go once a probe shows that PicWish still works.
        """
        if self._trial_job != job_id:
            return
        if self._is_trial_at_picwish():
            self._state = BreakerState.TRIAL_SENT
        else:
            self._state, self._trial_job = BreakerState.TRIAL_NEEDED, None
            self._probe_requested = True
            self._closed_wakeup.notify()

    def probe_now(self) -> None:
        """Probe at once if the gate is closed, because the key or the address may have changed."""
        self._trial_pause = _TRIAL_FIRST
        self._paused_until = -math.inf
        self._probe_requested = True
        self._probe_wakeup.notify()
        self._closed_wakeup.notify()

    async def probe(self) -> None:
        """Send a query that costs nothing, to learn whether API and key work, and set the gate accordingly."""
        permit = await self._rate_limiter.acquire(RequestKind.PROBE)
        try:
            outcome = await self._context.client.probe(on_send_start=permit.mark_sent)
        finally:
            permit.release()
        match outcome:
            case Healthy():
                self._handle_healthy()
            case Unauthorized(message=message):
                self.close(CloseReason.UNAUTHORIZED, message)
            case RateLimited(retry_after=seconds):
                self._rate_limiter.throttle(seconds)
            case Unavailable(reason=reason):
                self.close(CloseReason.API_DOWN, f"PicWish does not answer: {reason}")
            case _:
                assert_never(outcome)

    async def run(self) -> None:
        """Probe while the gate is closed, with growing pauses, until cancelled."""
        while True:
            self._context.heartbeat.beat("gate", within=_HEARTBEAT_TIMEOUT)
            await self._closed_wakeup.wait(_PROBE_MAX)
            pause = _PROBE_FIRST
            while self.closure is not None:
                self._context.heartbeat.beat("gate", within=_HEARTBEAT_TIMEOUT)
                if self._state is BreakerState.TRIAL_NEEDED and not self._probe_requested:
                    remaining = self._paused_until - self._context.clock.monotonic()
                    await self._sleep_until_probe_now(max(self._trial_pause, remaining))
                if self._trial_job is None or self._probe_requested:
                    self._probe_requested = False
                    await self.probe()
                if self.closure is not None:
                    await self._closed_wakeup.wait(pause)
                pause = min(_PROBE_MAX, pause * 2)

    async def _sleep_until_probe_now(self, seconds: float) -> None:
        """Sleep for ``seconds``, or less if `probe_now` is called."""
        waits = [
            asyncio.ensure_future(self._context.clock.sleep(seconds)),
            asyncio.ensure_future(self._probe_wakeup.wait(seconds)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _handle_healthy(self) -> None:
        match self._state:
            case BreakerState.PASSING | BreakerState.PROBING:
                self.clear_reasons(CloseReason.API_DOWN, CloseReason.UNAUTHORIZED)
            case BreakerState.TRIAL_NEEDED:
                self._state = BreakerState.HALF_OPEN
                self._context.wakeups.submit.notify()
            case BreakerState.HALF_OPEN | BreakerState.TRIAL_STARTED | BreakerState.TRIAL_SENT:
                self._context.wakeups.submit.notify()
            case _:
                assert_never(self._state)

    def _require_trial(self, job_id: int | None) -> None:
        """Require a trial after a failure of ``job_id`` (None: unknown), which ends a trial by that job."""
        match self._state:
            case BreakerState.TRIAL_STARTED | BreakerState.TRIAL_SENT:
                if job_id is not None and job_id != self._trial_job:
                    # The failed job was bought before the trial, so it says nothing about it.
                    return
                self._trial_pause = min(_TRIAL_MAX, self._trial_pause * 2)
                self._trial_job = None
            case _:
                pass
        self._state = BreakerState.TRIAL_NEEDED

    def _is_trial_at_picwish(self) -> bool:
        job = None if self._trial_job is None else self._context.journal.get(self._trial_job)
        return job is not None and job.state in AT_PICWISH

    def _open(self, *, after: CloseReason) -> None:
        _log.info("gate.opened", after=after)
        self._state, self._trial_job = BreakerState.PASSING, None
        self._on_change()
        self._context.wakeups.submit.notify()
