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
from picwish_watchd.outbox.availability import describe_hang
from picwish_watchd.outbox.spool import spool_folder
from picwish_watchd.pipeline.duplicates import is_result_intact
from picwish_watchd.reporting.explain_file import Ignored, explain_file
from picwish_watchd.reporting.explain_job import explain_job
from picwish_watchd.reporting.snapshot import Snapshot
from picwish_watchd.wording import printable_path

_SPOOL_NAME = re.compile(r"([0-9]{1,18})\.(result|[A-Za-z0-9_-]+\.part)")
_SPELLING_ADVICE = "look at its spelling; what was taken away before it could be taken in leaves no trace"
_SIDECAR_SUFFIXES = (".error.json", ".json")


@dataclass(frozen=True, slots=True)
class PathExplanation:
    """The answer. ``known``: the path lies under an inbox and exists, or a job knows it."""

    path: Path
    rule: str | None
    job: Job | None
    reason: str
    advice: str | None = None
    is_known: bool = True
    #: ids of older jobs of the same path, newest first
    earlier_job_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _LocatedPath:
    """A path below a folder of the configuration."""

    #: "inbox", "outbox", "archive" or "failed folder"
    folder_kind: str
    rule: Rule
    #: as the configuration spells it
    root: Path
    relative: Path

    @property
    def path(self) -> Path:
        """The path as the journal spells it."""
        return self.root / self.relative


def explain_path(config: Config, journal: JournalReader, path: Path, now: float) -> PathExplanation:
    """What became of ``path`` (absolute, without ".."), as of ``now`` (Unix seconds). Submits nothing.

    The path may lead through links: an inbox that is one is known by both of its names.
    """
    scene = Snapshot.capture(config, journal, now, path)
    if not scene.is_responsive(path):
        return _explain_unresponsive(scene, path)
    place = _locate_path(config, path)
    names = tuple(dict.fromkeys([path, *([place.path] if place else []), _resolve_parent(path)]))
    jobs = next((jobs for each in names if (jobs := journal.jobs_of_source(each))), [])
    if place is not None and place.folder_kind == "inbox":
        return _explain_inbox_path(scene, place, path, jobs)
    if jobs:
        return _explain_jobs(scene, path, jobs)
    for each in names:
        if (found := _explain_output(journal, path, each) or _explain_moved_original(journal, path, each)) is not None:
            return found
    return _explain_own_file(config, journal, path) or _explain_foreign_path(config, path, place)


def _explain_unresponsive(scene: Snapshot, path: Path) -> PathExplanation:
    """Nothing can be looked at: what the journal knows, and by what letters the path begins."""
    place = _find_deepest_folder(scene.config, path, {})
    jobs = scene.journal.jobs_of_source(path)
    reason = (
        f"{describe_hang()}; the other rules go on"
        if place is None
        else f"the {place.folder_kind} {printable_path(place.root)}: {describe_hang()}"
    )
    advice = "it goes on by itself once it answers"
    if not jobs:
        return PathExplanation(path, place.rule.name if place else None, None, reason, advice, is_known=False)
    told = _explain_jobs(scene, path, jobs)
    return replace(told, reason=f"{told.reason}; {reason}", advice=told.advice or advice)


def _locate_path(config: Config, path: Path) -> _LocatedPath | None:
    """The deepest folder of ours that the path lies in: by its letters, and else with links followed."""
    real = resolve_paths(folder for rule in config.rules for folder in rule.folders().values())
    ways: tuple[tuple[Path, Mapping[Path, str]], ...] = ((path, {}), (path, real), (_resolve_parent(path), real))
    return next(
        (place for here, roots in ways if (place := _find_deepest_folder(config, here, roots)) is not None), None
    )


