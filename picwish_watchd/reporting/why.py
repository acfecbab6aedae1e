"""Why a file is where it is: the rule that takes it or what ignores it, its job, what that waits for, what to do.

Nothing is changed by asking: folders are looked at, the file itself is read at most.
"""

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from picwish_watchd.config.model import Config
from picwish_watchd.config.schema import Rule
from picwish_watchd.fs.hang_guard import resolve_paths
from picwish_watchd.fs.safe_open import stamp_of, stat_file
from picwish_watchd.fs.verdicts import Missing
from picwish_watchd.job import Job, OriginalStatus, State
from picwish_watchd.journal.reader import JournalReader
from picwish_watchd.outbox.availability import NOT_RESPONDING
from picwish_watchd.outbox.spool import spool_folder
from picwish_watchd.pipeline.duplicates import is_result_intact
from picwish_watchd.reporting.explain_file import NotTaken, sight
from picwish_watchd.reporting.explain_job import standing
from picwish_watchd.reporting.snapshot import Scene
from picwish_watchd.wording import printable_path

_SPOOLED = re.compile(r"([0-9]{1,18})\.(result|[A-Za-z0-9_-]+\.part)")
_SPELLING = "look at its spelling; what was taken away before it could be taken in leaves no trace"
_SIDECARS = (".error.json", ".json")


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. ``known``: the path lies under an inbox and exists, or a job knows it."""

    path: Path
    rule: str | None
    job: Job | None
    reason: str
    advice: str | None = None
    known: bool = True
    #: ids of older jobs of the same path, newest first
    earlier: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """A path below a folder of the configuration."""

    #: "inbox", "outbox", "archive" or "failed folder"
    what: str
    rule: Rule
    #: as the configuration spells it
    root: Path
    relative: Path

    @property
    def path(self) -> Path:
        """The path as the journal spells it."""
        return self.root / self.relative


def why(config: Config, journal: JournalReader, path: Path, now: float) -> Why:
    """What became of ``path`` (absolute, without ".."), as of ``now`` (Unix seconds). Submits nothing.

    The path may lead through links: an inbox that is one is known by both of its names.
    """
    scene = Scene.of(config, journal, now, path)
    if not scene.answers(path):
        return _unanswered(scene, path)
    place = _place_of(config, path)
    names = tuple(dict.fromkeys([path, *([place.path] if place else []), _real(path)]))
    jobs = next((jobs for each in names if (jobs := journal.jobs_of_source(each))), [])
    if place is not None and place.what == "inbox":
        return _in_inbox(scene, place, path, jobs)
    if jobs:
        return _of_jobs(scene, path, jobs)
    for each in names:
        if (found := _of_output(journal, path, each) or _of_moved(journal, path, each)) is not None:
            return found
    return _in_our_own(config, journal, path) or _elsewhere(config, path, place)


def _unanswered(scene: Scene, path: Path) -> Why:
    """Nothing can be looked at: what the journal knows, and by what letters the path begins."""
    place = _below(scene.config, path, {})
    jobs = scene.journal.jobs_of_source(path)
    reason = (
        f"{NOT_RESPONDING}; the other rules go on"
        if place is None
        else f"the {place.what} {printable_path(place.root)}: {NOT_RESPONDING}"
    )
    advice = "it goes on by itself once it answers"
    if not jobs:
        return Why(path, place.rule.name if place else None, None, reason, advice, known=False)
    told = _of_jobs(scene, path, jobs)
    return replace(told, reason=f"{told.reason}; {reason}", advice=told.advice or advice)


def _place_of(config: Config, path: Path) -> _Place | None:
    """The deepest folder of ours that the path lies in: by its letters, and else with links followed."""
    real = resolve_paths(folder for rule in config.rules for folder in rule.folders().values())
    ways: tuple[tuple[Path, Mapping[Path, str]], ...] = ((path, {}), (path, real), (_real(path), real))
    return next((place for here, roots in ways if (place := _below(config, here, roots)) is not None), None)


def _below(config: Config, path: Path, real: Mapping[Path, str]) -> _Place | None:
    found: list[tuple[int, _Place]] = []
    for rule in config.rules:
        for key, folder in rule.folders().items():
            root = Path(real.get(folder, folder))
            if path.is_relative_to(root):
                what = "failed folder" if key == "failed" else key
                found.append((len(root.parts), _Place(what, rule, folder, path.relative_to(root))))
    return max(found, key=lambda each: each[0])[1] if found else None


def _real(path: Path) -> Path:
    """The path with all links above it followed; it may be a link itself."""
    return Path(os.path.realpath(path.parent), path.name)


def _in_inbox(scene: Scene, place: _Place, path: Path, jobs: list[Job]) -> Why:
    rule = place.rule
    away = scene.absence(rule.inbox)
    if away is None and jobs:
        return _of_jobs(scene, path, jobs, place)
    if away is not None:
        reason = f"the inbox {printable_path(rule.inbox)} is away: {away}".replace(
            "approve RULE", f"approve {rule.name}"
        )
        advice = "mount it, or make the folder; it is taken up by itself once it is there"
        if not jobs:
            return Why(path, rule.name, None, reason, advice, known=os.path.lexists(path))
        told = _of_jobs(scene, path, jobs)
        return replace(told, reason=f"{told.reason}; {reason}", advice=told.advice or advice)
    seen = sight(scene, rule, place.relative)
    if seen is None:
        return Why(path, rule.name, None, "it does not exist, and no job knows it", _SPELLING, known=False)
    if isinstance(seen, NotTaken):
        return Why(path, None, None, f"rule {rule.name} ignores it: {seen.reason}", seen.advice)
    return Why(path, rule.name, None, seen.reason, seen.advice)


def _of_jobs(scene: Scene, path: Path, jobs: list[Job], place: _Place | None = None) -> Why:
    """The newest job of a path, and what lies there by now; ``place`` where that can be looked at."""
    job, earlier = jobs[0], tuple(job.id for job in jobs[1:])
    reason, advice = standing(scene, job)
    fate = _fate(scene, job)
    told = Why(path, job.rule, job, reason + fate, advice, earlier=earlier)
    if place is None:
        return told
    found = stat_file(place.path, follow_symlinks=place.rule.follow_symlinks)
    if not isinstance(found, os.stat_result):
        gone = "; the file itself is not there any more" if isinstance(found, Missing) and not fate else ""
        return Why(path, job.rule, job, told.reason + gone, advice, earlier=earlier)
    ours = job.original not in (OriginalStatus.MOVED, OriginalStatus.DELETED, OriginalStatus.REPLACED)
    if ours and stamp_of(found) == job.stamp:
        return told
    seen = sight(scene, place.rule, place.relative, job)
    # only touched: its content is that of the job
    if seen is None:
        return told
    news = "another file lies there now" if fate else "it has changed since"
    if isinstance(seen, NotTaken):
        reason = f"{told.reason}; {news}, which is not taken: {seen.reason}"
    else:
        reason = f"{told.reason}; {news}, and becomes a job of its own: {seen.reason}"
    return Why(path, job.rule, job, reason, seen.advice or advice, earlier=earlier)


def _fate(scene: Scene, job: Job) -> str:
    """What became of the original, in the words of its history."""
    if job.original in (OriginalStatus.PRESENT, OriginalStatus.WAITING):
        return ""
    told = [event.message for event in scene.journal.history(job.id) if event.message.startswith("the original ")]
    return f"; {told[-1]}" if told else ""


def _of_output(journal: JournalReader, path: Path, name: Path) -> Why | None:
    """A result of ours, or its sidecar."""
    job = journal.find_output_owner(name)
    if job is None:
        stem = name.with_name(name.name.removesuffix(".json")) if name.name.endswith(".json") else None
        job = journal.find_output_owner(stem) if stem is not None and stem.name else None
        if job is None:
            return None
        return Why(
            path, job.rule, job, f"it tells, for scripts, of job {job.id} and its result {printable_path(stem or '')}"
        )
    made = f"the result of job {job.id}, made of {printable_path(job.source)}"
    if job.state is not State.DONE:
        return Why(path, job.rule, job, f"it is the name for {made}; that job is {job.state}")
    if not os.path.lexists(path):
        advice = "look where it was moved to; `picwish-watchd show` tells the whole history of a job"
        return Why(path, job.rule, job, f"it was {made}; it does not stand here any more", advice)
    if job.result is not None and not is_result_intact(job):
        return Why(path, job.rule, job, f"it was {made}; somebody has changed it since, or it cannot be read")
    return Why(path, job.rule, job, f"it is {made}")


def _of_moved(journal: JournalReader, path: Path, name: Path) -> Why | None:
    """An original that was moved here, or the sidecar beside it."""
    for ending in ("", *_SIDECARS):
        if not name.name.endswith(ending) or name.name == ending:
            continue
        moved = name.with_name(name.name.removesuffix(ending)) if ending else name
        job = journal.find_job_by_message(f"the original was moved to {moved}")
        if job is None:
            continue
        what = "it tells, for scripts, why that job ended so: " if ending else ""
        gone = "" if os.path.lexists(path) else "; it is not there any more"
        source = printable_path(job.source)
        reason = f"{what}the original of job {job.id}, which is {job.state}, was moved here from {source}"
        advice = None
        if job.state is not State.DONE:
            advice = f"mend it and put it back into the inbox; `picwish-watchd show {job.id}` tells what was wrong"
        return Why(path, job.rule, job, reason + gone, advice)
    return None


def _in_our_own(config: Config, journal: JournalReader, path: Path) -> Why | None:
    """A file of the daemon's own: in the spool, or the journal."""
    own = "; it is the daemon's own: leave it where it is"
    for here in (path, _real(path)):
        for base in (config.journal, _real(config.journal)):
            if here == base or (
                here.parent == base.parent and here.name.startswith((f"{base.name}-", f"{base.name}."))
            ):
                if here == spool_folder(base):
                    return Why(path, None, None, f"it is the spool, where paid results wait{own}", known=False)
                return Why(path, None, None, f"it is the journal, or belongs to it{own}", known=False)
            if here.parent == spool_folder(base):
                named = _SPOOLED.fullmatch(here.name)
                job = journal.get(int(named[1])) if named else None
                if job is None or not os.path.lexists(path):
                    return Why(path, None, None, f"it lies in the spool, and no job knows it{own}", known=False)
                what = "the paid result" if named and named[2] == "result" else "a working file"
                way = " on its way to the outbox" if job.state is State.DELIVERING else f", which is {job.state}"
                return Why(path, job.rule, job, f"it is {what} of job {job.id}{way}{own}")
    return None


def _elsewhere(config: Config, path: Path, place: _Place | None) -> Why:
    """Nothing of ours, as far as anybody can know."""
    there = os.path.lexists(path)
    exists = "" if there else "it does not exist, and "
    if place is None:
        inboxes = ", ".join(printable_path(rule.inbox) for rule in config.rules)
        reason = f"{exists}it lies under no inbox, and no job knows it"
        advice = f"a picture that is to be enhanced belongs into an inbox: {inboxes}" if there else _SPELLING
        return Why(path, None, None, reason, advice, known=False)
    where = f"it lies in the {place.what} of rule {place.rule.name}"
    if place.path == place.root:
        where = f"it is the {place.what} of rule {place.rule.name}"
        return Why(path, place.rule.name, None, exists + where, known=there)
    if path.name.startswith(".picwish-") and path.name.endswith(".part"):
        return Why(path, place.rule.name, None, f"{where}: a copy of ours that is just being made", known=there)
    if there and stat.S_ISDIR(os.lstat(path).st_mode):
        return Why(path, place.rule.name, None, f"{where}, and is a folder; ask for a file in it", known=False)
    return Why(path, place.rule.name, None, f"{exists}{where}; no job of ours put it there", known=False)
