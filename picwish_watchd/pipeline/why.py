"""Why a file is where it is: the rule that takes it or what ignores it, its job, what that waits for, what to do."""

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from picwish_watchd.config import Config, Rule
from picwish_watchd.files.names import shown
from picwish_watchd.files.reading import kind_of, look
from picwish_watchd.files.verdicts import Bad, Gone, NotWhole, Unreadable
from picwish_watchd.files.walk import NameFilter
from picwish_watchd.job import Job, State
from picwish_watchd.journal import DaemonLock, JournalReader
from picwish_watchd.pipeline.context import PRICES, spool_folder
from picwish_watchd.pipeline.describe import moment
from picwish_watchd.pipeline.judge import judge
from picwish_watchd.pipeline.plan import first_of
from picwish_watchd.pipeline.purse import Purse


@dataclass(frozen=True, slots=True)
class Why:
    """The answer. ``known``: the path lies under an inbox and exists, or a job knows it."""

    path: Path
    rule: str | None
    job: Job | None
    reason: str
    advice: str | None = None
    known: bool = True
    earlier: tuple[int, ...] = ()  #: ids of older jobs of the same path, newest first


def why(config: Config, journal: JournalReader, path: Path, now: float) -> Why:
    """What became of ``path`` (absolute), as of ``now`` (Unix seconds). Reads the file at most, and submits nothing."""
    real = Path(os.path.realpath(path.parent), path.name)
    for each in (path, real):
        if jobs := journal.all_of(each):
            reason, advice = _of_job(config, journal, jobs[0], now)
            return Why(path, jobs[0].rule, jobs[0], reason, advice, earlier=tuple(job.id for job in jobs[1:]))
        if (owner := journal.owner_of_output(each)) is not None:
            return Why(path, owner.rule, owner, f"it is the result of job {owner.id}, made of {shown(owner.source)}")
        if (
            each.parent == spool_folder(config.journal)
            and each.stem.isdigit()
            and (kept := journal.get(int(each.stem)))
        ):
            return Why(path, kept.rule, kept, f"it is the paid result of job {kept.id} on its way to the outbox")
    for rule in config.rules:
        for each, inbox in ((path, rule.inbox), (real, Path(os.path.realpath(rule.inbox)))):
            if each.is_relative_to(inbox):
                return _in_inbox(config, journal, rule, path, each.relative_to(inbox), now)
    for rule in config.rules:
        for folder, what in ((rule.outbox, "outbox"), (rule.archive, "archive"), (rule.failed, "failed folder")):
            if folder is not None and path.is_relative_to(folder):
                job = journal.last_of(rule.inbox / path.relative_to(folder)) if what != "outbox" else None
                told = f"it lies in the {what} of rule {rule.name}; " + (
                    f"its job was {job.id}" if job else "no job of ours put it there"
                )
                return Why(path, rule.name, job, told, known=job is not None)
    return Why(path, None, None, "it lies under no inbox, and no job knows it", _inboxes(config), known=False)


def _inboxes(config: Config) -> str:
    return "put it into an inbox: " + ", ".join(shown(rule.inbox) for rule in config.rules)


def _in_inbox(config: Config, journal: JournalReader, rule: Rule, path: Path, relative: Path, now: float) -> Why:
    source = rule.inbox / relative
    found = look(source, follow_symlinks=rule.follow_symlinks)
    if isinstance(found, Gone):
        return Why(path, rule.name, None, "it does not exist, and no job knows it", known=False)
    ignored = _ignored(rule, relative)
    if ignored is not None:
        return Why(path, None, None, f"rule {rule.name} ignores it: {ignored}", "rename it, or change the rule")
    if isinstance(found, Unreadable):
        return Why(
            path, rule.name, None, f"it cannot be read: {found.reason}", "mend its permissions; it is tried again"
        )
    if stat.S_ISDIR(found.st_mode):
        return Why(path, rule.name, None, f"it is a folder that rule {rule.name} looks into")
    age = now - found.st_mtime
    if age < rule.settle:
        return Why(path, rule.name, None, f"it is settling: last changed {age:.1f} s ago, settle is {rule.settle:g} s")
    final = age >= max(rule.settle, rule.settle_timeout)
    verdict = judge(source, config.api, rule, final=final)
    match verdict:
        case Bad(problem=problem):
            return Why(
                path, rule.name, None, f"it will be rejected: {problem.message}", "mend the file; it is looked at again"
            )
        case NotWhole(reason=reason) | Unreadable(reason=reason):
            return Why(path, rule.name, None, f"{reason}", "copy it to its end; it is looked at again by itself")
    sha256 = getattr(verdict, "sha256", None)
    first = first_of(journal, sha256, rule) if sha256 else None
    told = "it has no job yet" + (f"; as a copy it gets the result of job {first.id}" if first else "")
    running = DaemonLock(config.journal).owner() is not None
    advice = f"it is taken within {rule.rescan_interval:g} s" if running else "start `picwish-watchd run`"
    return Why(path, rule.name, None, told, advice)


