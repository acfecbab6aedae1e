"""Explain a file: the rule that takes it or ignores it, its job, what that waits for, and what to do.

Nothing is changed: folders are listed, and at most the file itself is read.
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
_SPELLING_ADVICE = "check its spelling; a file that was removed before it was taken in leaves no trace"
_SIDECAR_SUFFIXES = (".error.json", ".json")


@dataclass(frozen=True, slots=True)
class PathExplanation:
    """The answer of ``why``."""

    path: Path
    rule: str | None
    job: Job | None
    reason: str
    #: None where there is nothing to do.
    advice: str | None = None
    #: The path is under an inbox and exists, or a job knows it.
    is_known: bool = True
    #: Ids of older jobs of the same path, newest first.
    earlier_job_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _LocatedPath:
    """A path below a folder of the configuration."""

    #: "inbox", "outbox", "archive" or "failed folder".
    folder_kind: str
    rule: Rule
    #: As the configuration spells it.
    root: Path
    relative: Path

    @property
    def path(self) -> Path:
        """Return the path as the journal spells it."""
        return self.root / self.relative


def explain_path(config: Config, journal: JournalReader, path: Path, now: float) -> PathExplanation:
    """Return what became of ``path`` (absolute, without "..") as of ``now`` (Unix seconds). Submit nothing.

    The path may lead through links: an inbox that is a link is known by both of its names.
    """
    snapshot = Snapshot.capture(config, journal, now, path)
    if not snapshot.is_responsive(path):
        return _explain_unresponsive(snapshot, path)
    location = _locate_path(config, path)
    names = tuple(dict.fromkeys([path, *([location.path] if location else []), _resolve_parent(path)]))
    jobs = next((jobs for name in names if (jobs := journal.jobs_of_source(name))), [])
    if location is not None and location.folder_kind == "inbox":
        return _explain_inbox_path(snapshot, location, path, jobs)
    if jobs:
        return _explain_jobs(snapshot, path, jobs)
    for name in names:
        explanation = _explain_output(journal, path, name) or _explain_moved_original(journal, path, name)
        if explanation is not None:
            return explanation
    return _explain_own_file(config, journal, path) or _explain_foreign_path(config, path, location)


def _explain_unresponsive(snapshot: Snapshot, path: Path) -> PathExplanation:
    """Explain a path that does not respond, from the journal and the spelling of the path alone."""
    location = _find_deepest_folder(snapshot.config, path, {})
    jobs = snapshot.journal.jobs_of_source(path)
    reason = (
        f"{describe_hang()}; the other rules continue"
        if location is None
        else f"the {location.folder_kind} {printable_path(location.root)}: {describe_hang()}"
    )
    advice = "it continues automatically once it answers"
    if not jobs:
        return PathExplanation(path, location.rule.name if location else None, None, reason, advice, is_known=False)
    return _append_reason(_explain_jobs(snapshot, path, jobs), reason, advice)


def _append_reason(explanation: PathExplanation, reason: str, advice: str) -> PathExplanation:
    return replace(explanation, reason=f"{explanation.reason}; {reason}", advice=explanation.advice or advice)


def _locate_path(config: Config, path: Path) -> _LocatedPath | None:
    """Return the deepest configured folder that contains the path: by its spelling, or else with links followed."""
    real = resolve_paths(folder for rule in config.rules for folder in rule.folders().values())
    attempts: tuple[tuple[Path, Mapping[Path, str]], ...] = ((path, {}), (path, real), (_resolve_parent(path), real))
    locations = (_find_deepest_folder(config, spelling, roots) for spelling, roots in attempts)
    return next((location for location in locations if location is not None), None)


def _find_deepest_folder(config: Config, path: Path, real: Mapping[Path, str]) -> _LocatedPath | None:
    candidates: list[tuple[int, _LocatedPath]] = []
    for rule in config.rules:
        for key, folder in rule.folders().items():
            root = Path(real.get(folder, folder))
            if path.is_relative_to(root):
                kind = "failed folder" if key == "failed" else key
                candidates.append((len(root.parts), _LocatedPath(kind, rule, folder, path.relative_to(root))))
    return max(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def _resolve_parent(path: Path) -> Path:
    """Return the path with all links above it followed; the path itself may be a link."""
    return Path(os.path.realpath(path.parent), path.name)


def _explain_inbox_path(snapshot: Snapshot, location: _LocatedPath, path: Path, jobs: list[Job]) -> PathExplanation:
    rule = location.rule
    away = snapshot.why_unavailable(rule, rule.inbox)
    if away is None and jobs:
        return _explain_jobs(snapshot, path, jobs, location)
    if away is not None:
        reason = f"the inbox {printable_path(rule.inbox)} is away: {away}"
        advice = "mount it, or make the folder; it is scanned automatically once it is there"
        if not jobs:
            return PathExplanation(path, rule.name, None, reason, advice, is_known=os.path.lexists(path))
        return _append_reason(_explain_jobs(snapshot, path, jobs), reason, advice)
    explanation = explain_file(snapshot, rule, location.relative)
    if explanation is None:
        return PathExplanation(
            path, rule.name, None, "it does not exist, and no job knows it", _SPELLING_ADVICE, is_known=False
        )
    if isinstance(explanation, Ignored):
        reason = f"rule {rule.name} ignores it: {explanation.reason}"
        return PathExplanation(path, None, None, reason, explanation.advice)
    return PathExplanation(path, rule.name, None, explanation.reason, explanation.advice)


def _explain_jobs(
    snapshot: Snapshot, path: Path, jobs: list[Job], location: _LocatedPath | None = None
) -> PathExplanation:
    """Explain the newest job of a path, and the file that is there now if ``location`` can be looked at."""
    job, earlier = jobs[0], tuple(job.id for job in jobs[1:])
    reason, advice = explain_job(snapshot, job)
    fate = _describe_original(snapshot, job)
    explanation = PathExplanation(path, job.rule, job, reason + fate, advice, earlier_job_ids=earlier)
    if location is None:
        return explanation
    status = stat_file(location.path, follow_symlinks=location.rule.follow_symlinks)
    if not isinstance(status, os.stat_result):
        is_gone = isinstance(status, Missing) and not fate
        return replace(explanation, reason=f"{reason}; the file itself is gone") if is_gone else explanation
    is_original = job.original not in (OriginalStatus.MOVED, OriginalStatus.DELETED, OriginalStatus.REPLACED)
    if is_original and stamp_of(status) == job.stamp:
        return explanation
    new_file = explain_file(snapshot, location.rule, location.relative, job)
    # None: the file was only touched, and its content is that of the job.
    if new_file is None:
        return explanation
    change = "another file is there now" if fate else "it has changed since"
    if isinstance(new_file, Ignored):
        reason = f"{explanation.reason}; {change}, which is not taken: {new_file.reason}"
    else:
        reason = f"{explanation.reason}; {change}, and becomes a job of its own: {new_file.reason}"
    return replace(explanation, reason=reason, advice=new_file.advice or advice)


def _describe_original(snapshot: Snapshot, job: Job) -> str:
    """Return what became of the original, in the words of the job's history; empty while it is where it was."""
    if job.original in (OriginalStatus.PRESENT, OriginalStatus.WAITING):
        return ""
    messages = [event.message for event in snapshot.journal.history(job.id)]
    messages = [message for message in messages if message.startswith("the original ")]
    return f"; {messages[-1]}" if messages else ""


