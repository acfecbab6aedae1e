"""After the end: moves or deletes the originals whose rules ask for it, again and again until it is done."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import structlog

from picwish_watchd.config.schema import OnSuccess, Rule
from picwish_watchd.fs.mounts import Mount
from picwish_watchd.fs.verdicts import Gone
from picwish_watchd.job import Job, Kind, Original, State
from picwish_watchd.job_json import sidecar_text
from picwish_watchd.outbox.availability import absence, reach
from picwish_watchd.outbox.originals import Deleted, Moved, Replaced, Stuck, delete, move, moved_before
from picwish_watchd.outbox.publish import Published, Taken, write_sidecar
from picwish_watchd.pipeline.context import Context
from picwish_watchd.pipeline.error_boundary import guarded
from picwish_watchd.pipeline.target_folders import Sweeper, remember

_log = structlog.get_logger()

_IDLE = 5.0
_PAUSE = 60.0  # seconds until an original that could not be moved is tried again


@dataclass(frozen=True, slots=True)
class Untold:
    """It was moved, and what was wrong with it does not stand beside it yet; to be tried again."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Away:
    """A folder is away that all such originals of the rule need."""

    reason: str


Outcome = Moved | Untold | Deleted | Replaced | Gone | Stuck | Away


class Dispose:
    """Works on the jobs whose original is `waiting`, rule by rule."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._busy: set[str] = set()
        self._sweeper = Sweeper(context)

    async def run(self) -> None:
        """Disposes until the daemon stops."""
        async with asyncio.TaskGroup() as group:
            while not self._context.stopping:
                self._context.pulse.beat("dispose")
                for rule in self._context.journal.rules_with_originals(self._context.clock.now()):
                    if rule not in self._busy:
                        self._busy.add(rule)
                        group.create_task(self._serve(rule))
                await self._context.bells.dispose.wait(_IDLE)

    async def _serve(self, rule: str) -> None:
        context = self._context
        try:
            while not context.stopping:
                job = context.journal.next_original(rule, context.clock.now())
                if job is None:
                    return
                await guarded(context, job.id, self.dispose(job))
        finally:
            self._busy.discard(rule)

    async def dispose(self, job: Job) -> None:
        """One original, and what came of it."""
        context = self._context
        rule = context.rule_of(job)
        # An inbox and its outbox, archive and failed folders may hang together: all of it is one lane's work.
        root = rule.archive if job.state is State.DONE else rule.failed
        if job.state is State.DONE and rule.on_success is OnSuccess.KEEP:
            self._done(job, Original.PRESENT, "the original stays where it is, as the rule says by now")
            return
        seen = root is not None and context.journal.folder_seen(root)
        homes = (context.journal.folder_mount(rule.inbox), context.journal.folder_mount(root) if root else None)
        if root is not None:
            await self._sweeper.sweep(rule, root)
        newest = context.journal.last_of(job.source)
        outcome = await context.lanes.run(
            f"out:{job.rule}", _dispose, job, rule, root, homes, seen=seen, last=newest is None or newest.id == job.id
        )
        await self._note(job, rule, root, outcome)

    async def _note(self, job: Job, rule: Rule, root: Path | None, outcome: Outcome) -> None:
        if root is not None and isinstance(outcome, Moved | Untold):
            await remember(self._context, rule, root)
        match outcome:
            case Moved(path=path):
                self._done(job, Original.MOVED, f"the original was moved to {path}")
            case Deleted():
                self._done(job, Original.DELETED, "the original was deleted, as on_success: delete asks")
            case Gone():
                self._done(job, Original.GONE, "the original was gone already")
            case Replaced():
                text = "something else bears the original's name by now; it was not touched"
                self._done(job, Original.REPLACED, text)
            case Stuck(reason=reason):
                self._later(job, _stuck(job, rule, root, reason), "original.stuck", reason)
            case Away(reason=reason):
                # thousands may wait for it: to try each of them every minute leaves time for nothing else
                self._context.journal.put_off_originals(job, self._context.clock.now() + _PAUSE)
                self._later(job, _stuck(job, rule, root, reason), "original.stuck", reason)
            case Untold(path=path, reason=reason):
                note = (
                    f"the original was moved to {path}, and what was wrong with it could not be written beside it "
                    f"yet: {reason}; tried again every minute"
                )
                self._later(job, note, "original.untold", reason)
            case _:
                assert_never(outcome)

    def _later(self, job: Job, note: str, event: str, reason: str) -> None:
        is_news = job.note != note
        if is_news:
            _log.warning(event, job=job.id, rule=job.rule, path=job.source, reason=reason)
        later = self._context.clock.now() + _PAUSE
        self._context.journal.update(job, note if is_news else None, note=note, not_before=later)

    def _done(self, job: Job, original: Original, message: str) -> None:
        _log.info(f"original.{original}", job=job.id, rule=job.rule, path=job.source, reason=message)
        self._context.journal.update(job, message, original=original, note=None, not_before=None)
        self._context.look_again(job)


def _stuck(job: Job, rule: Rule, root: Path | None, reason: str) -> str:
    deleting = job.state is State.DONE and rule.on_success is OnSuccess.DELETE
    what = "deleted" if deleting else f"moved to {root}" if root is not None else "moved"
    return f"the original could not be {what} yet: {reason}; it is where it was, and is tried again every minute"


def _dispose(
    job: Job, rule: Rule, root: Path | None, homes: tuple[Mount | None, Mount | None], *, seen: bool, last: bool
) -> Outcome:
    """In a thread. Unless it is the ``last`` job of its source, what lies there is a later one's."""
    if (missing := absence(rule.inbox, homes[0])) is not None:
        return Away(f"the inbox {rule.inbox} is away: {missing}")
    sha256 = None if job.kind is Kind.LINK else job.sha256  # a link's is that of its address
    if job.state is State.DONE and rule.on_success is OnSuccess.DELETE:
        return _unless_away(delete(job.source, job.stamp, sha256) if last else Replaced(), rule, homes[0])
    if root is None:  # the rule was changed meanwhile
        return Stuck("the rule names no folder to move it to")
    away = reach(root, rule.file_mode, seen=seen, mount=homes[1])
    if away is not None:
        return Away(f"{root}: {away.reason}")
    done: Outcome = Replaced()
    if last:
        done = move(
            job.source, job.stamp, sha256, root, job.relative, mode=rule.file_mode, tag=str(job.id), home=homes[1]
        )
    if isinstance(done, Gone | Replaced) and (path := moved_before(job.stamp, sha256, root, job.relative)) is not None:
        done = Moved(path)
    if isinstance(done, Moved) and job.state is not State.DONE:
        return _told(job, rule, root, done, homes[1])
    return _unless_away(done, rule, homes[0])


def _told(job: Job, rule: Rule, root: Path, moved: Moved, home: Mount | None) -> Moved | Untold:
    """Writes beside the original what was wrong with it."""
    written = write_sidecar(
        root, moved.path.relative_to(root), ".error.json", sidecar_text(job),
        mode=rule.file_mode, tag=str(job.id), home=home,
    )  # fmt: skip
    if isinstance(written, Published):
        return moved
    reason = "something else bears its name" if isinstance(written, Taken) else written.reason
    return Untold(moved.path, reason)


def _unless_away(outcome: Outcome, rule: Rule, home: Mount | None) -> Outcome:
    """The mount may have gone after it was looked at: then nobody knows yet what became of an original."""
    if not isinstance(outcome, Gone | Replaced) or (missing := absence(rule.inbox, home)) is None:
        return outcome
    return Away(f"the inbox {rule.inbox} is away: {missing}")