def _find_deepest_folder(config: Config, path: Path, real: Mapping[Path, str]) -> _LocatedPath | None:
    found: list[tuple[int, _LocatedPath]] = []
    for rule in config.rules:
        for key, folder in rule.folders().items():
            root = Path(real.get(folder, folder))
            if path.is_relative_to(root):
                what = "failed folder" if key == "failed" else key
                found.append((len(root.parts), _LocatedPath(what, rule, folder, path.relative_to(root))))
    return max(found, key=lambda each: each[0])[1] if found else None


def _resolve_parent(path: Path) -> Path:
    """The path with all links above it followed; it may be a link itself."""
    return Path(os.path.realpath(path.parent), path.name)


def _explain_inbox_path(scene: Snapshot, place: _LocatedPath, path: Path, jobs: list[Job]) -> PathExplanation:
    rule = place.rule
    away = scene.why_unavailable(rule, rule.inbox)
    if away is None and jobs:
        return _explain_jobs(scene, path, jobs, place)
    if away is not None:
        reason = f"the inbox {printable_path(rule.inbox)} is away: {away}"
        advice = "mount it, or make the folder; it is taken up by itself once it is there"
        if not jobs:
            return PathExplanation(path, rule.name, None, reason, advice, is_known=os.path.lexists(path))
        told = _explain_jobs(scene, path, jobs)
        return replace(told, reason=f"{told.reason}; {reason}", advice=told.advice or advice)
    seen = explain_file(scene, rule, place.relative)
    if seen is None:
        return PathExplanation(
            path, rule.name, None, "it does not exist, and no job knows it", _SPELLING_ADVICE, is_known=False
        )
    if isinstance(seen, Ignored):
        return PathExplanation(path, None, None, f"rule {rule.name} ignores it: {seen.reason}", seen.advice)
    return PathExplanation(path, rule.name, None, seen.reason, seen.advice)


def _explain_jobs(scene: Snapshot, path: Path, jobs: list[Job], place: _LocatedPath | None = None) -> PathExplanation:
    """The newest job of a path, and what lies there by now; ``place`` where that can be looked at."""
    job, earlier = jobs[0], tuple(job.id for job in jobs[1:])
    reason, advice = explain_job(scene, job)
    fate = _describe_original(scene, job)
    told = PathExplanation(path, job.rule, job, reason + fate, advice, earlier_job_ids=earlier)
    if place is None:
        return told
    found = stat_file(place.path, follow_symlinks=place.rule.follow_symlinks)
    if not isinstance(found, os.stat_result):
        gone = "; the file itself is not there any more" if isinstance(found, Missing) and not fate else ""
        return PathExplanation(path, job.rule, job, told.reason + gone, advice, earlier_job_ids=earlier)
    ours = job.original not in (OriginalStatus.MOVED, OriginalStatus.DELETED, OriginalStatus.REPLACED)
    if ours and stamp_of(found) == job.stamp:
        return told
    seen = explain_file(scene, place.rule, place.relative, job)
    # only touched: its content is that of the job
    if seen is None:
        return told
    news = "another file lies there now" if fate else "it has changed since"
    if isinstance(seen, Ignored):
        reason = f"{told.reason}; {news}, which is not taken: {seen.reason}"
    else:
        reason = f"{told.reason}; {news}, and becomes a job of its own: {seen.reason}"
    return PathExplanation(path, job.rule, job, reason, seen.advice or advice, earlier_job_ids=earlier)


def _describe_original(scene: Snapshot, job: Job) -> str:
    """What became of the original, in the words of its history."""
    if job.original in (OriginalStatus.PRESENT, OriginalStatus.WAITING):
        return ""
    told = [event.message for event in scene.journal.history(job.id) if event.message.startswith("the original ")]
    return f"; {told[-1]}" if told else ""


