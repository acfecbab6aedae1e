"""From `pending` to `delivering`: asks for a task when it is likely done, and brings its result into the spool.

Queries are free of charge but not of requests; downloads are free of both, for they go to another host. All of this may
be repeated at will, so nothing here is ever in doubt, except that a result is gone an hour after it was made.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.images.inspect import inspect_result
from picwish_watchd.job import ErrorCode, Job, Problem, Result, State
from picwish_watchd.journal.rows import Running
from picwish_watchd.journal.writer import Charge
from picwish_watchd.outbox.spool import Spool
from picwish_watchd.picwish import (
    Answer,
    Busy,
    Dead,
    Downloaded,
    DownloadOutcome,
    NotAResult,
    NotStored,
    Processing,
    QueryOutcome,
    Succeeded,
    TaskFailed,
    TaskUnknown,
    Unauthorized,
    Unavailable,
)
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.error_boundary import guarded
from picwish_watchd.pipeline.gate import Gate, Reason
from picwish_watchd.pipeline.transitions import doubt, task_failed
from picwish_watchd.scheduling.download_slots import Places
from picwish_watchd.scheduling.duration_model import Law, most_pending
from picwish_watchd.scheduling.poll_queue import Agenda, Followed
from picwish_watchd.scheduling.rate_limiter import Pacer, Slot, Urgency

_log = structlog.get_logger()

_HOUR = 3600.0  # seconds for which PicWish keeps a result (API document)
_FRESH_URLS = 3  # tries for a fresh URL before a paid result counts as gone
_UNKNOWN_MAX = 4  # 404s in a row before a task counts as gone; a service that is out of order may say so of all
_UNKNOWN_PAUSE = 2.0  # seconds between them, where the hour is over
_SLOT_PATIENCE = 2.0  # seconds
_LOST = 2 * 3600.0  # a task of this age (seconds) that no query could tell anything of is gone: results live an hour,
_UNTOLD = 900.0  # if that was tried for so long: at a start the network may come late, and the clock be wrong
_RETRY_AFTER_MAX = 60.0  # seconds; a paid result cannot wait for as long as a server likes
_UNREACHABLE = 3  # downloads that failed in a row, of whatever tasks, before nothing more is bought
_ANSWER_GAP = 60.0  # an answer that is later than it was to come by more (seconds) tells of a silence: not counted
_PAUSE_MAX = 30.0
_IDLE = 1.0
_SELDOM = 50  # a look at all tasks takes 5 ms where there are 10,000: so much of the time between looks


class Collect:
    """Follows the tasks at PicWish."""

    def __init__(self, context: Context, *, gate: Gate, pacer: Pacer) -> None:
        self._context = context
        self._gate = gate
        self._pacer = pacer
        self._laws = {model: Law(context.journal.task_seconds(model, 200)) for model in (0, 1)}
        self._unlearnt = Law().longest
        self._agenda = Agenda()
        self._places = Places(context.clock)
        self._refresh_at = 0.0
        self._favour = True  # whether the next query goes to a higher priority: every second one goes to whoever is due
        self._failed_downloads = 0  # in a row

    async def run(self) -> None:
        """Asks for tasks until the daemon stops; then returns when the running requests have ended."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.pulse.beat("collect")
                self.refresh()
                wait = self._agenda.wait(self._now())
                if wait is None or wait > 0:
                    usual = self._context.patience(_IDLE)
                    await self._context.bells.collect.wait(usual if wait is None else min(wait, usual))
                    continue
                try:
                    async with asyncio.timeout(_SLOT_PATIENCE):
                        slot = await self._slot()
                except TimeoutError:
                    continue  # meanwhile a task may have begun to expire, or the daemon to stop
                job = self.choose()
                if job is not None and not self._context.stopping:
                    group.create_task(guarded(self._context, job.id, self.ask(job, slot)))
                else:
                    slot.over()

    async def _slot(self) -> Slot:
        """For the query that presses most: one for a higher priority goes before creates of a lower one."""
        if self.presses():
            return await self._pacer.slot(Urgency.EXPIRING)
        favoured = self._favoured() if self._favour else None
        return await self._pacer.slot(Urgency.QUERY, None if favoured is None else favoured[0])

    def refresh(self) -> None:
        """Takes up tasks that only the journal knows: those of an earlier run, and those that `retry` brought back."""
        now = self._now()
        if now < self._refresh_at:
            return
        for task in self._context.journal.running(but_for=self._agenda):
            self._take_up(task)
        self._refresh_at = now + min(_PAUSE_MAX, max(_IDLE, _SELDOM * (self._now() - now)))

    def max_pending(self) -> int:
        """How many tasks may be at PicWish at once: as many as keep requests busy and the line can bring home.

        Quick tasks lower it only with ``sync: 1`` (a silence puts each in doubt): else a slow spell would stall at few.
        """
        api, rules = self._context.config.api, self._context.config.rules
        least = 0.0 if any(rule.sync for rule in rules) else self._unlearnt
        longest = max(least, *(self._laws[rule.type].longest for rule in rules))
        wanted = most_pending(api.qps, longest) if api.max_pending is None else api.max_pending
        return min(wanted, self._places.collectable(2 * most_pending(api.qps, self._unlearnt)))

    def presses(self) -> bool:
        """Whether a result may be lost if it is not asked for first: then no request is left for anything else."""
        return self._agenda.expiring(self._now())

    def accepted(self, job: Job) -> None:
        """A task was just created: its age counts from now."""
        now = self._now()
        first = self._laws[job.type].next_query(0.0)
        self._agenda.follow(Followed(job.id, job.type, job.rule, born=now, expected=first), now + first)
        self._context.bells.collect.ring()

    def choose(self) -> Job | None:
        """The task that is due and most likely done; every second time one of a higher priority, if it is worth it."""
        favoured = self._favoured() if self._favour else None
        self._favour = favoured is None
        prefer = None if favoured is None else favoured[1]
        while (task := self._agenda.take(self._now(), self._likely, prefer)) is not None:
            job = self._context.journal.get(task.id)
            if job is not None and job.state is State.PENDING:
                return job
            self._agenda.drop(task.id)
            prefer = None
        return None

    def _favoured(self) -> tuple[int, Followed] | None:
        ranks = {rule.name: rule.priority for rule in self._context.config.rules}
        if len(set(ranks.values())) < 2:
            return None
        return self._agenda.favoured(self._now(), self._likely, lambda rule: ranks.get(rule, 0))

    def _likely(self, task: Followed) -> float:
        return self._laws[task.type].likely(task.open_at, self._age(task))

    async def ask(self, job: Job, slot: Slot) -> None:
        """One query and what follows from it."""
        followed = self._known(job)
        sink = self._context.spool.fresh(job.id, "query")
        try:
            if job.task_id is None:
                self._gone(job, ErrorCode.TASK_UNKNOWN, "PicWish gave no task_id to ask for the result again")
                return
            outcome = await self._context.client.query(job.task_id, sink=sink, leaving=slot.left)
            slot.over()
            await self._settle(job, followed, outcome, sink)
        finally:
            slot.over()
            if followed.due is None and followed.id in self._agenda:
                self._agenda.schedule(followed, self._now())
            self._context.bells.collect.ring()

    async def succeeded(self, job: Job, answer: Answer, image: str | None, spooled: Path | None) -> None:
        """A task is done: its credits are spent, and its result is brought home. ``job`` is `pending`."""
        context = self._context
        followed = self._known(job)
        seconds = self._seconds(followed, answer)
        job = context.journal.move(
            job, State.FETCHING, "PicWish is done with it",
            charge=Charge.SPENT, answer=answer.to_json(), task_seconds=seconds,
        )  # fmt: skip
        followed.made_at = seconds if followed.made_at is None else followed.made_at
        self._laws[job.type].learn(seconds)
        context.bells.submit.ring()
        if spooled is not None:
            await self._keep(job, spooled)
        elif image is not None:
            await self._fetch(job, image)
        else:
            self._useless(job, ErrorCode.RESULT_INVALID, "PicWish's answer holds no usable image")

    async def _settle(self, job: Job, followed: Followed, outcome: QueryOutcome, sink: Path) -> None:
        context = self._context
        if not isinstance(outcome, (Unavailable, Busy)):
            followed.failures = 0
        match outcome:
            case Processing(answer=answer):
                self._still_open(job, followed, answer)
            case Succeeded(answer=answer, image=image, spooled=spooled):
                await self.succeeded(job, answer, image, sink if spooled is not None else None)
            case TaskFailed():
                self._agenda.drop(job.id)
                task_failed(context, job, outcome)
            case TaskUnknown(message=message):
                followed.unknown += 1
                if followed.unknown >= _UNKNOWN_MAX:
                    self._gone(job, ErrorCode.TASK_UNKNOWN, f"PicWish does not know task {job.task_id}: {message}")
                else:
                    over = self._now() - followed.since > _HOUR
                    pause = _UNKNOWN_PAUSE if over else context.pause_after(2 * followed.unknown)
                    self._agenda.schedule(followed, self._now() + pause)
            case Busy(retry_after=retry_after):
                self._pacer.slow_down(retry_after)
            case Unauthorized(message=message):
                self._gate.close(Reason.UNAUTHORIZED, message)
                self._pause(followed, None)
            case Unavailable(reason=reason, retry_after=retry_after):
                self._gate.close(Reason.API_DOWN, f"PicWish does not answer: {reason}")
                self._pause(followed, retry_after)
                if self._age(followed) > _LOST and self._age(followed) - followed.heard > _UNTOLD:
                    self._gone(job, ErrorCode.TASK_TIMEOUT, f"task {job.task_id} could not be asked for ({reason})")
            case NotStored(reason=reason):
                self._unkept(job, followed, reason)
            case _:
                assert_never(outcome)

    def _still_open(self, job: Job, followed: Followed, answer: Answer) -> None:
        age, limit = self._age(followed), self._context.config.api.task_timeout
        followed.answered += min(age - followed.heard, max(0.0, followed.expected - followed.heard) + _ANSWER_GAP)
        followed.heard = followed.open_at = age
        followed.unknown, followed.inherited = 0, False
        last = age + limit - followed.answered  # then its time is over
        followed.expected = max(age + 0.001, min(self._laws[job.type].next_query(age), last))
        self._agenda.schedule(followed, followed.born + followed.expected)
        if followed.answered >= limit:
            text = (
                f"PicWish has not finished task {job.task_id} in {limit:.0f} s "
                f"(state {answer.state}, {answer.progress or 0} %)"
            )
            self._hold(job, ErrorCode.TASK_TIMEOUT, text)

    async def _fetch(self, job: Job, url: str) -> None:
        sink = self._context.spool.fresh(job.id, "result")
        async with self._places.one():
            outcome: DownloadOutcome = await self._context.client.download(url, sink=sink)
        self._count(job, outcome)
        match outcome:
            case Downloaded():
                await self._keep(job, sink)
            case Dead(reason=reason):
                self._useless(job, ErrorCode.RESULT_EXPIRED, f"the result can no longer be downloaded: {reason}")
            case NotAResult(reason=reason):
                self._useless(job, ErrorCode.RESULT_INVALID, f"what PicWish gave as the result is no image: {reason}")
            case Unavailable(reason=reason, retry_after=retry_after):
                followed = self._known(job)
                message = f"the result could not be downloaded ({reason}); PicWish is asked for a fresh address"
                self._ask_again(job, message, self._pause(followed, retry_after))
            case NotStored(reason=reason):
                followed = self._known(job)
                self._unkept(job, followed, reason)
            case _:
                assert_never(outcome)

    async def _keep(self, job: Job, sink: Path) -> None:
        """Judges a result and keeps it: synced in the spool, then in the journal. Here the one-hour clock stops."""
        context = self._context
        try:
            verdict = await context.lanes.run("spool", _judge_and_keep, context.spool, sink, job.id)
        except OSError as error:
            self._unkept(job, self._known(job), error.strerror or str(error))
            return
        if not isinstance(verdict, Result):
            self._failed_downloads += 1
            self._useless(job, ErrorCode.RESULT_INVALID, f"what PicWish gave as the result is unusable: {verdict}")
            return
        self._gate.succeeded(Reason.RESULTS_UNREACHABLE, Reason.SPOOL)
        self._failed_downloads = 0
        self._places.kept()
        size = f"{verdict.width} x {verdict.height} {verdict.format}"
        context.journal.move(
            job, State.DELIVERING, f"the result is in the spool: {size}", result=verdict, note=None, not_before=None
        )
        followed = self._known(job)
        context.tally.saved(_HOUR - self._age(followed) + (followed.made_at or 0.0))
        self._agenda.drop(job.id)
        context.bells.deliver.ring()

    def _useless(self, job: Job, code: ErrorCode, reason: str) -> None:
        """A result that cannot be had or used: asked for afresh, at most `_FRESH_URLS` times."""
        followed = self._known(job)
        followed.bad_results += 1
        if followed.bad_results < _FRESH_URLS:
            # spread over minutes: what serves the results may be out of order for a while
            pause = self._context.pause_after(2 * followed.bad_results)
            self._agenda.schedule(followed, self._now() + pause)
            self._ask_again(job, f"{reason}; PicWish is asked again", pause)
        elif code is ErrorCode.RESULT_INVALID:
            text = f"{reason} (asked {followed.bad_results} times); it was paid for: `retry` asks PicWish again"
            _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=text)
            self._context.journal.move(job, State.HELD, text, problem=Problem(code, text))
            self._agenda.drop(job.id)
        else:
            self._gone(job, code, f"{reason} (asked {followed.bad_results} times)")

    def _count(self, job: Job, outcome: DownloadOutcome) -> None:
        """Several failed downloads in a row say that no result can be had at present: then nothing more is bought."""
        if isinstance(outcome, Downloaded):
            return
        self._failed_downloads += 1
        if self._failed_downloads >= _UNREACHABLE:
            text = f"{self._failed_downloads} results in a row could not be downloaded: {outcome.reason}"
            self._gate.close(Reason.RESULTS_UNREACHABLE, text, trial=True, by=job.id)

    def _unkept(self, job: Job, followed: Followed, reason: str) -> None:
        """The spool did not take the result: it stays at PicWish for up to an hour."""
        pause = self._pause(followed, None)
        message = f"the result could not be kept in the spool ({reason}); it is fetched again"
        _log.error("spool.failed", job=job.id, rule=job.rule, path=job.source, reason=reason)
        told = f"results cannot be kept in {self._context.spool.folder}: {reason}"
        self._gate.close(Reason.SPOOL, told, trial=True, by=job.id)
        with suppress(OSError):
            self._context.spool.prepare()
        if job.state is State.FETCHING:
            self._ask_again(job, message, pause)

    def _ask_again(self, job: Job, message: str, pause: float) -> None:
        _log.warning("result.asked_again", job=job.id, rule=job.rule, path=job.source, reason=message)
        later = self._context.clock.now() + pause
        self._context.journal.move(job, State.PENDING, message, not_before=later)
        self._context.bells.collect.ring()

    def _hold(self, job: Job, code: ErrorCode, text: str) -> None:
        """A task that may still end: held in both ways of charging."""
        self._agenda.drop(job.id)
        _log.error("job.held", job=job.id, rule=job.rule, path=job.source, code=code, reason=text)
        self._context.journal.move(job, State.HELD, text, charge=Charge.DOUBTFUL, problem=Problem(code, text))

    def _gone(self, job: Job, code: ErrorCode, message: str) -> None:
        self._agenda.drop(job.id)
        paid = job.paid
        if job.pay_again:
            words = f"{message}; submitted anew, as `retry` said"
            charge = Charge.SPENT if paid else Charge.DOUBTFUL
            self._context.journal.move(job, State.QUEUED, words, charge=charge, task_id=None, pay_again=False)
            self._context.bells.submit.ring()
        else:
            doubt(self._context, job, code, message, paid=paid)

    def _pause(self, followed: Followed, retry_after: float | None) -> float:
        """Puts the next query off, the longer the more failed in a row; answers the pause in seconds."""
        backoff = min(_PAUSE_MAX, self._context.pause_after(followed.failures))
        pause = backoff if retry_after is None else min(retry_after, _RETRY_AFTER_MAX)
        followed.failures += 1
        self._agenda.schedule(followed, self._now() + pause)
        return pause

    def _take_up(self, task: Running) -> None:
        now, wall = self._now(), self._context.clock.now()
        age = max(0.0, wall - task.submitted_at)
        due = now + max(0.0, min(task.not_before - wall, 300.0), self._laws[task.type].next_query(0.0) - age)
        followed = Followed(task.id, task.type, task.rule, born=now - age, heard=age, inherited=True)
        self._agenda.follow(followed, due)

    def _known(self, job: Job) -> Followed:
        """What is known of a task; one that came by another way than `accepted` is as old as the wall clock says."""
        task = self._agenda.get(job.id)
        if task is None:
            now = self._now()
            age = max(0.0, self._context.clock.now() - (job.submitted_at or 0.0))
            task = Followed(job.id, job.type, job.rule, born=now - age, heard=age)
            self._agenda.follow(task, now + _PAUSE_MAX)  # its answer is here: not to be asked for unless that is lost
        return task

    def _now(self) -> float:
        """PicWish works on while this machine sleeps, and its hours pass."""
        return self._context.clock.since_boot()

    def _age(self, followed: Followed) -> float:
        return self._now() - followed.born

    def _seconds(self, followed: Followed, answer: Answer) -> float:
        """How long PicWish worked: what it says itself, as far as that agrees with what was seen from here.

        Seen from here it took longer than until the last query that found it open, and no longer than until now. In a
        backlog that says little, for a task is asked for long after its end: then the law itself says what is likely.
        """
        seen = max(followed.open_at, self._age(followed))
        return self._laws[followed.type].took(followed.open_at, seen, answer.seconds)


def _judge_and_keep(spool: Spool, sink: Path, job_id: int) -> Result | str:
    """In a thread: the result, synced in the spool, or why it is none."""
    verdict = inspect_result(sink)
    if isinstance(verdict, Result):
        spool.keep(sink, job_id)
    else:
        sink.unlink(missing_ok=True)
    return verdict
