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
from picwish_watchd.job import ErrorCode, Job, Kind, Sent, State
from picwish_watchd.journal.writer import BudgetReachedError, Charge
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
from picwish_watchd.pipeline.context import PRICES, Context
from picwish_watchd.pipeline.error_boundary import guarded
from picwish_watchd.pipeline.gate import Gate, Reason
from picwish_watchd.pipeline.prepare import Prepare
from picwish_watchd.pipeline.transitions import doubt, fail, task_failed
from picwish_watchd.runtime.memory_budget import ByteBudget, Lease
from picwish_watchd.scheduling.credit_budget import Purse
from picwish_watchd.scheduling.fair_scheduler import Turns
from picwish_watchd.scheduling.rate_limiter import Pacer, Slot, Urgency

_log = structlog.get_logger()

_PARKED_MAX = 5.0  # seconds that a connection may wait for its slot: a server may close an idle one
_LATER_MAX = 300.0  # seconds; no Retry-After keeps a job back for longer
_BUSY_PAUSE_MAX = 10.0  # seconds; the pacer slows down as well
_DEAREST = max(PRICES.values())  # credits that an image on its way to the first byte may cost
_READY = (
    0.2  # seconds of requests that are kept ready: to prepare one takes time, and a connection cannot wait for long
)
_UNANSWERED = 5.0  # seconds of requests that may be without an answer: should it never come, so many are in doubt
_FEWEST = 4  # POSTs that may be so at any rate
_IDLE = 1.0  # seconds between looks at the journal when no bell rings


class _NotNowError(Exception):
    """Raised before the first byte: the gate has closed or the daemon stops; the job stays `queued`."""