def _explain_output(journal: JournalReader, path: Path, name: Path) -> PathExplanation | None:
    """A result of ours, or its sidecar."""
    job = journal.find_output_owner(name)
    if job is None:
        stem = name.with_name(name.name.removesuffix(".json")) if name.name.endswith(".json") else None
        job = journal.find_output_owner(stem) if stem is not None and stem.name else None
        if job is None:
            return None
        return PathExplanation(
            path, job.rule, job, f"it tells, for scripts, of job {job.id} and its result {printable_path(stem or '')}"
        )
    made = f"the result of job {job.id}, made of {printable_path(job.source)}"
    if job.state is not State.DONE:
        return PathExplanation(path, job.rule, job, f"it is the name for {made}; that job is {job.state}")
    if not os.path.lexists(path):
        advice = "look where it was moved to; `picwish-watchd show` tells the whole history of a job"
        return PathExplanation(path, job.rule, job, f"it was {made}; it does not stand here any more", advice)
    if job.result is not None and not is_result_intact(job):
        return PathExplanation(
            path, job.rule, job, f"it was {made}; somebody has changed it since, or it cannot be read"
        )
    return PathExplanation(path, job.rule, job, f"it is {made}")


def _explain_moved_original(journal: JournalReader, path: Path, name: Path) -> PathExplanation | None:
    """An original that was moved here, or the sidecar beside it."""
    for ending in ("", *_SIDECAR_SUFFIXES):
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
        return PathExplanation(path, job.rule, job, reason + gone, advice)
    return None


def _explain_own_file(config: Config, journal: JournalReader, path: Path) -> PathExplanation | None:
    """A file of the daemon's own: in the spool, or the journal."""
    own = "; it is the daemon's own: leave it where it is"
    for here in (path, _resolve_parent(path)):
        for base in (config.journal, _resolve_parent(config.journal)):
            if here == base or (
                here.parent == base.parent and here.name.startswith((f"{base.name}-", f"{base.name}."))
            ):
                if here == spool_folder(base):
                    return PathExplanation(
                        path, None, None, f"it is the spool, where paid results wait{own}", is_known=False
                    )
                return PathExplanation(path, None, None, f"it is the journal, or belongs to it{own}", is_known=False)
            if here.parent == spool_folder(base):
                named = _SPOOL_NAME.fullmatch(here.name)
                job = journal.get(int(named[1])) if named else None
                if job is None or not os.path.lexists(path):
                    return PathExplanation(
                        path, None, None, f"it lies in the spool, and no job knows it{own}", is_known=False
                    )
                what = "the paid result" if named and named[2] == "result" else "a working file"
                way = " on its way to the outbox" if job.state is State.DELIVERING else f", which is {job.state}"
                return PathExplanation(path, job.rule, job, f"it is {what} of job {job.id}{way}{own}")
    return None


def _explain_foreign_path(config: Config, path: Path, place: _LocatedPath | None) -> PathExplanation:
    """Nothing of ours, as far as anybody can know."""
    there = os.path.lexists(path)
    exists = "" if there else "it does not exist, and "
    if place is None:
        inboxes = ", ".join(printable_path(rule.inbox) for rule in config.rules)
        reason = f"{exists}it lies under no inbox, and no job knows it"
        advice = f"a picture that is to be enhanced belongs into an inbox: {inboxes}" if there else _SPELLING_ADVICE
        return PathExplanation(path, None, None, reason, advice, is_known=False)
    where = f"it lies in the {place.folder_kind} of rule {place.rule.name}"
    if place.path == place.root:
        where = f"it is the {place.folder_kind} of rule {place.rule.name}"
        return PathExplanation(path, place.rule.name, None, exists + where, is_known=there)
    if path.name.startswith(".picwish-") and path.name.endswith(".part"):
        return PathExplanation(
            path, place.rule.name, None, f"{where}: a copy of ours that is just being made", is_known=there
        )
    if there and stat.S_ISDIR(os.lstat(path).st_mode):
        return PathExplanation(
            path, place.rule.name, None, f"{where}, and is a folder; ask for a file in it", is_known=False
        )
    return PathExplanation(path, place.rule.name, None, f"{exists}{where}; no job of ours put it there", is_known=False)
