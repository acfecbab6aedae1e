"""From `queued` to `pending`: the only step that spends money.

The intent is in the journal, durable, at the last instant: after the connection to PicWish stands and before the first
byte leaves. What fails before that cost nothing and never left `queued`; what fails after it is judged by what is
provable, and everything else is doubt.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config import IfExists, Rule
from picwish_watchd.files.images import read_exactly
from picwish_watchd.files.kinds import Format
from picwish_watchd.files.place import OutboxAway
from picwish_watchd.files.verdicts import Changed, Gone, Unreadable
from picwish_watchd.job import ErrorCode, Job, Kind, Problem, State
from picwish_watchd.journal import Charge
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
from picwish_watchd.pipeline.border import guarded
from picwish_watchd.pipeline.budget import ByteBudget, Lease
from picwish_watchd.pipeline.collect import Collect
from picwish_watchd.pipeline.context import PRICES, Context
from picwish_watchd.pipeline.deliver import existing_result
from picwish_watchd.pipeline.gate import Gate, Reason
from picwish_watchd.pipeline.outcomes import doubt, fail, reject, task_failed
from picwish_watchd.pipeline.pacer import Pacer, Urgency

_log = structlog.get_logger()

_PARKED_MAX = 5.0  # seconds that a connection may wait for its slot: a server may close an idle one
_UNREADABLE_PAUSE = 30.0  # seconds until a file that could not be read is tried again
_IDLE = 1.0  # seconds between looks at the journal when no bell rings


class _NotNowError(Exception):
    """Raised before the first byte: the gate has closed or the daemon stops; the job stays `queued`."""


class Submit:
    """Takes queued jobs, the highest priority first and equal ones in turn, and submits them."""

    def __init__(self, context: Context, *, gate: Gate, pacer: Pacer, budget: ByteBudget, collect: Collect) -> None:
        self._context = context
        self._gate = gate
        self._pacer = pacer
        self._budget = budget
        self._collect = collect
        self._preparing: set[int] = set()  # on their way to the first byte; `queued` in the journal
        self._served: dict[str, int] = {}  # by rule: when its last turn was, in turns
        self._turn = 0

    async def run(self) -> None:
        """Submits until the daemon stops; then returns when every POST that had begun has its outcome."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                job = self.choose()
                if job is None:
                    await self._context.bells.submit.wait(self._patience())
                    continue
                self._preparing.add(job.id)
                group.create_task(guarded(self._context.journal, job.id, self.submit(job)))

    def choose(self) -> Job | None:
        """The job whose turn it is, or None while none may be prepared."""
        context = self._context
        if self._gate.blocked is not None or self._pacer.wait > _PARKED_MAX / 2:
            return None
        if len(self._preparing) >= max(2, min(16, int(context.config.api.qps / 8))):
            return None
        if context.journal.unsaved() + len(self._preparing) >= self._collect.max_pending():
            return None
        turns = sorted(context.config.rules, key=lambda rule: (-rule.priority, self._served.get(rule.name, 0)))
        for rule in turns:
            job = context.journal.ready(rule.name, context.clock.now(), tuple(self._preparing))
            if job is not None:
                self._turn += 1
                self._served[rule.name] = self._turn
                return job
        return None

    async def submit(self, job: Job) -> None:
        """One job's way to PicWish and the answer's way into the journal."""
        rule = self._context.rule_of(job)
        sink = self._context.spool.fresh(job.id, "create")
        lease = self._budget.lease()
        try:
            if await self._skipped(job, rule):
                return
            if job.kind is Kind.FILE:
                await lease.take(job.stamp.size)
            outcome = await self._post(job, rule, sink, lease)
        except _NotNowError:
            return
        finally:
            lease.release()
            self._preparing.discard(job.id)
            self._context.bells.submit.ring()
        if outcome is not None:
            await self._settle(job.id, outcome, sink)

    async def _skipped(self, job: Job, rule: Rule) -> bool:
        """Whether `if_exists: skip` finds a result already (the job is done, at no cost) or cannot look."""
        if rule.if_exists is not IfExists.SKIP:
            return False
        context = self._context
        found = await context.lanes.run(f"out:{rule.name}", existing_result, rule, job, context.clock.now())
        if found is None:
            return False
        if isinstance(found, OutboxAway):
            note = f"the outbox {rule.outbox} cannot be looked into: {found.reason}"
            later = context.clock.now() + _UNREADABLE_PAUSE
            context.journal.update(job, note if job.note != note else None, note=note, not_before=later)
            return True
        message = f"skipped: {found} was there already"
        context.journal.move(job, State.DONE, message, output=found, note=message, completed_at=context.clock.now())
        _log.info("job.skipped", job=job.id, rule=rule.name, path=job.source, output=found)
        return True

    async def _post(self, job: Job, rule: Rule, sink: Path, lease: Lease) -> CreateOutcome | None:
        """Reads the image and posts it; None where the file itself is at fault."""

        async def started() -> None:
            await self._intend(job, rule)

        request = await self._request(job, rule)
        if request is None:
            return None
        posting = self._context.client.create(request, sink=sink, started=started, sent=lease.release)
        del request  # or this frame would keep the image in memory until PicWish answers
        return await posting

    async def _request(self, job: Job, rule: Rule) -> CreateRequest | None:
        make = partial(CreateRequest, type=rule.type, return_type=rule.return_type, sync=rule.sync)
        if job.kind is Kind.LINK:
            return make(image_url=job.url)
        data = await self._read(job, rule)
        if data is None:
            return None
        kind = Format(job.format or "")
        return make(image=memoryview(data), filename=f"image.{kind.extension}", content_type=kind.mime)

    async def _read(self, job: Job, rule: Rule) -> bytearray | None:
        """The bytes that were hashed, or None: then the job has been told what is wrong with its file."""
        context = self._context
        assert job.sha256 is not None
        data = await context.lanes.run(
            f"read:{rule.name}",
            read_exactly,
            job.source,
            job.sha256,
            job.stamp.size,
            follow_symlinks=rule.follow_symlinks,
        )
        match data:
            case Changed():
                text = f"{job.source.name} changed while it waited; its new content becomes a job of its own"
                reject(context, job, Problem(ErrorCode.SOURCE_CHANGED, text))
                context.look_again(job)
            case Gone():
                text = f"{job.source.name} was removed from the inbox before it was submitted"
                reject(context, job, Problem(ErrorCode.SOURCE_MISSING, text))
                context.look_again(job)
            case Unreadable(reason=reason):
                later = context.clock.now() + _UNREADABLE_PAUSE
                note = f"{job.source.name} cannot be read ({reason}); tried again"
                context.journal.update(job, note if job.note != note else None, note=note, not_before=later)
            case _:
                return data
        return None

    async def _intend(self, job: Job, rule: Rule) -> None:
        """The last instant before the first byte: waits for the slot, then writes the intent."""
        context = self._context
        try:
            async with asyncio.timeout(_PARKED_MAX):
                await self._pacer.slot(Urgency.CREATE)
        except TimeoutError:
            raise _NotNowError from None
        if self._gate.blocked is not None or context.stopping:
            raise _NotNowError
        context.journal.move(
            job, State.SUBMITTING, "sending its URL" if job.url else f"sending {job.stamp.size} bytes to PicWish",
            reserve=PRICES[rule.type], type=rule.type, return_type=rule.return_type, sync=rule.sync,
            submitted_at=context.clock.now(), task_id=None, problem=None, note=None,
        )  # fmt: skip
        self._preparing.discard(job.id)
        context.bells.submit.ring()

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
                self._back(job, f"PicWish asked for fewer requests: {reason}", pause=0.0)
            case NotAccepted(reason=reason):
                self._gate.close(Reason.API_DOWN, reason)
                self._back(job, f"not accepted: {reason}", pause=context.pause_after(job.refusals))
            case Unauthorized(message=message):
                self._gate.close(Reason.UNAUTHORIZED, message)
                self._back(job, message, pause=0.0)
            case InDoubt(reason=reason):
                self._doubt(job, f"PicWish may have taken this image, but its answer never came whole: {reason}")
                self._gate.close(Reason.API_DOWN, reason)
            case _:
                assert_never(outcome)

    def _is_anothers(self, job: Job, task_id: str) -> bool:
        owner = self._context.journal.owner_of_task(task_id)
        return owner is not None and owner.id != job.id

    def _doubt(self, job: Job, message: str) -> None:
        job = self._context.journal.update(job, attempts=job.attempts + 1)
        doubt(self._context, job, ErrorCode.SUBMIT_OUTCOME_UNKNOWN, message)

    def _pending(self, job: Job, task_id: str | None, answer: str) -> Job:
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
        context.journal.update(job, refusals=job.refusals + 1, note=message, not_before=context.clock.now() + pause)

    def _patience(self) -> float:
        return max(0.01, min(_IDLE, self._pacer.wait or _IDLE))