def _explain_output(journal: JournalReader, path: Path, name: Path) -> PathExplanation | None:
    """Explain a path that is one of our results, or the sidecar of one."""
    job = journal.find_output_owner(name)
    if job is None:
        stem = name.with_name(name.name.removesuffix(".json")) if name.name.endswith(".json") else None
        job = journal.find_output_owner(stem) if stem is not None and stem.name else None
        if job is None:
            return None
        reason = f"it is the sidecar, for scripts, of job {job.id} and its result {printable_path(stem or '')}"
        return PathExplanation(path, job.rule, job, reason)
    result = f"the result of job {job.id}, made from {printable_path(job.source)}"
    if job.state is not State.DONE:
        return PathExplanation(path, job.rule, job, f"it is the name for {result}; that job is {job.state}")
    if not os.path.lexists(path):
        advice = "look where it was moved to; `picwish-watchd show` shows the whole history of a job"
        return PathExplanation(path, job.rule, job, f"it was {result}; it is not here any more", advice)
    if job.result is not None and not is_result_intact(job):
        return PathExplanation(path, job.rule, job, f"it was {result}; it was changed since, or cannot be read")
    return PathExplanation(path, job.rule, job, f"it is {result}")


def _explain_moved_original(journal: JournalReader, path: Path, name: Path) -> PathExplanation | None:
    """Explain a path that an original was moved to, or the sidecar beside one."""
    for ending in ("", *_SIDECAR_SUFFIXES):
        if not name.name.endswith(ending) or name.name == ending:
            continue
        moved = name.with_name(name.name.removesuffix(ending)) if ending else name
        job = journal.find_job_by_message(f"the original was moved to {moved}")
        if job is None:
            continue
        gone = "" if os.path.lexists(path) else "; it is not there any more"
        source = printable_path(job.source)
        reason = f"the original of job {job.id}, which is {job.state}, was moved here from {source}"
        if ending:
            reason = f"it is a sidecar, for scripts: {reason}"
        advice = None
        if job.state is not State.DONE:
            advice = f"repair it and put it back into the inbox; `picwish-watchd show {job.id}` shows what was wrong"
        return PathExplanation(path, job.rule, job, reason + gone, advice)
    return None