def _ignored(rule: Rule, relative: Path) -> str | None:
    """Which part of the path, and what about it, keeps the walk from it."""
    names = NameFilter(rule.include, rule.exclude)
    for depth, part in enumerate(relative.parts, 1):
        below = "/".join(relative.parts[:depth])
        last = depth == len(relative.parts)
        what = "its name" if last else f'the folder "{shown(below)}"'
        if (pattern := names.ignored_by(part, below)) is not None:
            return f"{what} matches {pattern}"
        here = rule.inbox / below
        if here.is_symlink() and not rule.follow_symlinks and (not last or here.is_dir()):
            return f'"{shown(below)}" is a symbolic link, and follow_symlinks is false'
        if not last and not rule.recursive:
            return "it lies in a subfolder, and recursive is false"
        if last and not names.takes(part, below) and not here.is_dir():
            kind = look(here)
            mode = kind.st_mode if isinstance(kind, os.stat_result) else 0
            other = f"it is {kind_of(mode)}, and " if mode and not stat.S_ISREG(mode) else ""
            return f"{other}its name matches no pattern of include"
    return None


def _of_job(config: Config, journal: JournalReader, job: Job, now: float) -> tuple[str, str | None]:
    retry = f"`picwish-watchd retry {job.id}` puts it back; `show {job.id}` tells its history"
    match job.state:
        case State.DONE:
            return f"it is done: {shown(job.output) if job.output else 'no result'}" + _note(job), None
        case State.REJECTED | State.FAILED | State.HELD:
            return f"it is {job.state}: {job.problem.message if job.problem else 'see its history'}", retry
        case State.QUEUED:
            return _queued(config, journal, job, now)
        case State.DELIVERING:
            return "its result is paid and kept, and goes to the outbox" + _note(job), None
    return f"it is {job.state} at PicWish since {moment(job.submitted_at)}" + _note(job), None


def _note(job: Job) -> str:
    later = f"; tried again at {moment(job.not_before)}" if job.not_before and job.state is not State.DONE else ""
    return (f" ({job.note})" if job.note else "") + later


def _queued(config: Config, journal: JournalReader, job: Job, now: float) -> tuple[str, str | None]:
    rule = next((rule for rule in config.rules if rule.name == job.rule), None)
    if rule is None:
        return f"it is queued, and its rule {job.rule} left the configuration", "put the rule back"
    if journal.is_flood(job.id):
        return "it came in a flood that budget.burst holds", f"`picwish-watchd approve {job.rule}`"
    pid = DaemonLock(config.journal).owner()
    if pid is None:
        return "it is queued, and the daemon does not run", "start `picwish-watchd run`"
    told = json.loads(journal.report() or "{}")
    if told.get("pid") == pid and told.get("blocked"):
        return f"it is queued, and nothing is submitted: {told['blocked']['message']}", "see `picwish-watchd status`"
    short = Purse(config.budget, now).shortage(journal, PRICES[rule.type])
    if short is not None:
        return f"it is queued: {short}", None
    first = first_of(journal, job.sha256, rule, job) if job.sha256 else None
    if first is not None:
        return f"it is queued as a copy: it gets the result of job {first.id}, which is {first.state}", None
    return "it is queued and waits for its turn" + _note(job), None
