"""From `queued` to `pending`: the only step that spends money.

The intent is in the journal, durable, at the last instant: after the connection to PicWish stands and before the first
byte leaves. What fails before that cost nothing and never left `queued`; what fails after it is judged by what is
provable, and everything else is doubt.

There is no ``sync: auto``. It would send by ``sync: 1`` in a backlog, for one request an image instead of two: twice
the pace at most. But such a POST is open for as long as PicWish works: QPS x 8 s = 17 at a time, and killed in the
middle of a backlog the daemon left 15 images in doubt, where ``sync: 0`` left none (it has its task_id in a fraction
of a second, and may ask again after any break). A gateway that ends silent connections after 60 s would make doubt of
every image of a slow spell. That is never paying twice against hours: a person may choose so, by ``sync: 1``, and
nothing else.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config.schema import Rule
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.job import ErrorCode, Job, SentImage, SourceKind, State
from picwish_watchd.journal.writer import BudgetReachedError, ChargeState
from picwish_watchd.picwish import (
    Accepted,
    CreateOutcome,
    CreateRequest,
    Finished,
    InDoubt,
    NotAccepted,
    NotSent,
    Refused,
    TaskFailed,
    Unauthorized,
)
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import PRICES, StepContext
from picwish_watchd.pipeline.error_boundary import job_error_boundary
from picwish_watchd.pipeline.gate import CloseReason, Gate
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.transitions import handle_task_failure, mark_failed, mark_in_doubt
from picwish_watchd.runtime.memory_budget import MemoryBudget, MemoryLease
from picwish_watchd.scheduling.credit_budget import CreditBudget
from picwish_watchd.scheduling.fair_scheduler import FairScheduler
from picwish_watchd.scheduling.rate_limiter import Permit, RateLimiter, RequestKind

_log = structlog.get_logger()

# seconds that a connection may wait for its slot: a server may close an idle one
_PERMIT_TIMEOUT = 5.0
# seconds; no Retry-After keeps a job back for longer
_RETRY_AFTER_MAX = 300.0
# seconds; the pacer slows down as well
_BUSY_DELAY_MAX = 10.0
# credits that an image on its way to the first byte may cost
_MAX_PRICE = max(PRICES.values())
_PREPARED_SECONDS = (
    # seconds of requests that are kept ready: to prepare one takes time, and a connection cannot wait for long
    0.2
)
_UNANSWERED_SECONDS = (
    # seconds of requests that may be without an answer: should it never come, so many are in doubt
    5.0
)
# POSTs that may be so at any rate
_MIN_UNANSWERED = 4
# seconds between looks at the journal when no bell rings
_IDLE_SECONDS = 1.0


class _SubmitDeferredError(Exception):
    """Raised before the first byte: the gate has closed or the daemon stops; the job stays `queued`."""


class Submit:
    """Takes queued jobs in the order of `Turns`, and submits them."""

    def __init__(
        self, context: StepContext, *, gate: Gate, pacer: RateLimiter, budget: MemoryBudget, collect: Collect
    ) -> None:
        self._context = context
        self._gate = gate
        self._rate_limiter = pacer
        self._memory_budget = budget
        self._collect = collect
        self._prepare = Prepare(context)
        # job -> rule; on their way to the first byte, `queued` in the journal
        self._preparing: dict[int, str] = {}
        # of these, jobs of which a smaller image is made first
        self._downscaling: set[int] = set()
        # jobs; of `sync: 0`, where an answer comes soon
        self._unanswered: set[int] = set()
        self._scheduler = FairScheduler(context.journal, context.clock, lambda: context.config.rules)

    async def run(self) -> None:
        """Submits until the daemon stops; then returns when every POST that had begun has its outcome."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.heartbeat.beat("submit")
                job = self.choose_job()
                if job is None:
                    await self._context.wakeups.submit.wait(self._wait_timeout())
                    continue
                self._preparing[job.id] = job.rule
                if self._prepare.needs_downscale(job, self._context.rule_of(job)):
                    self._downscaling.add(job.id)
                self._gate.begin_attempt(job.id)
                group.create_task(job_error_boundary(self._context, job.id, self.submit(job)))

    def choose_job(self) -> Job | None:
        """The job whose turn it is, or None while none may be prepared."""
        context = self._context
        hanging = {rule for rule in self._preparing.values() if self._is_stuck(rule)}
        for stuck in (job for job, rule in self._preparing.items() if rule in hanging):
            # another one may try whether the gate may open
            self._gate.end_attempt(stuck)
        if not self._gate.can_submit() or self._rate_limiter.seconds_until_permit > _PERMIT_TIMEOUT / 2:
            return None
        shrinking = sum(self._preparing[job] not in hanging for job in self._downscaling)
        going = sum(rule not in hanging for rule in self._preparing.values())
        if going - shrinking >= max(2, min(16, round(context.config.api.qps * _PREPARED_SECONDS))):
            return None
        if len(self._unanswered) + going >= max(_MIN_UNANSWERED, round(context.config.api.qps * _UNANSWERED_SECONDS)):
            # PicWish may have gone silent
            return None
        if self._collect.has_expiring_tasks():
            # it would get no slot, and its connection would wait for one in vain
            return None
        if context.journal.count_at_picwish() + going >= self._collect.pending_limit():
            return None
        shortage = None
        purse = CreditBudget(context.config.budget, context.clock.now())
        for rule in self._scheduler.ordered_rules():
            job = context.journal.next_ready_job(rule.name, context.clock.now(), tuple(self._preparing))
            if job is None or rule.name in hanging:
                continue
            if shrinking and self._prepare.needs_downscale(job, rule):
                # its turn comes when the one before it is made: others are not to wait for that
                continue
            short = purse.why_exceeded(context.journal, PRICES[rule.type] + _MAX_PRICE * len(self._preparing))
            if short is None:
                self._gate.update_budget(None)
                self._scheduler.record_turn(rule)
                return job
            shortage = None if self._preparing else short
        self._gate.update_budget(shortage)
        return None

    def _is_stuck(self, rule: str) -> bool:
        """Whether a folder of the rule does not answer: its images then take no other rule's turn."""
        return any(self._context.executor.is_stuck(f"{way}:{rule}") for way in ("out", "read"))

    async def submit(self, job: Job) -> None:
        """One job's way to PicWish and the answer's way into the journal."""
        try:
            sink = self._context.spool.new_part_path(job.id, "create")
            outcome = await self._send(job, sink)
            if outcome is not None:
                await self._record_outcome(job.id, outcome, sink)
        finally:
            # whatever ended it: a trial that is never over would keep the gate closed for ever
            self._finish_preparing(job.id)
            self._gate.end_attempt(job.id)
            self._prepare.release_cached(job.id)
            self._context.wakeups.submit.notify()

    async def _send(self, job: Job, sink: Path) -> CreateOutcome | None:
        """The last looks and the POST; None where nothing was sent."""
        lease = self._memory_budget.new_lease()
        try:
            rule = self._context.rule_of(job)
            prepared = await self._prepare.prepare(job, rule)
            if prepared is None:
                return None
            if prepared.kind is SourceKind.FILE:
                await self._prepare.probe_source(prepared, rule)
                await lease.acquire(self._prepare.memory_needed(prepared, rule))
            return await self._post(prepared, rule, sink, lease)
        except _SubmitDeferredError:
            return None
        finally:
            lease.release()
            self._unanswered.discard(job.id)
            self._finish_preparing(job.id)

    async def _post(self, job: Job, rule: Rule, sink: Path, lease: MemoryLease) -> CreateOutcome | None:
        """Reads the image and posts it; None where the file itself is at fault."""

        slot: Permit | None = None

        async def ready() -> None:
            nonlocal slot
            slot = slot or await self._acquire_permit(rule)

        async def started() -> None:
            assert slot is not None
            self._write_intent(job, rule, sent, slot)

        asked = await self._build_request(job, rule)
        if asked is None:
            return None
        request, sent = asked
        del asked
        posting = self._context.client.create(request, sink=sink, started=started, sent=lease.release, ready=ready)
        # or this frame would keep the image in memory until PicWish answers
        del request
        try:
            return await posting
        finally:
            if slot is not None:
                slot.release()

    async def _build_request(self, job: Job, rule: Rule) -> tuple[CreateRequest, SentImage | None] | None:
        make = partial(CreateRequest, type=rule.type, return_type=rule.return_type, sync=rule.sync)
        if job.kind is SourceKind.LINK:
            return make(image_url=job.url), None
        upload = await self._prepare.read_upload(job, rule)
        if job.id in self._downscaling:
            self._downscaling.discard(job.id)
            # the next one may be made smaller meanwhile
            self._context.wakeups.submit.notify()
        if upload is None:
            return None
        kind = upload.format
        image = memoryview(upload.data)
        return make(image=image, filename=f"image.{kind.extension}", content_type=kind.mime), upload.sent

    async def _acquire_permit(self, rule: Rule) -> Permit:
        try:
            async with asyncio.timeout(_PERMIT_TIMEOUT):
                return await self._rate_limiter.acquire(RequestKind.CREATE, self._scheduler.priority_of(rule))
        except TimeoutError:
            raise _SubmitDeferredError from None

    def _write_intent(self, job: Job, rule: Rule, sent: SentImage | None, slot: Permit) -> None:
        """The last instant before the first byte: writes the intent."""
        context = self._context
        try:
            if not self._gate.is_admitted(job.id) or context.stopping:
                raise _SubmitDeferredError
            self._move_to_submitting(job, rule, CreditBudget(context.config.budget, context.clock.now()).limits(), sent)
            slot.mark_sent()
        except BudgetReachedError:
            raise _SubmitDeferredError from None
        finally:
            slot.release()
        if not rule.sync:
            self._unanswered.add(job.id)
        self._finish_preparing(job.id)

    def _finish_preparing(self, job_id: int) -> None:
        """Another one may be prepared in its place."""
        self._downscaling.discard(job_id)
        self._preparing.pop(job_id, None)
        self._context.wakeups.submit.notify()

    def _move_to_submitting(self, job: Job, rule: Rule, caps: list[tuple[float, int]], sent: SentImage | None) -> None:
        context = self._context
        message = "sending its URL" if job.url else f"sending {job.stamp.size} bytes to PicWish"
        if sent is not None:
            message = f"sending {sent.size} bytes to PicWish: made smaller, to {sent.width} x {sent.height}"
        context.journal.transition(
            job,
            State.SUBMITTING,
            message,
            sent=sent,
            reserve=PRICES[rule.type],
            caps=caps,
            type=rule.type,
            return_type=rule.return_type,
            sync=rule.sync,
            submitted_at=context.clock.now(),
            task_id=None,
            problem=None,
            note=None,
        )

    async def _record_outcome(self, job_id: int, outcome: CreateOutcome, sink: Path) -> None:
        """Settles the outcome, and keeps trying while the journal's disk is full or another program locks it."""
        context = self._context
        while True:
            try:
                await self._handle_outcome(job_id, outcome, sink)
                return
            except JournalTemporaryError as error:
                job = context.journal.get(job_id)
                if job is None or job.state is not State.SUBMITTING:
                    raise
                context.journal_outage.report(error, job=job_id)
                await context.clock.sleep(_IDLE_SECONDS)

    async def _handle_outcome(self, job_id: int, outcome: CreateOutcome, sink: Path) -> None:
        """The outcome of a POST goes into the journal before anything else happens."""
        context = self._context
        job = context.journal.get(job_id)
        assert job is not None
        match outcome:
            case Accepted(task_id=str(task_id)) | Finished(task_id=str(task_id)) if self._belongs_to_other_job(
                job, task_id
            ):
                self._mark_in_doubt(job, f"PicWish gave it the task {task_id}, which is another picture's")
            case Accepted(task_id=task_id, task_info=answer):
                self._collect.track_new_task(self._move_to_pending(job, task_id, answer.to_json()))
            case Finished(task_id=task_id, task_info=answer, image_url=image, spooled_bytes=spooled):
                job = self._move_to_pending(job, task_id, answer.to_json())
                await self._collect.handle_task_success(job, answer, image, sink if spooled is not None else None)
            case TaskFailed():
                handle_task_failure(context, context.journal.update(job, attempts=job.attempts + 1), outcome)
            case Refused(problem=problem):
                mark_failed(context, job, problem, charge=ChargeState.RELEASED)
            case NotSent(reason=reason):
                self._defer_unsent(job, f"PicWish could not be reached: {reason}")
            case NotAccepted(reason=reason, retry_after=retry_after, rate_limited=True):
                self._rate_limiter.throttle(retry_after)
                pause = min(context.backoff_delay(job.refusals), _BUSY_DELAY_MAX)
                self._requeue(job, f"PicWish asked for fewer requests: {reason}", pause=pause)
            case NotAccepted(reason=reason, retry_after=retry_after):
                self._gate.close(CloseReason.API_DOWN, reason, trial=True, rest=retry_after)
                pause = max(context.backoff_delay(job.refusals), min(retry_after or 0.0, _RETRY_AFTER_MAX))
                self._requeue(job, f"not accepted: {reason}", pause=pause)
            case Unauthorized(message=message):
                self._gate.close(CloseReason.UNAUTHORIZED, message, trial=True)
                self._requeue(job, message, pause=context.backoff_delay(job.refusals) if job.refusals else 0.0)
            case InDoubt(reason=reason):
                self._mark_in_doubt(
                    job, f"PicWish may have taken this image, but its answer never came whole: {reason}"
                )
                self._gate.close(CloseReason.API_DOWN, reason, trial=True)
            case _:
                assert_never(outcome)

    def _belongs_to_other_job(self, job: Job, task_id: str) -> bool:
        owner = self._context.journal.find_task_owner(task_id)
        return owner is not None and owner.id != job.id

    def _mark_in_doubt(self, job: Job, message: str) -> None:
        job = self._context.journal.update(job, attempts=job.attempts + 1)
        mark_in_doubt(self._context, job, ErrorCode.SUBMIT_OUTCOME_UNKNOWN, message)

    def _move_to_pending(self, job: Job, task_id: str | None, answer: str) -> Job:
        # in the log first: should the journal fail at this very moment, a person can still find the task
        _log.info("task.accepted", job=job.id, rule=job.rule, path=job.source, task=task_id)
        self._gate.clear_reasons(CloseReason.API_DOWN, CloseReason.UNAUTHORIZED)
        return self._context.journal.transition(
            job,
            State.PENDING,
            f"PicWish took it as task {task_id}" if task_id else "PicWish took it",
            task_id=task_id,
            answer=answer,
            attempts=job.attempts + 1,
            refusals=0,
            not_before=None,
        )

    def _requeue(self, job: Job, message: str, *, pause: float) -> None:
        """Provably not accepted: queued again, at no cost."""
        _log.warning("submit.not_accepted", job=job.id, rule=job.rule, path=job.source, reason=message)
        self._context.journal.transition(
            job,
            State.QUEUED,
            message,
            charge=ChargeState.RELEASED,
            refusals=job.refusals + 1,
            not_before=self._context.clock.now() + pause,
        )

    def _defer_unsent(self, job: Job, message: str) -> None:
        """Nothing left this machine: the job never left `queued`; the gate closes until PicWish answers a probe."""
        context = self._context
        self._gate.close(CloseReason.API_DOWN, message)
        pause = context.backoff_delay(job.refusals)
        context.journal.update(job, refusals=job.refusals + 1, not_before=context.clock.now() + pause)

    def _wait_timeout(self) -> float:
        usual = self._context.wait_timeout(_IDLE_SECONDS)
        return max(0.01, min(usual, self._rate_limiter.seconds_until_permit or usual))
