"""From a file seen to a job `queued` or `rejected`: waits until it stands still, judges it, writes it down."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import assert_never

import structlog

from picwish_watchd.config.schema import Rule
from picwish_watchd.errors import JournalTemporaryError
from picwish_watchd.fs.mounts import Mount, moved
from picwish_watchd.fs.verdicts import Bad, Changed, Gone, NotWhole, Unreadable
from picwish_watchd.images.inspect import Inspected
from picwish_watchd.images.link_files import LinkFound
from picwish_watchd.images.validate import Question
from picwish_watchd.images.validation_process import answers_to
from picwish_watchd.inbox.scanner import Sighting
from picwish_watchd.inbox.settling import Due, Settling
from picwish_watchd.job import Job, NewJob, Original, Stamp
from picwish_watchd.pipeline.admission import is_known, limits_of, new_job, without_own
from picwish_watchd.pipeline.context import Context
from picwish_watchd.runtime.wakeup import Bell

_log = structlog.get_logger()

#: What came of looking at a file: a job, no job yet and why, or its stamp where it has changed.
Judged = NewJob | NotWhole | Changed | Gone | Unreadable | Stamp

_AT_ONCE = 32  # files a turn: to write them down keeps the loop for 8 ms, and two turns may come at once
_FLOOD = 500  # files that wait, from which on they are judged by a process of its own
_IDLE = 30.0
_JOBS = (Inspected, LinkFound, Bad)


class Intake:
    """The intake of one rule. All methods belong to the event loop's thread."""

    def __init__(self, context: Context, rule: Rule, *, gone: Callable[[str], None] = lambda _relative: None) -> None:
        """``gone`` hears of files (below the inbox) that vanished: if they come back, they are news."""
        self._context = context
        self._told_gone = gone
        self._rule = rule
        self._settling = Settling(rule.settle, rule.settle_timeout)
        self._bell = Bell()
        self._unreadable: set[str] = set()
        self._lane = f"in:{rule.name}:{rule.inbox}"  # not that of an inbox which the rule left, and which may hang

    @property
    def waiting(self) -> int:
        """Number of files that are not yet a job, less those that cannot be read."""
        return len(self._settling) - len(self._unreadable)

    @property
    def unreadable(self) -> int:
        """Number of files that could not be read when last looked at; they are tried again."""
        return len(self._unreadable)

    @property
    def judging(self) -> float:
        """For how long (seconds) the files have been looked at that are being judged; 0 if none are."""
        return self._context.lanes.seconds(self._lane)

    def sighted(self, found: Sequence[Sighting]) -> None:
        """The watcher saw files that are new or have changed."""
        now = self._context.clock.monotonic()
        for sighting in found:
            self._settling.see(sighting.relative, sighting.stamp, now)
        self._bell.ring()

    async def run(self) -> None:
        """Takes files in until cancelled or the daemon stops."""
        while not self._context.stopping:
            if await self.step():
                continue
            self._context.inspector.rest(_IDLE)
            due = self._settling.next_due()
            await self._bell.wait(_IDLE if due is None else min(_IDLE, due - self._context.clock.monotonic()))

    async def step(self) -> bool:
        """Judges the files that are due now, and writes some down while the next are judged; whether there were any."""
        rest, judged, some = list[Due](), list[tuple[Due, Judged]](), False
        while True:
            rest = rest or self._settling.due(self._context.clock.monotonic(), _AT_ONCE)
            flood = len(self._settling) >= _FLOOD
            ahead = None
            if rest and not self._context.stopping:
                home = self._context.journal.folder_mount(self._rule.inbox)
                ahead = self._context.lanes.begin(self._lane, self._judge, rest, home, flood)
            try:
                self._write_down_or_wait(judged)
            except BaseException:
                if ahead is not None:
                    ahead.cancel()
                raise
            if ahead is None:
                return some
            judged, some = await ahead, True
            rest = rest[len(judged) :]

    def _judge(self, due: list[Due], home: Mount | None, flood: bool) -> list[tuple[Due, Judged]]:
        """In the rule's thread: as many as fit into a slice of time."""
        if moved(self._rule.inbox, home) is not None:
            return [(one, Gone()) for one in due]  # what lies under a mount that is away is none of ours
        inspector, questions = self._context.inspector, [self._question(one) for one in due]
        if questions[0].final:
            answers = [inspector.decide(questions[0])]
        else:
            questions = list(takewhile(lambda question: not question.final, questions))
            answers = inspector.judge(questions) if flood else answers_to(questions)
        return [
            (one, new_job(self._rule, asked.path, one.stamp, found) if isinstance(found, _JOBS) else found)
            for one, asked, found in zip(due, questions, answers, strict=False)
        ]

    def _question(self, due: Due) -> Question:
        limits = limits_of(self._context.config.api, self._rule)
        return Question(
            self._rule.inbox / due.relative, due.stamp, limits, self._rule.follow_symlinks, final=due.decode
        )

    def _write_down_or_wait(self, judged: list[tuple[Due, Judged]]) -> None:
        try:
            self._write_down(judged)
        except JournalTemporaryError as error:
            self._context.waits.tell(error, rule=self._rule.name)
            for one, _ in judged:
                self._settling.see_again(one, self._context.clock.monotonic())

    def _write_down(self, judged: list[tuple[Due, Judged]]) -> None:
        new: list[NewJob] = []
        now = self._context.clock.monotonic()
        for due, verdict in judged:
            if not isinstance(verdict, Unreadable):
                self._unreadable.discard(due.relative)
            match verdict:
                case NewJob():
                    self._settling.forget(due.relative, due.stamp)
                    new.append(verdict)
                case Stamp():
                    self._settling.see(due.relative, verdict, now)
                case NotWhole() | Changed():
                    self._settling.not_yet(due.relative, now)
                case Unreadable(reason=reason):
                    self._settling.not_yet(due.relative, now)
                    self._warn_unreadable(due.relative, reason)
                case Gone():
                    self._told_gone(due.relative)
                    self._settling.forget(due.relative, due.stamp)
                case _:
                    assert_never(verdict)
        self._add(self._unknown(new))

    def _add(self, new: list[NewJob]) -> None:
        if not new:
            return
        new = self._braked(without_own(new, self._context.journal))
        log = _log.bind()  # once for all of them: a logger that is not bound binds itself for each line
        for job_id, job in zip(self._context.journal.add(new), new, strict=True):
            if job.result_of is not None:
                log.info("job.own_result", job=job_id, rule=job.rule, path=job.source, output=job.result_of)
            elif job.problem is None:
                log.info("job.queued", job=job_id, rule=job.rule, path=job.source)
            else:
                log.warning(
                    "job.rejected", job=job_id, rule=job.rule, path=job.source,
                    code=job.problem.code, reason=job.problem.message,
                )  # fmt: skip
        self._context.bells.submit.ring()
        self._context.bells.dispose.ring()

    def _braked(self, new: list[NewJob]) -> list[NewJob]:
        """The surge brake: more images than `budget.burst` allows wait for a person, and copies of what waits so."""
        journal, burst = self._context.journal, self._context.config.budget.burst
        arrived, most = 0, math.inf
        if burst is not None:
            most = burst.images
            arrived = journal.arrived_since(self._rule.name, self._context.clock.now() - burst.per, burst.images)
        waiting = journal.in_flood(self._rule.name, [job.sha256 for job in new if job.sha256 is not None])
        braked = []
        for job in new:
            counts = job.problem is None and job.result_of is None
            flood = counts and (arrived >= most or job.sha256 in waiting)
            arrived += counts and not flood
            braked.append(replace(job, flood=True) if flood else job)
        held = sum(job.flood for job in braked)
        if held:
            _log.warning(
                "flood.held", rule=self._rule.name, images=held, approve=f"picwish-watchd approve {self._rule.name}"
            )
        return braked

    def _unknown(self, new: Sequence[NewJob]) -> list[NewJob]:
        """Those that are no news of a file whose job there is already."""
        last = self._context.journal.last_of_each([job.source for job in new])
        return [job for job in new if job.source not in last or not self._known(last[job.source], job)]

    def _known(self, last: Job, new: NewJob) -> bool:
        if not is_known(last, new, self._context.config.rules):
            return False
        self._context.journal.restamp(last, new.stamp)
        if last.original is Original.GONE:  # its folder was away for a while
            self._context.journal.update(last, "the original is back", original=Original.WAITING)
        return True

    def _warn_unreadable(self, relative: str, reason: str) -> None:
        if relative not in self._unreadable:
            self._unreadable.add(relative)
            _log.warning("file.unreadable", rule=self._rule.name, path=self._rule.inbox / relative, reason=reason)
