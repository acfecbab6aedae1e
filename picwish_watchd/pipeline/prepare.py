"""What is looked at before paying: is the file still what was judged, was the same picture paid for already?"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config.schema import IfExists, OnSuccess, Rule
from picwish_watchd.fs.atomic_write import OutboxAway, obstacle
from picwish_watchd.fs.safe_open import OpenFile, look, open_file, stamp_of
from picwish_watchd.fs.verdicts import Bad, Changed, Gone, NotWhole, Unreadable
from picwish_watchd.images.downscale import NotNow, Order, Unfit, copied, fit
from picwish_watchd.images.formats import Format
from picwish_watchd.images.inspect import Inspected, Limits, read_exactly
from picwish_watchd.images.link_files import LinkFound
from picwish_watchd.job import ErrorCode, Job, Kind, Original, Problem, Sent, State
from picwish_watchd.outbox.availability import absence
from picwish_watchd.pipeline.admission import judge, limits_of
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.result_names import existing_result, name_of
from picwish_watchd.pipeline.target_folders import trouble_with
from picwish_watchd.pipeline.transitions import reject

_log = structlog.get_logger()

_LOOK = 2.0  # seconds for which an outbox that was well counts as well
_KEPT = 4  # smaller images that wait in the spool for another try: 120 MB as PicWish's limits are
_PAUSE = 30.0  # seconds until a file or folder that could not be read is tried again


@dataclass(frozen=True, slots=True)
class Upload:
    """The image that is sent."""

    data: bytearray
    format: Format
    sent: Sent | None = None  #: set where it is not the source itself


class Prepare:
    """The last looks at a queued job. Whatever they find is in the journal when a method answers None or True."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._looked_at: dict[Path, float] = {}  # outboxes that were well, and when (monotonic)
        self._waiting: dict[int, tuple[Order, Inspected]] = {}  # made smaller, and refused so far

    async def prepare(self, job: Job, rule: Rule) -> Job | None:
        """The job as it is to be submitted, or None: it has been dealt with, or waits."""
        if job.sha256 is None or self._is_too_large(job, rule):
            judged = await self._judged(job, rule)
            if judged is None or judged.sha256 != job.sha256:
                return None  # with what it turned out to hold it takes its turn among its copies
            job = judged
        if await self._waits(rule) or await self._obstructed(job, rule):
            return None
        if await self._copied(job, rule) or await self._skipped(job, rule):
            return None
        return job

    async def _obstructed(self, job: Job, rule: Rule) -> bool:
        """Whether a file or a link stands where the result's subfolder must be: it could not be delivered."""
        kind = Format(job.format) if job.format else Format.JPEG
        folder = name_of(job, rule, kind, job.width or 0, job.height or 0, self._context.clock.now()).parent
        found = await self._context.lanes.run(f"out:{rule.name}", obstacle, rule.outbox, folder)
        if found is None:
            return False
        self._put_off(job, f"{found} stands where a folder for results must be; rename or remove it, and it goes on")
        return True

    async def _waits(self, rule: Rule, *, afresh: bool = False) -> bool:
        """Nothing is bought that cannot be kept: whether the outbox cannot be written to; then the rule is put off.

        Looked at every few seconds, or ``afresh``: what an outbox lacks may stand on a mount that has just gone.
        """
        now = self._context.clock.monotonic()
        if not afresh and now - self._looked_at.get(rule.outbox, -_LOOK) < _LOOK:
            return False
        trouble = await trouble_with(self._context, rule, rule.outbox)
        if trouble is None:
            self._looked_at[rule.outbox] = now
            return False
        self._looked_at.pop(rule.outbox, None)
        self._context.journal.put_off(rule.name, State.QUEUED, trouble, self._context.clock.now() + _PAUSE)
        _log.warning("submit.waits", rule=rule.name, reason=trouble)
        return True

    def _is_too_large(self, job: Job, rule: Rule) -> bool:
        """It was queued to be made smaller, and the rule does not want that any more: it is judged anew."""
        limits = limits_of(self._context.config.api, rule)
        return not limits.fitting and _exceeds(job, limits)

    def makes_smaller(self, job: Job, rule: Rule) -> bool:
        """Whether another image is made of it first: that takes long, and one at a time is made."""
        limits = limits_of(self._context.config.api, rule)
        return limits.fitting and _exceeds(job, limits)

    def weight(self, job: Job, rule: Rule) -> int:
        """The bytes that `read` brings into memory, at most."""
        limits = limits_of(self._context.config.api, rule)
        return limits.max_bytes if _exceeds(job, limits) else job.stamp.size

    async def reach(self, job: Job, rule: Rule) -> None:
        """Opens the image and no more: where its mount hangs it shall hang here, before it holds memory."""
        follow = rule.follow_symlinks
        await self._context.lanes.run(f"read:{rule.name}", _opened_and_closed, job.source, follow_symlinks=follow)

    async def read(self, job: Job, rule: Rule) -> Upload | None:
        """What is sent: the bytes that were hashed, or what is made of them where they are too many.

        None: the job has been told what is wrong with its file, or waits.
        """
        assert job.sha256 is not None
        limits = limits_of(self._context.config.api, rule)
        if _exceeds(job, limits):
            return await self._fitted(job, rule, limits)
        data = await self._context.lanes.run(
            f"read:{rule.name}", read_exactly, job.source, job.sha256, job.stamp.size,
            follow_symlinks=rule.follow_symlinks,
        )  # fmt: skip
        if isinstance(data, bytearray):
            return Upload(data, Format(job.format or ""))
        await self._unread(job, rule, data)
        return None

    async def _fitted(self, job: Job, rule: Rule, limits: Limits) -> Upload | None:
        """A smaller one, made of the source's own bytes; what an earlier try made of the same source is good still."""
        assert job.sha256 is not None
        context = self._context
        order = Order(
            job.source, job.sha256, job.stamp.size, job.width or 0, job.height or 0, replace(limits, fitting=False)
        )
        made: Inspected | Unfit | NotNow | Changed | Gone | Unreadable | None
        made = await self._kept(job, rule, order) or await self._made(job, rule, order)
        match made:
            case Unfit(problem=problem):
                reject(context, job, problem)
                return None
            case NotNow(reason=reason):
                self._put_off(job, f"{job.source.name} could not be made smaller yet: {reason}; tried again")
                return None
            case Inspected(format=kind, width=width, height=height, size=size, sha256=sha256):
                data = await context.lanes.run("fit", read_exactly, self._place(job.id), sha256, size)
                if isinstance(data, bytearray):
                    self._keep(job.id, order, made)
                    return Upload(data, kind, Sent(kind.value, width, height, size))
                self._drop(job.id)
                self._put_off(job, f"the smaller {job.source.name} did not stay in the spool; tried again")
                return None
        await self._unread(job, rule, made)
        return None

    async def _made(
        self, job: Job, rule: Rule, order: Order
    ) -> Inspected | Unfit | NotNow | Changed | Gone | Unreadable:
        """One after the other, whatever the rule: each may take a gigabyte, in a process of its own."""
        context = self._context
        copy, target = context.spool.fresh(job.id, "source"), context.spool.fresh(job.id, "fitted")

        def give_up() -> bool:
            return context.stopping

        missing = await context.lanes.run(
            f"read:{rule.name}", copied, order, copy, give_up=give_up, follow_symlinks=rule.follow_symlinks
        )
        if missing is not None:
            return missing
        return await context.lanes.run("fit", fit, order, copy=copy, target=target, give_up=give_up)

    async def _kept(self, job: Job, rule: Rule, order: Order) -> Inspected | None:
        """What was made for an earlier try, if the source lies there as it did."""
        before, made = self._waiting.get(job.id, (None, None))
        if made is None or before != order:
            return None
        found = await self._context.lanes.run(
            f"read:{rule.name}", look, job.source, follow_symlinks=rule.follow_symlinks
        )
        if isinstance(found, os.stat_result) and stamp_of(found) == job.stamp:
            self._keep(job.id, order, made)  # as the newest: it is about to be read
            return made
        self._drop(job.id)
        return None

    def _keep(self, job_id: int, order: Order, made: Inspected) -> None:
        """In the spool, not in memory; the oldest goes if there are too many: it is only made once more."""
        self._waiting.pop(job_id, None)
        self._waiting[job_id] = (order, made)
        while len(self._waiting) > _KEPT:
            self._drop(next(iter(self._waiting)))

    def _drop(self, job_id: int) -> None:
        self._waiting.pop(job_id, None)
        self._place(job_id).unlink(missing_ok=True)

    def _place(self, job_id: int) -> Path:
        return self._context.spool.folder / f"{job_id}.fitted.part"

    def release(self, job_id: int) -> None:
        """A try is over: what was made smaller for it goes, unless the job is queued for another one."""
        if job_id in self._waiting:
            job = self._context.journal.get(job_id)
            if job is None or job.state is not State.QUEUED:
                self._drop(job_id)

    async def _unread(self, job: Job, rule: Rule, found: Changed | Gone | Unreadable) -> None:
        """Tells the job why its bytes are not those that were judged."""
        match found:
            case Changed():
                text = f"{job.source.name} changed while it waited; its new content becomes a job of its own"
                reject(self._context, job, Problem(ErrorCode.SOURCE_CHANGED, text))
                self._context.look_again(job)
            case Gone():
                await self._gone(job, rule)
            case Unreadable(reason=reason):
                self._put_off(job, f"{job.source.name} cannot be read ({reason}); tried again")
            case _:
                assert_never(found)

    async def _judged(self, job: Job, rule: Rule) -> Job | None:
        """Judges a file anew that was rejected before and that a person said `retry` for."""
        context = self._context
        verdict = await context.lanes.run(f"read:{rule.name}", judge, job.source, context.config.api, rule, final=True)
        match verdict:
            case Inspected(format=kind, width=width, height=height, sha256=sha256, stamp=stamp):
                return context.journal.update(
                    job, kind=Kind.FILE, format=kind, width=width, height=height, sha256=sha256, stamp=stamp
                )
            case LinkFound(url=url, sha256=sha256, stamp=stamp):
                return context.journal.update(job, kind=Kind.LINK, url=url, sha256=sha256, stamp=stamp)
            case Bad(problem=problem):
                reject(context, job, problem)
            case Gone():
                await self._gone(job, rule)
            case NotWhole(reason=reason) | Unreadable(reason=reason):
                self._put_off(job, f"{job.source.name} cannot be read ({reason}); tried again")
            case Changed():
                self._put_off(job, f"{job.source.name} is just being changed; tried again")
            case _:
                assert_never(verdict)
        return None

    async def _copied(self, job: Job, rule: Rule) -> bool:
        """One content, one charge: delivered from the result of an earlier job, held with that one, or put off."""
        context = self._context
        for twin in context.journal.twins(job, rule.type):
            if twin.state is State.HELD:
                if job.pay_again:
                    continue
                text = f"the same picture as job {twin.id}, which is held; it goes on with that one"
                problem = Problem(ErrorCode.DUPLICATE_OF_HELD, text)
                context.journal.move(job, State.HELD, text, problem=problem)
                return True
            if twin.output is None or twin.result is None:
                continue
            stands = await context.lanes.run(
                f"out:{rule.name}", context.spool.adopt, twin.output, job.id, twin.result.sha256
            )
            if stands:
                text = f"the same picture as job {twin.id}: delivered from its result, at no cost"
                context.journal.move(job, State.DELIVERING, text, result=twin.result, note=text, not_before=None)
                _log.info("job.copied", job=job.id, rule=rule.name, path=job.source, first=twin.id)
                context.bells.deliver.ring()
                return True
            if await self._waits(rule, afresh=True):
                return True
        return False

    async def _skipped(self, job: Job, rule: Rule) -> bool:
        """Whether `if_exists: skip` finds a result already (the job is done, at no cost), or cannot look and waits."""
        if rule.if_exists is not IfExists.SKIP:
            return False
        context = self._context
        found = await context.lanes.run(f"out:{rule.name}", existing_result, rule, job, context.clock.now())
        if found is None:
            return await self._waits(rule, afresh=True)
        if isinstance(found, OutboxAway):
            self._put_off(job, f"the outbox {rule.outbox} cannot be looked into: {found.reason}")
            return True
        message = f"skipped: {found} was there already"
        moving = rule.on_success is OnSuccess.MOVE  # never deleted: nobody has compared the two
        context.journal.move(
            job, State.DONE, message, output=found, note=message, completed_at=context.clock.now(),
            original=Original.WAITING if moving else Original.PRESENT,
        )  # fmt: skip
        context.bells.dispose.ring()
        _log.info("job.skipped", job=job.id, rule=rule.name, path=job.source, output=found)
        return True

    async def _gone(self, job: Job, rule: Rule) -> None:
        home = self._context.journal.folder_mount(rule.inbox)
        away = await self._context.lanes.run(f"read:{rule.name}", absence, rule.inbox, home)
        if away is not None:
            note = f"the inbox {rule.inbox} is away: {away}"
            self._context.journal.put_off(rule.name, State.QUEUED, note, self._context.clock.now() + _PAUSE)
            return
        text = f"{job.source.name} was removed from the inbox before it was submitted"
        reject(self._context, job, Problem(ErrorCode.SOURCE_MISSING, text))
        self._context.look_again(job)

    def _put_off(self, job: Job, note: str) -> None:
        later = self._context.clock.now() + _PAUSE
        self._context.journal.update(job, note if job.note != note else None, note=note, not_before=later)


def _opened_and_closed(path: Path, *, follow_symlinks: bool) -> None:
    opened = open_file(path, follow_symlinks=follow_symlinks)
    if isinstance(opened, OpenFile):
        os.close(opened.fd)


def _exceeds(job: Job, limits: Limits) -> bool:
    return job.kind is Kind.FILE and limits.exceeded(job.stamp.size, job.width or 0, job.height or 0)