class Submit:
    """Takes queued jobs in the order of `Turns`, and submits them."""

    def __init__(self, context: Context, *, gate: Gate, pacer: Pacer, budget: ByteBudget, collect: Collect) -> None:
        self._context = context
        self._gate = gate
        self._pacer = pacer
        self._budget = budget
        self._collect = collect
        self._prepare = Prepare(context)
        self._preparing: dict[int, str] = {}  # job -> rule; on their way to the first byte, `queued` in the journal
        self._shrinking: set[int] = set()  # of these, jobs of which a smaller image is made first
        self._unanswered: set[int] = set()  # jobs; of `sync: 0`, where an answer comes soon
        self._turns = Turns(context.journal, context.clock, lambda: context.config.rules)

    async def run(self) -> None:
        """Submits until the daemon stops; then returns when every POST that had begun has its outcome."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.pulse.beat("submit")
                job = self.choose()
                if job is None:
                    await self._context.bells.submit.wait(self._patience())
                    continue
                self._preparing[job.id] = job.rule
                if self._prepare.makes_smaller(job, self._context.rule_of(job)):
                    self._shrinking.add(job.id)
                self._gate.begins(job.id)
                group.create_task(guarded(self._context, job.id, self.submit(job)))

    def choose(self) -> Job | None:
        """The job whose turn it is, or None while none may be prepared."""
        context = self._context
        hanging = {rule for rule in self._preparing.values() if self._hangs(rule)}
        for stuck in (job for job, rule in self._preparing.items() if rule in hanging):
            self._gate.ends(stuck)  # another one may try whether the gate may open
        if not self._gate.may_submit() or self._pacer.wait > _PARKED_MAX / 2:
            return None
        shrinking = sum(self._preparing[job] not in hanging for job in self._shrinking)
        going = sum(rule not in hanging for rule in self._preparing.values())
        if going - shrinking >= max(2, min(16, round(context.config.api.qps * _READY))):
            return None
        if len(self._unanswered) + going >= max(_FEWEST, round(context.config.api.qps * _UNANSWERED)):
            return None  # PicWish may have gone silent
        if self._collect.presses():
            return None  # it would get no slot, and its connection would wait for one in vain
        if context.journal.unsaved() + going >= self._collect.max_pending():
            return None
        shortage = None
        purse = Purse(context.config.budget, context.clock.now())
        for rule in self._turns.order():
            job = context.journal.ready(rule.name, context.clock.now(), tuple(self._preparing))
            if job is None or rule.name in hanging:
                continue
            if shrinking and self._prepare.makes_smaller(job, rule):
                continue  # its turn comes when the one before it is made: others are not to wait for that
            short = purse.shortage(context.journal, PRICES[rule.type] + _DEAREST * len(self._preparing))
            if short is None:
                self._gate.afford(None)
                self._turns.took(rule)
                return job
            shortage = None if self._preparing else short
        self._gate.afford(shortage)
        return None

    def _hangs(self, rule: str) -> bool:
        """Whether a folder of the rule does not answer: its images then take no other rule's turn."""
        return any(self._context.lanes.hangs(f"{way}:{rule}") for way in ("out", "read"))

    async def submit(self, job: Job) -> None:
        """One job's way to PicWish and the answer's way into the journal."""
        try:
            sink = self._context.spool.fresh(job.id, "create")
            outcome = await self._send(job, sink)
            if outcome is not None:
                await self._write_down(job.id, outcome, sink)
        finally:
            # whatever ended it: a trial that is never over would keep the gate closed for ever
            self._prepared(job.id)
            self._gate.ends(job.id)
            self._prepare.release(job.id)
            self._context.bells.submit.ring()

    async def _send(self, job: Job, sink: Path) -> CreateOutcome | None:
        """The last looks and the POST; None where nothing was sent."""
        lease = self._budget.lease()
        try:
            rule = self._context.rule_of(job)
            prepared = await self._prepare.prepare(job, rule)
            if prepared is None:
                return None
            if prepared.kind is Kind.FILE:
                await self._prepare.reach(prepared, rule)
                await lease.take(self._prepare.weight(prepared, rule))
            return await self._post(prepared, rule, sink, lease)
        except _NotNowError:
            return None
        finally:
            lease.release()
            self._unanswered.discard(job.id)
            self._prepared(job.id)

    async def _post(self, job: Job, rule: Rule, sink: Path, lease: Lease) -> CreateOutcome | None:
        """Reads the image and posts it; None where the file itself is at fault."""

        slot: Slot | None = None

        async def ready() -> None:
            nonlocal slot
            slot = slot or await self._turn_of(rule)

        async def started() -> None:
            assert slot is not None
            self._intend(job, rule, sent, slot)

        asked = await self._request(job, rule)
        if asked is None:
            return None
        request, sent = asked
        del asked
        posting = self._context.client.create(request, sink=sink, started=started, sent=lease.release, ready=ready)
        del request  # or this frame would keep the image in memory until PicWish answers
        try:
            return await posting
        finally:
            if slot is not None:
                slot.over()

    async def _request(self, job: Job, rule: Rule) -> tuple[CreateRequest, Sent | None] | None:
        make = partial(CreateRequest, type=rule.type, return_type=rule.return_type, sync=rule.sync)
        if job.kind is Kind.LINK:
            return make(image_url=job.url), None
        upload = await self._prepare.read(job, rule)
        if job.id in self._shrinking:
            self._shrinking.discard(job.id)
            self._context.bells.submit.ring()  # the next one may be made smaller meanwhile
        if upload is None:
            return None
        kind = upload.format
        image = memoryview(upload.data)
        return make(image=image, filename=f"image.{kind.extension}", content_type=kind.mime), upload.sent

    async def _turn_of(self, rule: Rule) -> Slot:
        try:
            async with asyncio.timeout(_PARKED_MAX):
                return await self._pacer.slot(Urgency.CREATE, self._turns.rank(rule))
        except TimeoutError:
            raise _NotNowError from None

    def _intend(self, job: Job, rule: Rule, sent: Sent | None, slot: Slot) -> None:
        """The last instant before the first byte: writes the intent."""
        context = self._context
        try:
            if not self._gate.admits(job.id) or context.stopping:
                raise _NotNowError
            self._begin(job, rule, Purse(context.config.budget, context.clock.now()).caps(), sent)
            slot.left()
        except BudgetReachedError:
            raise _NotNowError from None
        finally:
            slot.over()
        if not rule.sync:
            self._unanswered.add(job.id)
        self._prepared(job.id)

    def _prepared(self, job_id: int) -> None:
        """Another one may be prepared in its place."""
        self._shrinking.discard(job_id)
        self._preparing.pop(job_id, None)
        self._context.bells.submit.ring()

    def _begin(self, job: Job, rule: Rule, caps: list[tuple[float, int]], sent: Sent | None) -> None:
        context = self._context
        message = "sending its URL" if job.url else f"sending {job.stamp.size} bytes to PicWish"
        if sent is not None:
            message = f"sending {sent.size} bytes to PicWish: made smaller, to {sent.width} x {sent.height}"
        context.journal.move(
            job, State.SUBMITTING, message, sent=sent,
            reserve=PRICES[rule.type], caps=caps, type=rule.type, return_type=rule.return_type, sync=rule.sync,
            submitted_at=context.clock.now(), task_id=None, problem=None, note=None,
        )  # fmt: skip

    async def _write_down(self, job_id: int, outcome: CreateOutcome, sink: Path) -> None:
        """Settles the outcome, and keeps trying while the journal's disk is full or another program locks it."""
        context = self._context
        while True:
            try:
                await self._settle(job_id, outcome, sink)
                return
            except JournalTemporaryError as error:
                job = context.journal.get(job_id)
                if job is None or job.state is not State.SUBMITTING:
                    raise
                context.waits.tell(error, job=job_id)
                await context.clock.sleep(_IDLE)

    async def _settle(self, job_id: int, outcome: CreateOutcome, sink: Path) -> None:
        """The outcome of a POST goes into the journal before anything else happens."""
        context = self._context
        job = context.journal.get(job_id)
        assert job is not None
        match outcome:
            case Accepted(task_id=str(task_id)) | Finished(task_id=str(task_id)) if self._is_anothers(job, task_id):
                self._doubt(job, f"PicWish gave it the task {task_id}, which is another picture's")
            case Accepted(task_id=task_id, answer=answer):
                self._collect.accepted(self._pending(job, task_id, answer.to_json()))
            case Finished(task_id=task_id, answer=answer, image=image, spooled=spooled):
                job = self._pending(job, task_id, answer.to_json())
                await self._collect.succeeded(job, answer, image, sink if spooled is not None else None)
            case TaskFailed():
                task_failed(context, context.journal.update(job, attempts=job.attempts + 1), outcome)
            case Refused(problem=problem):
                fail(context, job, problem, charge=Charge.RELEASED)
            case NotSent(reason=reason):
                self._later(job, f"PicWish could not be reached: {reason}")
            case NotAccepted(reason=reason, retry_after=retry_after, busy=True):
                self._pacer.slow_down(retry_after)
                pause = min(context.pause_after(job.refusals), _BUSY_PAUSE_MAX)
                self._back(job, f"PicWish asked for fewer requests: {reason}", pause=pause)
            case NotAccepted(reason=reason, retry_after=retry_after):
                self._gate.close(Reason.API_DOWN, reason, trial=True, rest=retry_after)
                pause = max(context.pause_after(job.refusals), min(retry_after or 0.0, _LATER_MAX))
                self._back(job, f"not accepted: {reason}", pause=pause)
            case Unauthorized(message=message):
                self._gate.close(Reason.UNAUTHORIZED, message, trial=True)
                self._back(job, message, pause=context.pause_after(job.refusals) if job.refusals else 0.0)
            case InDoubt(reason=reason):
                self._doubt(job, f"PicWish may have taken this image, but its answer never came whole: {reason}")
                self._gate.close(Reason.API_DOWN, reason, trial=True)
            case _:
                assert_never(outcome)

    def _is_anothers(self, job: Job, task_id: str) -> bool:
        owner = self._context.journal.owner_of_task(task_id)
        return owner is not None and owner.id != job.id

    def _doubt(self, job: Job, message: str) -> None:
        job = self._context.journal.update(job, attempts=job.attempts + 1)
        doubt(self._context, job, ErrorCode.SUBMIT_OUTCOME_UNKNOWN, message)

    def _pending(self, job: Job, task_id: str | None, answer: str) -> Job:
        # in the log first: should the journal fail at this very moment, a person can still find the task
        _log.info("task.accepted", job=job.id, rule=job.rule, path=job.source, task=task_id)
        self._gate.succeeded(Reason.API_DOWN, Reason.UNAUTHORIZED)
        return self._context.journal.move(
            job, State.PENDING, f"PicWish took it as task {task_id}" if task_id else "PicWish took it",
            task_id=task_id, answer=answer, attempts=job.attempts + 1, refusals=0, not_before=None,
        )  # fmt: skip

    def _back(self, job: Job, message: str, *, pause: float) -> None:
        """Provably not accepted: queued again, at no cost."""
        _log.warning("submit.not_accepted", job=job.id, rule=job.rule, path=job.source, reason=message)
        self._context.journal.move(
            job, State.QUEUED, message,
            charge=Charge.RELEASED, refusals=job.refusals + 1, not_before=self._context.clock.now() + pause,
        )  # fmt: skip

    def _later(self, job: Job, message: str) -> None:
        """Nothing left this machine: the job never left `queued`; the gate closes until PicWish answers a probe."""
        context = self._context
        self._gate.close(Reason.API_DOWN, message)
        pause = context.pause_after(job.refusals)
        context.journal.update(job, refusals=job.refusals + 1, not_before=context.clock.now() + pause)

    def _patience(self) -> float:
        usual = self._context.patience(_IDLE)
        return max(0.01, min(usual, self._pacer.wait or usual))