def _explain_own_file(config: Config, journal: JournalReader, path: Path) -> PathExplanation | None:
    """Explain a path that is the daemon's own: the journal, the spool, or a file in it."""
    own = "; it is the daemon's own: leave it where it is"
    for spelling in (path, _resolve_parent(path)):
        for base in (config.journal, _resolve_parent(config.journal)):
            if spelling == base or (
                spelling.parent == base.parent and spelling.name.startswith((f"{base.name}-", f"{base.name}."))
            ):
                if spelling == spool_folder(base):
                    return PathExplanation(
                        path, None, None, f"it is the spool, where paid results wait{own}", is_known=False
                    )
                return PathExplanation(path, None, None, f"it is the journal, or belongs to it{own}", is_known=False)
            if spelling.parent == spool_folder(base):
                named = _SPOOL_NAME.fullmatch(spelling.name)
                job = journal.get(int(named[1])) if named else None
                if job is None or not os.path.lexists(path):
                    return PathExplanation(
                        path, None, None, f"it is in the spool, and no job knows it{own}", is_known=False
                    )
                what = "the paid result" if named and named[2] == "result" else "a working file"
                state = " on its way to the outbox" if job.state is State.DELIVERING else f", which is {job.state}"
                return PathExplanation(path, job.rule, job, f"it is {what} of job {job.id}{state}{own}")
    return None


def _explain_foreign_path(config: Config, path: Path, location: _LocatedPath | None) -> PathExplanation:
    """Explain a path that no job knows: its folder, and what to do."""
    exists = os.path.lexists(path)
    prefix = "" if exists else "it does not exist, and "
    if location is None:
        inboxes = ", ".join(printable_path(rule.inbox) for rule in config.rules)
        reason = f"{prefix}it is under no inbox, and no job knows it"
        advice = f"put an image that is to be enhanced into an inbox: {inboxes}" if exists else _SPELLING_ADVICE
        return PathExplanation(path, None, None, reason, advice, is_known=False)
    where = f"it is in the {location.folder_kind} of rule {location.rule.name}"
    if location.path == location.root:
        where = f"it is the {location.folder_kind} of rule {location.rule.name}"
        return PathExplanation(path, location.rule.name, None, prefix + where, is_known=exists)
    if path.name.startswith(".picwish-") and path.name.endswith(".part"):
        return PathExplanation(path, location.rule.name, None, f"{where}: a copy that is being made", is_known=exists)
    if exists and stat.S_ISDIR(os.lstat(path).st_mode):
        return PathExplanation(
            path, location.rule.name, None, f"{where}, and is a folder; ask for a file in it", is_known=False
        )
    return PathExplanation(path, location.rule.name, None, f"{prefix}{where}; no job put it there", is_known=False)
