"""From `queued` to `pending`: the only step that spends money.

The intent is written to the journal, durable, at the last instant: after the connection to PicWish is open and before
the first byte is sent. A failure before that costs nothing, and the job stays `queued`. After it, the outcome is what
can be proved, and everything else is doubt.

There is no ``sync: auto``. In a backlog it would send with ``sync: 1``, which needs one request for an image in place
of two: at most twice the pace. But such a POST stays open for as long as PicWish works, QPS x 8 s = 17 at a time. A
daemon that was killed in the middle of a backlog left 15 images in doubt; with ``sync: 0`` it left none, because it has
its task_id in a fraction of a second and can query again after any interruption. A gateway that closes silent
connections after 60 s would put every image of a slow spell in doubt. Never paying twice goes before a few hours, so
only a person chooses ``sync: 1``.
"""

import asyncio
from functools import partial
from pathlib import Path

from picwish_watchd.config.schema import Rule
from picwish_watchd.job import Job, SentImage, SourceKind, State
from picwish_watchd.journal.writer import BudgetReachedError
from picwish_watchd.picwish import CreateOutcome, CreateRequest
from picwish_watchd.pipeline.context import StepContext
from picwish_watchd.pipeline.error_boundary import job_error_boundary
from picwish_watchd.pipeline.gate import Gate
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.submit_outcomes import ResultHandler, SubmitOutcomes
from picwish_watchd.pricing import PRICES
from picwish_watchd.runtime.memory_budget import MemoryBudget, MemoryLease
from picwish_watchd.runtime.worker_key import WorkerKey
from picwish_watchd.scheduling.credit_budget import CreditBudget
from picwish_watchd.scheduling.fair_scheduler import FairScheduler
from picwish_watchd.scheduling.rate_limiter import Permit, RateLimiter, RequestKind
from picwish_watchd.scheduling.task_tracker import TaskTracker

# Seconds that a connection may wait for its permit: a server may close an idle one.
_PERMIT_TIMEOUT = 5.0
# Credits to assume for each image that is being prepared: nothing is reserved for it yet.
_MAX_PRICE = max(PRICES.values())
# Seconds of requests that are kept ready: to prepare one takes time, and a connection cannot wait for long.
_PREPARED_SECONDS = 0.2
# Seconds of requests that may be without an answer. If no answer ever comes, this many images are in doubt.
_UNANSWERED_SECONDS = 5.0
# POSTs that may always be without an answer, even at a low QPS.
_MIN_UNANSWERED = 4
# Seconds between looks at the journal when no wake-up comes.
_IDLE_SECONDS = 1.0


class _SubmitDeferredError(Exception):
    """Raised before the first byte: the gate has closed or the daemon stops; the job stays `queued`."""


class Submit:
    """The step that submits queued jobs in the order of `FairScheduler`."""

    def __init__(
        self,
        context: StepContext,
        *,
        gate: Gate,
        rate_limiter: RateLimiter,
        memory_budget: MemoryBudget,
        prepare: Prepare,
        tracker: TaskTracker,
        handle_result: ResultHandler,
    ) -> None:
        self._context = context
        self._gate = gate
        self._rate_limiter = rate_limiter
        self._memory_budget = memory_budget
        self._tracker = tracker
        self._outcomes = SubmitOutcomes(
            context, gate=gate, rate_limiter=rate_limiter, tracker=tracker, handle_result=handle_result
        )
        self._prepare = prepare
        # Job id -> rule, of jobs on their way to the first byte; they are `queued` in the journal.
        self._preparing: dict[int, str] = {}
        # Those of them that are being downscaled.
        self._downscaling: set[int] = set()
        # Job ids of POSTs with `sync: 0`, whose answer is due soon.
        self._unanswered: set[int] = set()
        self._scheduler = FairScheduler(context.journal, context.clock, lambda: context.config.rules)

    async def run(self) -> None:
        """Submit until the daemon stops, then return when every POST that was begun has its outcome."""
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
        """Choose the next job and record its rule's turn; return None while none may be prepared.

        A job whose folder hangs loses its place as the trial of the gate.
        """
        stuck_rules = {rule for rule in self._preparing.values() if self._is_stuck(rule)}
        for job_id in (job_id for job_id, rule in self._preparing.items() if rule in stuck_rules):
            # Another job may be the trial that opens the gate.
            self._gate.end_attempt(job_id)
        if not self._gate.can_submit() or self._rate_limiter.seconds_until_permit > _PERMIT_TIMEOUT / 2:
            return None
        downscaling = sum(self._preparing[job_id] not in stuck_rules for job_id in self._downscaling)
        if not self._has_room(sum(rule not in stuck_rules for rule in self._preparing.values()), downscaling):
            return None
        return self._choose_affordable(stuck_rules, downscaling=downscaling > 0)

    def _has_room(self, preparing: int, downscaling: int) -> bool:
        """Return whether one more job may be prepared beside these, of which ``downscaling`` are being downscaled."""
        context = self._context
        qps = context.config.api.qps
        if preparing - downscaling >= max(2, min(16, round(qps * _PREPARED_SECONDS))):
            return False
        if len(self._unanswered) + preparing >= max(_MIN_UNANSWERED, round(qps * _UNANSWERED_SECONDS)):
            # PicWish may have gone silent.
            return False
        if self._tracker.has_expiring_tasks():
            # The job would get no permit, and its connection would wait in vain.
            return False
        return context.journal.count_at_picwish() + preparing < self._tracker.pending_limit()

    def _choose_affordable(self, stuck_rules: set[str], *, downscaling: bool) -> Job | None:
        """Return the first job by the scheduler's order that the budget allows, and record its rule's turn."""
        context = self._context
        shortage = None
        credit_budget = CreditBudget(context.config.budget, context.clock.now())
        for rule in self._scheduler.ordered_rules():
            job = context.journal.next_ready_job(rule.name, context.clock.now(), tuple(self._preparing))
            if job is None or rule.name in stuck_rules:
                continue
            if downscaling and self._prepare.needs_downscale(job, rule):
                # It waits until the one before it is downscaled, and the other rules do not wait with it.
                continue
            price = PRICES[rule.type] + _MAX_PRICE * len(self._preparing)
            exceeded = credit_budget.why_exceeded(context.journal, price)
            if exceeded is None:
                self._gate.update_budget(None)
                self._scheduler.record_turn(rule)
                return job
            shortage = None if self._preparing else exceeded
        self._gate.update_budget(shortage)
        return None

    def _is_stuck(self, rule: str) -> bool:
        """Return whether a folder of the rule hangs. The rule's images then take no place from other rules."""
        return any(map(self._context.executor.is_stuck, WorkerKey.used_before_submission(rule)))

    async def submit(self, job: Job) -> None:
        """Send one job to PicWish and record the outcome in the journal."""
        try:
            sink = self._context.spool.new_part_path(job.id, "create")
            outcome = await self._send(job, sink)
            if outcome is not None:
                await self._outcomes.record(job.id, outcome, sink)
        finally:
            # However it ended: a trial that is never over would keep the gate closed for ever.
            self._finish_preparing(job.id)
            self._gate.end_attempt(job.id)
            self._prepare.release_cached(job.id)
            self._context.wakeups.submit.notify()

    async def _send(self, job: Job, sink: Path) -> CreateOutcome | None:
        """Prepare the job and post it; return None where nothing was sent."""
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
        """Read the image and post it; return None where the file itself is at fault."""

        permit: Permit | None = None

        async def ready() -> None:
            nonlocal permit
            permit = permit or await self._acquire_permit(rule)

        async def started() -> None:
            assert permit is not None
            self._write_intent(job, rule, sent, permit)

        built = await self._build_request(job, rule)
        if built is None:
            return None
        request, sent = built
        del built
        posting = self._context.client.create(
            request, sink=sink, on_send_start=started, on_body_sent=lease.release, before_send=ready
        )
        # Otherwise this frame would keep the image in memory until PicWish answers.
        del request
        try:
            return await posting
        finally:
            if permit is not None:
                permit.release()

    async def _build_request(self, job: Job, rule: Rule) -> tuple[CreateRequest, SentImage | None] | None:
        """Return the request, and the size of its image if that was downscaled; None where the file is at fault."""
        new_request = partial(CreateRequest, type=rule.type, return_type=rule.return_type, sync=rule.sync)
        if job.kind is SourceKind.LINK:
            return new_request(image_url=job.url), None
        upload = await self._prepare.read_upload(job, rule)
        if job.id in self._downscaling:
            self._downscaling.discard(job.id)
            # The next one may be downscaled meanwhile.
            self._context.wakeups.submit.notify()
        if upload is None:
            return None
        image_format = upload.format
        image = memoryview(upload.data)
        filename = f"image.{image_format.extension}"
        return new_request(image=image, filename=filename, content_type=image_format.mime), upload.sent

    async def _acquire_permit(self, rule: Rule) -> Permit:
        try:
            async with asyncio.timeout(_PERMIT_TIMEOUT):
                return await self._rate_limiter.acquire(RequestKind.CREATE, self._scheduler.priority_of(rule))
        except TimeoutError:
            raise _SubmitDeferredError from None

    def _write_intent(self, job: Job, rule: Rule, sent: SentImage | None, permit: Permit) -> None:
        """Write the intent to the journal, at the last instant before the first byte."""
        context = self._context
        try:
            if not self._gate.is_admitted(job.id) or context.stopping:
                raise _SubmitDeferredError
            limits = CreditBudget(context.config.budget, context.clock.now()).limits()
            self._move_to_submitting(job, rule, limits, sent)
            permit.mark_sent()
        except BudgetReachedError:
            raise _SubmitDeferredError from None
        finally:
            permit.release()
        if not rule.sync:
            self._unanswered.add(job.id)
        self._finish_preparing(job.id)

    def _finish_preparing(self, job_id: int) -> None:
        """Let another job be prepared in place of this one."""
        self._downscaling.discard(job_id)
        self._preparing.pop(job_id, None)
        self._context.wakeups.submit.notify()

    def _move_to_submitting(
        self, job: Job, rule: Rule, limits: list[tuple[float, int]], sent: SentImage | None
    ) -> None:
        context = self._context
        message = "sending its URL" if job.url else f"sending {job.stamp.size} bytes to PicWish"
        if sent is not None:
            message = f"sending {sent.size} bytes to PicWish: downscaled to {sent.width} x {sent.height}"
        context.journal.transition(
            job,
            State.SUBMITTING,
            message,
            sent=sent,
            reserve=PRICES[rule.type],
            limits=limits,
            type=rule.type,
            return_type=rule.return_type,
            sync=rule.sync,
            submitted_at=context.clock.now(),
            task_id=None,
            problem=None,
            note=None,
        )

    def _wait_timeout(self) -> float:
        usual = self._context.wait_timeout(_IDLE_SECONDS)
        return max(0.01, min(usual, self._rate_limiter.seconds_until_permit or usual))
